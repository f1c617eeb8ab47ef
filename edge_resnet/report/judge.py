"""What the rows of a report say about each other: who is dominated, who differs from whom, and by how much for sure.

Knows no chart and no page. Accuracies of the same images are compared image by image, which tells apart what their own intervals
cannot; of different images they are not compared at all.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_resnet.answers import paired
from edge_resnet.core.statistics import Difference
from edge_resnet.report.record import Row

__all__ = ["dominated", "drop", "front", "front_rows", "speedup"]


def drop(better: Row, worse: Row) -> Difference | None:
    """By how many points of top-1 ``worse`` is below ``better``; None where they were not measured on the same images."""
    return paired(better.accuracy, worse.accuracy)


def front_rows(rows: Sequence[Row]) -> list[Row]:
    """Those with both an accuracy and a latency: what a front can be made of."""
    return [row for row in rows if row.accuracy is not None and row.latency is not None]


def front(rows: Sequence[Row]) -> list[Row]:
    """The rows that no other one dominates, the fastest first."""
    return sorted((row for row in front_rows(rows) if not dominated(row, rows)), key=_p90)


def dominated(row: Row, rows: Sequence[Row]) -> Row | None:
    """A row that is as accurate and as fast, and better in one of them, by the measured values; None where there is none."""
    if not front_rows([row]):
        return None
    for other in front_rows(rows):
        level = _top1(other) >= _top1(row) and _p90(other) <= _p90(row)
        if level and (_top1(other) > _top1(row) or _p90(other) < _p90(row)):
            return other
    return None


def speedup(slow: Row, fast: Row) -> tuple[float, float, float] | None:
    """How many times faster ``fast`` is by its p90, and the bounds that the two intervals allow; None without both."""
    if slow.latency is None or fast.latency is None:
        return None
    (slow_low, slow_high), (fast_low, fast_high) = slow.latency.metric.ci95, fast.latency.metric.ci95
    return _p90(slow) / _p90(fast), slow_low / fast_high, slow_high / fast_low


def _p90(row: Row) -> float:
    assert row.latency is not None
    return row.latency.p90_ms


def _top1(row: Row) -> float:
    assert row.accuracy is not None
    return row.accuracy.top1
