"""The result of an experiment: tables, charts, conclusions, and the differences from the paper's setup. Runs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from edge_resnet.measurement.page.figure import Chart

__all__ = ["Cell", "Column", "ExperimentResult", "SetupDifference", "Table"]

#: A text, a number, or None for an empty cell.
Cell: TypeAlias = str | int | float | None


@dataclass(frozen=True)
class Column:
    """``key``: the name in JSON. ``digits``: decimal places of a column of numbers, None for a column of texts."""

    title: str
    key: str
    digits: int | None = None

    @property
    def numeric(self) -> bool:
        """Whether the column is aligned to the right."""
        return self.digits is not None

    def text(self, cell: Cell) -> str:
        """The cell for people; a hyphen if it is empty."""
        if cell is None:
            return "-"
        if isinstance(cell, str):
            return cell
        return f"{cell:,.{self.digits or 0}f}"


@dataclass(frozen=True)
class Table:
    """A captioned table. ``rows``: a cell per column."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def as_dicts(self) -> list[dict[str, Cell]]:
        """The rows for JSON, by the columns' keys."""
        return [{column.key: cell for column, cell in zip(self.columns, row, strict=True)} for row in self.rows]


@dataclass(frozen=True)
class SetupDifference:
    """One thing that differs from the paper: what it is, its value in the paper, and its value here."""

    what: str
    paper: str
    here: str


@dataclass(frozen=True)
class ExperimentResult:
    """The result of one experiment.

    ``verdicts``: conclusions, one sentence each, that the numbers support. ``differences``: from the paper's setup.
    ``settings``: the request. ``data``: every number behind the tables and charts, for JSON. ``interrupted``: it is incomplete.
    """

    experiment: str
    title: str
    verdicts: tuple[str, ...]
    tables: tuple[Table, ...]
    charts: tuple[Chart, ...]
    differences: tuple[SetupDifference, ...]
    settings: Mapping[str, Any]
    data: Mapping[str, Any] = field(default_factory=dict)
    interrupted: bool = False
