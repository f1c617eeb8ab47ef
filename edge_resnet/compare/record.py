"""What a comparison is made of, as frozen records, and when a change is one. Measures nothing and reads no file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["Comparison", "Delta", "Interval", "Verdict", "overlap", "percent", "verdict"]

#: ``worse`` and ``better``: by more than the tolerance, and the intervals say that it is not noise; ``unclear``: by more than the
#: tolerance, but it may be noise, or other programs ran; ``same``: within the tolerance.
Verdict: TypeAlias = Literal["worse", "better", "unclear", "same"]
Interval: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Delta:
    """One figure of both: ``old``, ``new`` with their 95 % intervals, ``change`` in percent of the old one for latencies and
    rates, in points for accuracies; None where the old one is 0. ``change_ci95``: its 95 % interval where the two were measured
    on the same images, and are compared image by image; None where they were not."""

    name: str
    unit: str
    old: float
    new: float
    old_ci95: Interval | None
    new_ci95: Interval | None
    change: float | None
    verdict: Verdict
    change_ci95: Interval | None = None


@dataclass(frozen=True)
class Comparison:
    """``notes``: what else differs, and warnings of either measurement. ``regressed``: some figure that is judged is worse."""

    deltas: tuple[Delta, ...]
    notes: tuple[str, ...]
    regressed: bool


def percent(old: float, new: float) -> float | None:
    """The change in percent of ``old``; None where that is 0."""
    return 100 * (new - old) / old if old else None


def verdict(change: float | None, tolerance: float, *, apart: bool, higher_is_better: bool) -> Verdict:
    """``apart``: it is more than noise."""
    if change is None or abs(change) <= tolerance:
        return "same"
    if not apart:
        return "unclear"
    return "better" if (change > 0) == higher_is_better else "worse"


def overlap(one: Interval, other: Interval) -> bool:
    """Whether the two intervals have a point in common."""
    return one[0] <= other[1] and other[0] <= one[1]
