"""The Pareto front of accuracy and latency, and the two choices that readers ask for.

The choices are the most accurate row under a latency limit and the fastest row within a loss of accuracy. Each says how certain
it is: which other rows do not differ significantly, and whether the limit holds for the whole 95 % interval or for the measured
value only. Does not know about pages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edge_resnet.core.statistics import PairedDifference
from edge_resnet.measurement.accuracy import paired_drop
from edge_resnet.measurement.report.record import Row

__all__ = [
    "POINTS",
    "BestAccuracy",
    "Fastest",
    "Rival",
    "Speedup",
    "accuracy_drop",
    "best_accuracy_under",
    "comparable_rows",
    "dominated_by",
    "fastest_within",
    "limits_ms",
    "pareto_front",
    "speedup",
]

#: Losses of top-1, in points, that a report shows the fastest row for.
POINTS = (0.5, 1.0, 2.0, 5.0)
_STEPS = (1.0, 2.0, 5.0)
_MAX_LIMITS = 6
#: Sums of percentages are off by this much at most.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Rival:
    """A row that is not significantly less accurate. ``difference`` is None where the two were measured on different images."""

    row: Row
    difference: PairedDifference | None


@dataclass(frozen=True)
class BestAccuracy:
    """The most accurate row under ``limit_ms``: None where no row is that fast.

    ``limit_holds`` is true where the upper bound of its p90 is under the limit too. ``rivals`` are the other rows under the limit
    without a significant difference, the fastest first.
    """

    limit_ms: float
    row: Row | None
    limit_holds: bool
    rivals: tuple[Rival, ...]


@dataclass(frozen=True)
class Fastest:
    """The fastest row that loses at most ``points`` of top-1 to ``best``, the most accurate row.

    ``row`` is chosen by the measured values, and ``drop`` is what it loses, None for ``best`` itself and for different images.
    ``certain`` is the fastest row whose loss is within ``points`` with its whole 95 % interval; ``best`` itself always is.
    """

    points: float
    best: Row
    row: Row
    drop: PairedDifference | None
    certain: Row


@dataclass(frozen=True)
class Speedup:
    """How many times faster one row is than another by p90, with the bounds that the two 95 % intervals allow."""

    ratio: float
    low: float
    high: float


def best_accuracy_under(limit_ms: float, rows: Sequence[Row]) -> BestAccuracy:
    """Choose the row with the highest top-1 among those with a p90 of at most ``limit_ms``; of two equal ones the faster."""
    candidates = [row for row in comparable_rows(rows) if row.p90_ms <= limit_ms]
    if not candidates:
        return BestAccuracy(limit_ms, None, False, ())
    best = max(candidates, key=lambda row: (row.top1, -row.p90_ms))
    assert best.latency is not None
    others = [Rival(row, accuracy_drop(best, row)) for row in candidates if row is not best]
    rivals = [rival for rival in others if rival.difference is None or not rival.difference.significant]
    rivals.sort(key=lambda rival: rival.row.p90_ms)
    return BestAccuracy(limit_ms, best, best.latency.metric.ci95[1] <= limit_ms, tuple(rivals))


def fastest_within(points: float, rows: Sequence[Row]) -> Fastest | None:
    """Choose the row with the lowest p90 that loses at most ``points`` of top-1 to the most accurate row.

    None where no row has both an accuracy and a latency.
    """
    candidates = sorted(comparable_rows(rows), key=lambda row: row.p90_ms)
    if not candidates:
        return None
    best = max(candidates, key=lambda row: (row.top1, -row.p90_ms))
    chosen = next(row for row in candidates if row is best or best.top1 - row.top1 <= points + _ROUNDING)
    certain = next(row for row in candidates if row is best or _certainly_within(accuracy_drop(best, row), points))
    return Fastest(points, best, chosen, None if chosen is best else accuracy_drop(best, chosen), certain)


def limits_ms(rows: Sequence[Row]) -> tuple[float, ...]:
    """Round latency limits for these rows: 1, 2, 5, 10 … from below the fastest row up to the first above the slowest."""
    latencies = [row.p90_ms for row in comparable_rows(rows)]
    if not latencies:
        return ()
    exponents = range(math.floor(math.log10(min(latencies))) - 1, math.ceil(math.log10(max(latencies))) + 1)
    rounds = [round(step * 10.0**exponent, 9) for exponent in exponents for step in _STEPS]
    first = max(value for value in rounds if value < min(latencies))
    last = min(value for value in rounds if value >= max(latencies))
    return tuple(value for value in rounds if first <= value <= last)[-_MAX_LIMITS:]


def comparable_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows that have both an accuracy and a latency."""
    return [row for row in rows if row.accuracy is not None and row.latency is not None]


def pareto_front(rows: Sequence[Row]) -> list[Row]:
    """The rows that no other row dominates, the fastest first."""
    return sorted((row for row in comparable_rows(rows) if dominated_by(row, rows) is None), key=lambda row: row.p90_ms)


def dominated_by(row: Row, rows: Sequence[Row]) -> Row | None:
    """A row that is at least as accurate and as fast by the measured values, and better in one of the two; else None."""
    if not comparable_rows([row]):
        return None
    for other in comparable_rows(rows):
        as_good = other.top1 >= row.top1 and other.p90_ms <= row.p90_ms
        if as_good and (other.top1 > row.top1 or other.p90_ms < row.p90_ms):
            return other
    return None


def accuracy_drop(better: Row, worse: Row) -> PairedDifference | None:
    """Top-1 of ``better`` minus that of ``worse``; None where they were not measured on the same images."""
    return paired_drop(better.accuracy, worse.accuracy)


def speedup(slow: Row, fast: Row) -> Speedup | None:
    """How many times faster ``fast`` is than ``slow``; None where a latency is missing."""
    if slow.latency is None or fast.latency is None:
        return None
    (slow_low, slow_high), (fast_low, fast_high) = slow.latency.metric.ci95, fast.latency.metric.ci95
    return Speedup(slow.p90_ms / fast.p90_ms, slow_low / fast_high, slow_high / fast_low)


def _certainly_within(drop: PairedDifference | None, points: float) -> bool:
    return drop is not None and drop.ci95[1] <= points
