"""What the documentation promises is held by a test: tests/promises.toml names it for every sentence."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from testnames import is_a_test

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPO = Path(__file__).resolve().parent.parent
RECORDS = tomllib.loads((REPO / "tests" / "promises.toml").read_text(encoding="utf-8"))


def sentences(page: str) -> list[str]:
    """The sentences and the rows of tables of a document, each on one line, without headings and blocks of code."""
    text = re.sub(r"```.*?```", "", (REPO / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    found = []
    for block in filter(None, re.split(r"\n\s*\n", text)):
        if block.lstrip().startswith("|"):
            found += [" ".join(row.strip().strip("|").split()) for row in block.strip().splitlines()[2:]]
        elif not block.lstrip().startswith("#"):
            found += re.split(r"(?<=[.:])\s+(?=[A-Z`-])", " ".join(block.split()))
    return [sentence for sentence in found if sentence]


def _pieces(page: str) -> list[str]:
    others = RECORDS[page]["others"]
    return [*RECORDS[page]["promises"], *others["explanations"], *others["untested"]]


@pytest.mark.parametrize("page", RECORDS)
def test_every_sentence_is_recorded(page: str) -> None:
    """Each is a promise with its tests, or recorded as one that promises nothing."""
    pieces = _pieces(page)
    assert [sentence for sentence in sentences(page) if not any(piece in sentence for piece in pieces)] == []


@pytest.mark.parametrize("page", RECORDS)
def test_every_record_stands_in_the_document(page: str) -> None:
    """A sentence that was changed or removed takes its record with it."""
    found = sentences(page)
    assert [piece for piece in _pieces(page) if not any(piece in sentence for sentence in found)] == []


@pytest.mark.parametrize("page", RECORDS)
def test_every_test_exists(page: str) -> None:
    """A test that is renamed is renamed in the record."""
    promises: dict[str, list[str]] = RECORDS[page]["promises"]
    assert [piece for piece, tests in promises.items() if not tests] == []
    assert [name for tests in promises.values() for name in tests if not is_a_test(name)] == []
