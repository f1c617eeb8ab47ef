"""Pages: escaped, complete and self-contained."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_resnet.core.errors import MissingDependencyError
from edge_resnet.measurement.page.html import Cell, Column, Row, Table, render

_TABLE = Table(
    "speed",
    "Latencies & rates",
    (Column("Model"), Column("p90, ms", numeric=True, note="95 % interval")),
    (Row(("resnet18", Cell("9.10", 9.1, "9.0 to 9.3"))), Row((Cell("resnet50", tone="bad"), Cell("none")), tone="quiet")),
    sortable=True,
)
_PAGE = """{% extends "base.html" %}{% import "parts.html" as parts with context %}
{% block content %}{{ parts.table(table) }}<p>{{ text }}</p>{% endblock %}"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a package with one template."""
    name = f"page_{tmp_path.name.replace('-', '_')}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / name / "page.html").write_text(_PAGE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


class _Seen(HTMLParser):
    """The tags with their attributes; asserts that tags are closed in order."""

    _VOID = ("meta", "link", "img", "br", "input", "hr", "path", "use")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self._VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_page_is_well_formed_and_fetches_nothing(package: str) -> None:
    """Every tag is closed; no attribute refers to anything outside the page."""
    text = render("page.html", package, title="Speed", table=_TABLE, text="")
    seen = _Seen(text)
    assert seen.open == []
    assert text.startswith("<!doctype html>")
    for tag, attributes in seen.tags:
        assert tag != "link"
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert "@import" not in text
    assert "http://" not in text
    assert "https://" not in text


def test_its_policy_forbids_fetching(package: str) -> None:
    """A browser may fetch nothing, whatever a template holds."""
    tags = _Seen(render("page.html", package, title="Speed", table=_TABLE, text="")).tags
    policy = next(a["content"] for tag, a in tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


@settings(max_examples=25)
@given(st.text(alphabet="<>&\"'/script abc\N{SNOWMAN}", max_size=30))
def test_text_never_becomes_tags(text: str) -> None:
    """Labels and file names stay text, whatever they hold."""
    page = render("parts_probe.html", "tests_page_probe", title=text, text=text)
    assert [tag for tag, _ in _Seen(page).tags] == ["h1", "p"]


@pytest.fixture(scope="module", autouse=True)
def probe(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A package whose template holds nothing but a text."""
    folder = tmp_path_factory.mktemp("probe")
    (folder / "tests_page_probe").mkdir()
    (folder / "tests_page_probe" / "__init__.py").write_text("")
    (folder / "tests_page_probe" / "parts_probe.html").write_text('<h1>{{ title }}</h1><p title="{{ text }}">{{ text }}</p>')
    sys.path.insert(0, str(folder))


def test_the_markup_of_a_table(package: str) -> None:
    """Caption, scopes, right-aligned numbers with their value, tones as classes."""
    tags = _Seen(render("page.html", package, title="Speed", table=_TABLE, text="")).tags
    table = next(a for tag, a in tags if tag == "table")
    assert table["id"] == "speed"
    assert "data-sortable" in table
    assert [a.get("scope") for tag, a in tags if tag == "th"] == ["col", "col", "row", "row"]
    cells = [a for tag, a in tags if tag == "td"]
    assert [cell.get("data-value") for cell in cells] == ["9.1", None]
    assert all("number" in (cell["class"] or "") for cell in cells)
    assert [a.get("class") for tag, a in tags if tag == "tr"] == [None, None, "quiet"]


def test_a_missing_value_is_an_error(package: str) -> None:
    """An undefined name never renders as an empty text."""
    with pytest.raises(jinja2.UndefinedError, match="text"):
        render("page.html", package, title="Speed", table=_TABLE)


def test_without_jinja_the_hint_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """MissingDependencyError with the command that installs it."""
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependencyError) as caught:
        render("base.html", "edge_resnet.measurement.page", title="")
    assert "edge-resnet[report]" in caught.value.hint
