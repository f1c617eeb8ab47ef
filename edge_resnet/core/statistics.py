"""Latency percentiles, and the uncertainty of one measured share or of two on the same images. Does not know about networks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = [
    "Difference",
    "LatencyStats",
    "difference",
    "mcnemar_exact",
    "measure",
    "paired_drop_interval",
    "percentile",
    "summarise",
    "wilson_interval",
]


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: the value at or below which ``share`` (0, 100] percent of ``ordered`` (ascending) lie.

    It is one of the values, as in the rules of MLPerf; nothing is interpolated. ``ordered`` must not be empty.
    """
    # Multiply first: 99.9 / 100 * 1000 is slightly above 999, which would make the rank one too high.
    return ordered[max(0, math.ceil(share * len(ordered) / 100) - 1)]


def summarise(samples_ms: Sequence[float]) -> LatencyStats:
    """Summarise latencies in milliseconds; all zero if there are none."""
    if not samples_ms:
        return LatencyStats(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    ordered = sorted(samples_ms)
    p50, p90, p99, p999 = (percentile(ordered, share) for share in (50, 90, 99, 99.9))
    return LatencyStats(len(ordered), math.fsum(ordered) / len(ordered), p50, p90, p99, p999, ordered[-1])


def measure(call: Callable[[], object], *, warmup: int, seconds: float) -> list[float]:
    """Time ``call`` repeatedly for ``seconds`` after ``warmup`` uncounted calls; returns milliseconds, at least one value."""
    for _ in range(warmup):
        call()
    samples: list[float] = []
    end = time.monotonic() + seconds
    while not samples or time.monotonic() < end:
        started = time.perf_counter_ns()
        call()
        samples.append((time.perf_counter_ns() - started) / 1e6)
    return samples


#: The normal quantile of a two-sided 95 % interval.
Z95 = 1.959963984540054
#: Halvings after which the ends of an interval of length 2 differ by less than the precision of a double.
_HALVINGS = 60


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of ``hits`` of ``count``, as shares in [0, 1].

    Wilson's score interval (1927): unlike the normal approximation it stays inside [0, 1] and holds for few images.
    """
    share = hits / count
    centre = share + Z95**2 / (2 * count)
    spread = Z95 * math.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2))
    scale = 1 + Z95**2 / count
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided p-value in (0, 1] of the hypothesis that two networks are wrong equally often.

    ``only_a``: images that only a gets right; ``only_b``: that only b gets right. The exact conditional form of McNemar's test
    (1947): twice the smaller tail of Binomial(only_a + only_b, 1/2), at most 1. The largest term is a ratio of whole numbers and
    the others are summed in units of it, so that nothing overflows or cancels; a p-value below the smallest float is returned as
    that float.
    """
    few, count = min(only_a, only_b), only_a + only_b
    tail = term = 1.0
    for hits in range(few, 0, -1):
        term *= hits / (count - hits + 1)
        tail += term
    largest = math.comb(count, few) / (1 << count)
    return min(1.0, max(math.ulp(0.0), 2 * largest * tail))


def paired_drop_interval(only_fp32: int, only_int8: int, count: int) -> tuple[float, float]:
    """95 % interval of FP32's accuracy minus INT8's on the same ``count`` images, as shares in [-1, 1].

    ``only_fp32``: images that only FP32 gets right; ``only_int8``: that only INT8 gets right. The point estimate
    (only_fp32 - only_int8) / count lies inside. Tango's score interval (*Statistics in Medicine* 17, 1998, pages 891-908): it
    holds for few images, and if the two never differ, where the normal approximation has no width, and it excludes zero exactly
    if McNemar's statistic exceeds the normal quantile.
    """
    return -_upper_bound(only_int8, only_fp32, count), _upper_bound(only_fp32, only_int8, count)


def _upper_bound(more: int, fewer: int, count: int) -> float:
    """Where the score of the difference (more - fewer) / count falls to the quantile, from the estimate upwards."""
    low, high = (more - fewer) / count, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        distance = more - fewer - count * middle
        if distance**2 < Z95**2 * _variance(middle, more, fewer, count):
            low = middle
        else:
            high = middle
    return high


def _variance(drop: float, more: int, fewer: int, count: int) -> float:
    """Variance of more - fewer if the true difference is ``drop``, with the other share at its likeliest (Tango's 2 and 8)."""
    square = 2 * count
    linear = -more - fewer + (2 * count - more + fewer) * drop
    constant = -fewer * drop * (1 - drop)
    root = math.sqrt(max(0.0, linear**2 - 4 * square * constant))
    # Of the two formulas for the larger root, the one without cancellation.
    share = (root - linear) / (2 * square) if linear <= 0 else -2 * constant / (root + linear)
    return count * (2 * share + drop * (1 - drop))


@dataclass(frozen=True)
class LatencyStats:
    """Latencies in milliseconds; percentiles by nearest rank, as in MLPerf."""

    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Difference:
    """The accuracy of one network minus another's on the same images.

    ``points``: difference of top-1; ``ci95``: its paired 95 % confidence interval; ``p``: exact p-value of McNemar's test;
    ``images``: number of images that both classified.
    """

    points: float
    ci95: tuple[float, float]
    p: float
    images: int

    @property
    def significant(self) -> bool:
        """Whether the p-value is below 0.05."""
        return self.p < _SIGNIFICANT


def difference(only_one: int, only_other: int, images: int) -> Difference:
    """The difference from the numbers of images that only one of two networks gets right, of ``images`` in all."""
    low, high = paired_drop_interval(only_one, only_other, images)
    points = 100 * (only_one - only_other) / images
    return Difference(points, (100 * low, 100 * high), mcnemar_exact(only_one, only_other), images)
