"""SECURITY.md: each promise stands beside a test that exists, and each package that is required beside its licence."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from testnames import is_a_test

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPO = Path(__file__).resolve().parent.parent
TEXT = (REPO / "SECURITY.md").read_text(encoding="utf-8")
#: Name → extras and licence.
LICENCES = {
    name: (extras, licence)
    for name, extras, licence in re.findall(r"^\| ([\w-]+) \| (.*?) ?\| (.+) \|$", TEXT.split("## Licences")[1], re.MULTILINE)
    if name != "package"
}
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
#: Name → the extras that require it, none for the base install.
REQUIRED: dict[str, set[str]] = {}
for extra, lines in (("", PROJECT["dependencies"]), *PROJECT["optional-dependencies"].items()):
    for name in (Requirement(line).name for line in lines):
        if name != "edge-resnet":
            REQUIRED.setdefault(name, set()).update({extra} - {""})


def _promises() -> list[tuple[str, str]]:
    tables = re.findall(r"^\| promise \| test \|\n\|---\|---\|\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    rows = [re.fullmatch(r"\| (.+) \| (.+) \|", line) for table in tables for line in table.splitlines()]
    assert all(rows)
    return [(row.group(1), row.group(2)) for row in rows if row is not None]


@pytest.mark.parametrize(("promise", "tests"), _promises())
def test_every_promise_has_its_test(promise: str, tests: str) -> None:
    """Beside each sentence stand the tests that hold it, and they exist."""
    named = re.findall(r"`([^`]+::[^`]+)`", tests)
    assert promise.endswith(".")
    assert named
    assert [name for name in named if not is_a_test(name)] == []


def test_every_requirement_has_its_licence() -> None:
    """The table has the packages of pyproject.toml and no others, each with the extras that bring it."""
    assert {
        name: set(re.findall(r"[a-z][a-z0-9-]*", row[0].replace("(Python 3.10)", ""))) for name, row in LICENCES.items()
    } == REQUIRED


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_a_licence_is_the_one_that_the_package_states(name: str) -> None:
    """What is installed names the same family of licences in its metadata."""
    try:
        metadata = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    stated = " ".join(
        [metadata.get(key) or "" for key in ("License-Expression", "License")] + (metadata.get_all("Classifier") or [])
    )
    family = re.split(r"[- ;']", LICENCES[name][1])[0].lower()
    assert family in stated.lower()


def test_what_is_proprietary_says_so() -> None:
    """Who builds an image with TensorRT must know that it may not be free to give away."""
    assert all(row[1].startswith("proprietary") for name, row in LICENCES.items() if name.startswith("tensorrt"))
    assert "**TensorRT is proprietary**" in TEXT
