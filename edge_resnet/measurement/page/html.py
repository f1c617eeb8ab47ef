"""Renders pages from templates: all values are escaped, an undefined one is an error, and the page fetches nothing.

A template of any package begins with ``{% extends "base.html" %}`` and fills the block ``content``, and optionally ``lead``,
``footer``, ``style`` and ``script``; ``{% import "parts.html" as parts with context %}`` gives it tables and charts. Knows only
the base of all pages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Literal, TypeAlias

from edge_resnet.core import __version__
from edge_resnet.core.errors import MissingDependencyError

__all__ = ["Cell", "Column", "Row", "Table", "Tone", "render"]

#: How a cell or a row is shown: normally, in grey, or in the colour of a good, pending or bad state.
Tone: TypeAlias = Literal["", "quiet", "good", "wait", "bad"]


@dataclass(frozen=True)
class Column:
    """``label``: the heading. ``numeric``: aligned right and sorted by number. ``note``: small text under the heading."""

    label: str
    numeric: bool = False
    note: str = ""


@dataclass(frozen=True)
class Cell:
    """``text``: what is shown. ``value``: the number to sort by; None sorts last. ``note``: small text under it."""

    text: str
    value: float | None = None
    note: str = ""
    tone: Tone = ""


@dataclass(frozen=True)
class Row:
    """A cell or a plain text per column; the first is the row's heading."""

    cells: tuple[Cell | str, ...]
    tone: Tone = ""


@dataclass(frozen=True)
class Table:
    """``name``: the id in the page. ``sortable``: a click on a heading, or Enter, sorts by it."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    sortable: bool = False


def render(template: str, package: str, /, **values: object) -> str:
    """Fill ``template``, a file of ``package``, with ``values``, which include ``title``.

    Raises MissingDependencyError without jinja2. A missing value or template is a bug and raises jinja2's error.
    """
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
    except ImportError as error:
        raise MissingDependencyError("pages need jinja2", hint="pip install 'edge-resnet[report]'") from error
    loader = FunctionLoader(_reader(package))
    # Every template is HTML; autoescaping by file name could miss one.
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["cell"] = _cell
    return environment.get_template(template).render({"version": __version__, **values}) + "\n"


def _reader(package: str) -> Callable[[str], str | None]:
    """Reads a template from ``package``, else from this package; None if neither has it."""

    def read(name: str) -> str | None:
        for owner in (package, __package__ or ""):
            file = resources.files(owner) / name
            if file.is_file():
                return file.read_text(encoding="utf-8")
        return None

    return read


def _cell(value: Cell | str) -> Cell:
    return value if isinstance(value, Cell) else Cell(value)
