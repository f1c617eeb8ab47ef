"""Pages from templates: everything escaped, nothing undefined, nothing fetched. Knows no page but the base of all.

A template of any room begins with ``{% extends "base.html" %}`` and fills the blocks ``content`` and, where it wants to,
``lead``, ``footer``, ``style`` and ``script``; ``{% import "parts.html" as parts with context %}`` gives it tables and charts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Literal, TypeAlias

from edge_resnet.core import __version__
from edge_resnet.core.errors import MissingDependencyError

__all__ = ["Cell", "Column", "Row", "Table", "Tone", "render"]

#: How a cell or a row is shown: as it is, quietly, or marked.
Tone: TypeAlias = Literal["", "quiet", "good", "wait", "bad"]


@dataclass(frozen=True)
class Column:
    """``label``: its heading. ``numeric``: set to the right, and sorted by number. ``note``: a word on it, under the heading."""

    label: str
    numeric: bool = False
    note: str = ""


@dataclass(frozen=True)
class Cell:
    """``text``: what is shown. ``value``: what it is sorted by, where that is a number; None sorts last. ``note``: a small line
    under it."""

    text: str
    value: float | None = None
    note: str = ""
    tone: Tone = ""


@dataclass(frozen=True)
class Row:
    """One cell or plain text per column; the first is the row's heading."""

    cells: tuple[Cell | str, ...]
    tone: Tone = ""


@dataclass(frozen=True)
class Table:
    """``name``: its id in the page. ``sortable``: a click on a heading, or Enter on it, sorts."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    sortable: bool = False


def render(template: str, package: str, /, **values: object) -> str:
    """Fill ``template``, a file of ``package``, with ``values``. ``title`` is one of them.

    Raises MissingDependencyError; a value that is missing, or a template, is a bug and raises what jinja2 raises.
    """
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
    except ImportError as error:
        raise MissingDependencyError("pages need jinja2", hint="pip install 'edge-resnet[report]'") from error
    loader = FunctionLoader(_reader(package))
    # Every template is HTML: autoescape by file name would miss one.
    pages = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    pages.filters["cell"] = _cell
    return pages.get_template(template).render({"version": __version__, **values}) + "\n"


def _reader(package: str) -> Callable[[str], str | None]:
    """A template's text: the room's own, else this room's, else None."""

    def read(name: str) -> str | None:
        for room in (package, __package__ or ""):
            file = resources.files(room) / name
            if file.is_file():
                return file.read_text(encoding="utf-8")
        return None

    return read


def _cell(value: Cell | str) -> Cell:
    return value if isinstance(value, Cell) else Cell(value)
