"""Numbers, differences and series as every part of a report writes them. Does not know about pages or files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from edge_resnet.core.records import Precision
from edge_resnet.core.statistics import PairedDifference
from edge_resnet.measurement.page.figure import MARKERS, SERIES
from edge_resnet.measurement.report.record import Row

__all__ = ["describe_drop", "ms", "plural", "points", "row_colour", "row_marker", "signed", "top1"]

_MINUS = "\N{MINUS SIGN}"


def ms(value: float) -> str:
    """Milliseconds with three significant digits, for example 0.412, 9.07, 51.2, 1204."""
    return f"{value:.0f}" if value >= 999.5 else f"{value:.3g}" if value >= 99.95 else f"{value:#.3g}".rstrip(".")


def top1(row: Row) -> str:
    """Top-1 in percent with one decimal."""
    return "not measured" if row.accuracy is None else f"{row.accuracy.top1:.1f} %"


def signed(value: float) -> str:
    """Points with their sign, for example +0.5; a value that rounds to zero has none."""
    text = f"{abs(value):.1f}"
    return text if text == "0.0" else f"+{text}" if value > 0 else f"{_MINUS}{text}"


def points(value: float) -> str:
    """A number of points, for example 1 point, 0.5 points."""
    return plural(f"{value:g}", "point")


def plural(count: int | str, noun: str) -> str:
    """A count with its noun."""
    return f"{count} {noun}" if str(count) == "1" else f"{count} {noun}s"


def describe_drop(found: PairedDifference | None) -> str:
    """A loss of top-1 with its interval, and whether it is significant."""
    if found is None:
        return "not comparable: measured on different images"
    verdict = "significant" if found.significant else "no significant difference"
    low, high = (signed(bound).removeprefix("+") for bound in found.ci95)
    return f"{signed(found.points).removeprefix('+')} points ({low} to {high}, p = {found.p:.2g}): {verdict}"


def row_colour(row: Row) -> str:
    """The colour of the row's precision."""
    return SERIES[get_args(Precision).index(row.precision)]


def row_marker(row: Row, rows: Sequence[Row]) -> str:
    """The marker of the row's backend among those of all rows (matplotlib's name)."""
    return MARKERS[sorted({other.backend for other in rows}).index(row.backend) % len(MARKERS)]
