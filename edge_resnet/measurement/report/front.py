"""The two answers that people come for: the most accurate under so many milliseconds, the fastest within so many points.

Knows no page. A choice says what it rests on: which others are level with it as far as the images can tell, and whether the
limit holds for the whole interval or for the measured value alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edge_resnet.core.statistics import Difference
from edge_resnet.measurement.accuracy import paired
from edge_resnet.measurement.report.record import Row

__all__ = [
    "Fastest",
    "MostAccurate",
    "dominated",
    "drop",
    "fastest_within",
    "front",
    "front_rows",
    "limits_ms",
    "most_accurate_under",
    "speedup",
]

#: Points of top-1 that the table of ``fastest_within`` asks about.
POINTS = (0.5, 1.0, 2.0, 5.0)
_STEPS = (1.0, 2.0, 5.0)
_MAX_LIMITS = 6


@dataclass(frozen=True)
class MostAccurate:
    """Under ``limit_ms``. ``row``: None where nothing is that fast. ``holds``: the upper bound of its p90 is under the limit too.
    ``level``: others under the limit that the images cannot tell apart from it, the fastest first, each with its difference, None
    where they cannot be compared."""

    limit_ms: float
    row: Row | None
    holds: bool
    level: tuple[tuple[Row, Difference | None], ...]


@dataclass(frozen=True)
class Fastest:
    """Within ``points`` of ``best``, the most accurate row. ``row``: by the measured values; ``drop``: by how much it is below.
    ``sure``: the fastest whose whole interval lies within, ``sure_drop`` its drop; ``best`` itself always does."""

    points: float
    best: Row
    row: Row
    drop: Difference | None
    sure: Row
    sure_drop: Difference | None


def most_accurate_under(limit_ms: float, rows: Sequence[Row]) -> MostAccurate:
    """The row with the highest top-1 among those whose p90 is at most ``limit_ms``; of two alike the faster one."""
    fitting = [row for row in front_rows(rows) if _p90(row) <= limit_ms]
    if not fitting:
        return MostAccurate(limit_ms, None, False, ())
    best = max(fitting, key=lambda row: (_top1(row), -_p90(row)))
    assert best.latency is not None
    level = [(row, found) for row in fitting if row is not best and not _told_apart(found := drop(best, row))]
    level.sort(key=lambda pair: _p90(pair[0]))
    return MostAccurate(limit_ms, best, best.latency.metric.ci95[1] <= limit_ms, tuple(level))


def fastest_within(points: float, rows: Sequence[Row]) -> Fastest | None:
    """The row with the lowest p90 that loses at most ``points`` of top-1 to the most accurate; None where none has both."""
    known = front_rows(rows)
    if not known:
        return None
    best = max(known, key=lambda row: (_top1(row), -_p90(row)))
    ordered = sorted(known, key=_p90)
    row = next(row for row in ordered if row is best or _top1(best) - _top1(row) <= points + 1e-9)
    sure = next(row for row in ordered if row is best or _surely(drop(best, row), points))
    return Fastest(points, best, row, _own(best, row), sure, _own(best, sure))


def limits_ms(rows: Sequence[Row]) -> tuple[float, ...]:
    """Round limits worth asking about: 1, 2, 5, 10 … from the one below the fastest row up to the first above the slowest."""
    latencies = [_p90(row) for row in front_rows(rows)]
    if not latencies:
        return ()
    exponents = range(math.floor(math.log10(min(latencies))) - 1, math.ceil(math.log10(max(latencies))) + 1)
    rounds = [round(step * 10.0**exponent, 9) for exponent in exponents for step in _STEPS]
    first = max(value for value in rounds if value < min(latencies))
    last = min(value for value in rounds if value >= max(latencies))
    return tuple(value for value in rounds if first <= value <= last)[-_MAX_LIMITS:]


def _own(best: Row, row: Row) -> Difference | None:
    return None if row is best else drop(best, row)


def _surely(found: Difference | None, points: float) -> bool:
    return found is not None and found.ci95[1] <= points


def _told_apart(found: Difference | None) -> bool:
    return found is not None and found.significant


def _p90(row: Row) -> float:
    assert row.latency is not None
    return row.latency.p90_ms


def _top1(row: Row) -> float:
    assert row.accuracy is not None
    return row.accuracy.top1


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
