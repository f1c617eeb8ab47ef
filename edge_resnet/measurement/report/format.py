"""Numbers as a report writes them, everywhere alike. Knows no page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from edge_resnet.core.records import Precision
from edge_resnet.core.statistics import Difference
from edge_resnet.measurement.page.figure import MARKERS, SERIES
from edge_resnet.measurement.report.record import Row

__all__ = ["between", "colour", "marker", "ms", "plural", "points", "signed", "told", "top1"]

_MINUS = "\N{MINUS SIGN}"


def ms(value: float) -> str:
    """Milliseconds with three digits that count, for example 0.412, 9.07, 51.2, 1204."""
    return f"{value:.0f}" if value >= 999.5 else f"{value:.3g}" if value >= 99.95 else f"{value:#.3g}".rstrip(".")


def between(interval: tuple[float, float]) -> str:
    """An interval of milliseconds or percents."""
    return f"{ms(interval[0])} to {ms(interval[1])}"


def top1(row: Row) -> str:
    """Top-1 with one decimal, in percent."""
    return "not measured" if row.accuracy is None else f"{row.accuracy.top1:.1f} %"


def signed(value: float) -> str:
    """Points with their sign, for example +0.5; what rounds to nothing has none."""
    text = f"{abs(value):.1f}"
    return text if text == "0.0" else f"+{text}" if value > 0 else f"{_MINUS}{text}"


def points(value: float) -> str:
    """So many points, for example 1 point, 0.5 points."""
    return plural(f"{value:g}", "point")


def plural(count: int | str, noun: str) -> str:
    """A count with its noun."""
    return f"{count} {noun}" if str(count) == "1" else f"{count} {noun}s"


def told(found: Difference | None) -> str:
    """A loss of top-1 with its interval and whether it is more than chance."""
    if found is None:
        return "not compared: other images"
    verdict = "told apart" if found.significant else "not told apart"
    low, high = (signed(bound).removeprefix("+") for bound in found.ci95)
    return f"{signed(found.points).removeprefix('+')} points ({low} to {high}, p = {found.p:.2g}): {verdict}"


def colour(row: Row) -> str:
    """The precision's colour."""
    return SERIES[get_args(Precision).index(row.precision)]


def marker(row: Row, rows: Sequence[Row]) -> str:
    """The shape of its backend among those of all rows (matplotlib's name)."""
    return MARKERS[sorted({other.backend for other in rows}).index(row.backend) % len(MARKERS)]
