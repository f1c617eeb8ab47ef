"""What an experiment found, as frozen records: tables, charts, sentences, and what was scaled down. Draws and runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from edge_resnet.measurement.page.figure import Chart

__all__ = ["Cell", "Column", "ExperimentResult", "Scaled", "Table"]

#: A text, a number, or None where there is none.
Cell: TypeAlias = str | int | float | None


@dataclass(frozen=True)
class Column:
    """``key``: its name in JSON. ``digits``: behind the point of its numbers; None: a column of texts and whole numbers."""

    title: str
    key: str
    digits: int | None = None

    @property
    def numeric(self) -> bool:
        """Whether the column is aligned as numbers are."""
        return self.digits is not None

    def text(self, cell: Cell) -> str:
        """The cell as a reader sees it; a hyphen where there is none."""
        if cell is None:
            return "-"
        if isinstance(cell, str):
            return cell
        return f"{cell:,.{self.digits or 0}f}"


@dataclass(frozen=True)
class Table:
    """``rows``: a cell per column."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def as_dicts(self) -> list[dict[str, Cell]]:
        """The rows by the columns' keys, for JSON."""
        return [{column.key: cell for column, cell in zip(self.columns, row, strict=True)} for row in self.rows]

    def lines(self) -> list[str]:
        """The table for a terminal: a header and a line per row, numbers flush right."""
        texts = [[c.title for c in self.columns]]
        texts += [[c.text(cell) for c, cell in zip(self.columns, row, strict=True)] for row in self.rows]
        widths = [max(len(row[place]) for row in texts) for place in range(len(self.columns))]
        return ["  ".join(self._padded(row, widths)).rstrip() for row in texts]

    def _padded(self, row: Sequence[str], widths: Sequence[int]) -> list[str]:
        return [
            text.rjust(width) if column.numeric else text.ljust(width)
            for text, width, column in zip(row, widths, self.columns, strict=True)
        ]


@dataclass(frozen=True)
class Scaled:
    """One thing that is not as in the paper: what it is, how it is there, how it is here."""

    what: str
    paper: str
    here: str


@dataclass(frozen=True)
class ExperimentResult:
    """One experiment's outcome. ``verdicts``: what our numbers say, one sentence each, never more than they do.

    ``settings``: what it was asked for. ``data``: every number behind the tables and charts, for JSON. ``interrupted``: it is a
    part of what was asked for.
    """

    experiment: str
    title: str
    verdicts: tuple[str, ...]
    tables: tuple[Table, ...]
    charts: tuple[Chart, ...]
    scaled: tuple[Scaled, ...]
    settings: Mapping[str, Any]
    data: Mapping[str, Any] = field(default_factory=dict)
    interrupted: bool = False
