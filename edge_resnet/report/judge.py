"""What the rows of a report say about each other: who is dominated, who differs from whom, and by how much for sure.

Knows no chart and no page. Accuracies of the same images are compared image by image, which tells apart what their own intervals
cannot; of different images they are not compared at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_resnet.answers import Accuracy
from edge_resnet.report.record import Row
from edge_resnet.statistics import mcnemar_exact, paired_drop_interval

__all__ = ["Difference", "difference", "dominated", "drop", "front", "front_rows", "paired", "speedup"]

_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Difference:
    """``points``: top-1 of one row minus another's, ``ci95`` its paired 95 % interval, ``p``: McNemar's exact. ``images``: that
    both answered."""

    points: float
    ci95: tuple[float, float]
    p: float
    images: int

    @property
    def told_apart(self) -> bool:
        """Whether it is more than chance on so many images."""
        return self.p < _SIGNIFICANT


def drop(better: Row, worse: Row) -> Difference | None:
    """By how many points of top-1 ``worse`` is below ``better``; None where they were not measured on the same images."""
    return paired(better.accuracy, worse.accuracy)


def paired(one: Accuracy | None, other: Accuracy | None) -> Difference | None:
    """By how many points ``other`` is below ``one``, image by image; None where they are not of the same images."""
    if (
        one is None
        or other is None
        or not one.right
        or one.data_digest != other.data_digest
        or len(one.right) != len(other.right)
    ):
        return None
    only_one = sum(a == "1" and b == "0" for a, b in zip(one.right, other.right, strict=True))
    only_other = sum(a == "0" and b == "1" for a, b in zip(one.right, other.right, strict=True))
    return difference(only_one, only_other, len(one.right))


def difference(only_one: int, only_other: int, images: int) -> Difference:
    """The same from counts of the images that one of two alone answers right."""
    low, high = paired_drop_interval(only_one, only_other, images)
    points = 100 * (only_one - only_other) / images
    return Difference(points, (100 * low, 100 * high), mcnemar_exact(only_one, only_other), images)


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
