"""Latency percentiles, confidence intervals of accuracies, and whether two accuracies differ significantly.

Does not know what was measured: it takes counts and milliseconds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = [
    "SIGNIFICANCE_LEVEL",
    "Z95",
    "LatencyStats",
    "PairedDifference",
    "binomial_tail",
    "binomial_upper_bound",
    "is_significant",
    "mcnemar_exact",
    "measure",
    "paired_difference",
    "paired_drop_interval",
    "percentile",
    "summarise",
    "wilson_interval",
]

#: The normal quantile of a two-sided 95 % interval.
Z95 = 1.959963984540054
#: A difference whose p-value is below this is called significant.
SIGNIFICANCE_LEVEL = 0.05
#: Bisections of an interval of length 2 or less after which its ends are the same double.
_BISECTIONS = 60
#: From this many images on, Stirling's series is exact to double precision; below, binomial coefficients are cheap.
_STIRLING_FROM = 64
#: Terms of a tail below this share of its sum cannot change it, however many follow.
_NEGLIGIBLE = 2.0**-80


@dataclass(frozen=True)
class LatencyStats:
    """Latencies in milliseconds. Percentiles are nearest-rank, as in MLPerf."""

    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


@dataclass(frozen=True)
class PairedDifference:
    """Top-1 of one network minus that of another on the same ``images``, in percentage points.

    ``ci95`` is the paired 95 % interval (Tango's), ``p`` the p-value of McNemar's exact test.
    """

    points: float
    ci95: tuple[float, float]
    p: float
    images: int

    @property
    def significant(self) -> bool:
        """Whether the two networks differ significantly."""
        return is_significant(self.p)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: the smallest value that ``share`` percent, in (0, 100], of ``ordered`` do not exceed.

    ``ordered`` is ascending and not empty. The result is always one of the values, as in MLPerf's rules: nothing is interpolated.
    """
    # Multiply before dividing: 99.9 / 100 * 1000 is slightly above 999, and its rank would be one too high.
    return ordered[max(0, math.ceil(share * len(ordered) / 100) - 1)]


def summarise(samples_ms: Sequence[float]) -> LatencyStats:
    """Summarise latencies in milliseconds; all fields are zero for an empty sequence."""
    if not samples_ms:
        return LatencyStats(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    ordered = sorted(samples_ms)
    p50, p90, p99, p999 = (percentile(ordered, share) for share in (50, 90, 99, 99.9))
    return LatencyStats(len(ordered), math.fsum(ordered) / len(ordered), p50, p90, p99, p999, ordered[-1])


def measure(call: Callable[[], object], *, warmup: int, seconds: float) -> list[float]:
    """Time calls of ``call`` for ``seconds``, after ``warmup`` calls that do not count. Returns milliseconds, at least one."""
    for _ in range(warmup):
        call()
    samples: list[float] = []
    end = time.monotonic() + seconds
    while not samples or time.monotonic() < end:
        started = time.perf_counter_ns()
        call()
        samples.append((time.perf_counter_ns() - started) / 1e6)
    return samples


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of ``hits`` of ``count``, as shares in [0, 1].

    Wilson's score interval (1927): unlike the normal approximation it stays inside [0, 1] and is valid for few images.
    """
    share = hits / count
    centre = share + Z95**2 / (2 * count)
    spread = Z95 * math.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2))
    scale = 1 + Z95**2 / count
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def binomial_upper_bound(hits: int, count: int, alpha: float) -> float:
    """The largest share in [0, 1] that ``hits`` or fewer of ``count`` do not reject at the level ``alpha``.

    The exact one-sided bound of Clopper and Pearson (*Biometrika* 26, 1934): the true share is above it with a probability of at
    most ``alpha``. Raises nothing: with ``hits`` equal to ``count`` it is 1.
    """
    if hits >= count:
        return 1.0
    low, high = hits / count, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        # At most ``hits`` fail exactly where at least the others succeed.
        if binomial_tail(count - hits, count, 1 - middle) > alpha:
            low = middle
        else:
            high = middle
    return high


def binomial_tail(hits: int, count: int, share: float) -> float:
    """The probability of at least ``hits`` of ``count`` where each succeeds with the probability ``share``, in (0, 1)."""
    if hits <= count * share:  # the complement, whose terms fall from its upper end
        return 1 - _falling_tail(count - hits + 1, count, 1 - share) if hits > 0 else 1.0
    return _falling_tail(hits, count, share)


def _falling_tail(hits: int, count: int, share: float) -> float:
    """As ``binomial_tail``, for ``hits`` above the expectation: the terms fall from the first one on."""
    ways = math.lgamma(count + 1) - math.lgamma(hits + 1) - math.lgamma(count - hits + 1)
    tail = term = math.exp(ways + hits * math.log(share) + (count - hits) * math.log1p(-share))
    for more in range(hits, count):
        term *= (count - more) / (more + 1) * share / (1 - share)
        tail += term
        if term < _NEGLIGIBLE * tail:
            break
    return min(1.0, tail)


def is_significant(p: float) -> bool:
    """Whether a p-value is below ``SIGNIFICANCE_LEVEL``: the one place that decides it."""
    return p < SIGNIFICANCE_LEVEL


def paired_difference(only_one: int, only_other: int, images: int) -> PairedDifference:
    """The difference of two networks on ``images`` images, of which each alone classifies so many correctly."""
    low, high = paired_drop_interval(only_one, only_other, images)
    points = 100 * (only_one - only_other) / images
    return PairedDifference(points, (100 * low, 100 * high), mcnemar_exact(only_one, only_other), images)


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided p-value in (0, 1] of the hypothesis that two networks have the same error rate.

    ``only_a`` and ``only_b`` count the images that one network alone classifies correctly; the others carry no information.
    The exact conditional form of McNemar's test (1947): twice the smaller tail of Binomial(only_a + only_b, 1/2), at most 1.
    The relative error is below 1e-12; a p-value below the smallest float is returned as that float.
    """
    few, count = min(only_a, only_b), only_a + only_b
    # The tail in units of its largest term, so that nothing overflows or cancels.
    tail = term = 1.0
    for hits in range(few, 0, -1):
        term *= hits / (count - hits + 1)
        tail += term
        if term < _NEGLIGIBLE * tail:
            break
    return min(1.0, max(math.ulp(0.0), 2 * _binomial_half(few, count) * tail))


def _binomial_half(hits: int, count: int) -> float:
    """The probability of ``hits`` (at most half of ``count``) under Binomial(count, 1/2).

    Loader's saddle-point form ("Fast and Accurate Computation of Binomial Probabilities", 2000): large factors never meet, and
    the time does not grow with ``count``, where an exact binomial coefficient of 34,000 takes a third of a second.
    """
    if hits < _STIRLING_FROM:
        return math.comb(count, hits) / (1 << count)
    misses = count - hits
    skew = (misses - hits) / count
    if skew < 0.5:
        # The sum below as a series of positive terms: for a small skew its two parts would cancel.
        deviance = math.fsum(skew ** (2 * k) / (k * (2 * k - 1)) for k in range(1, 32))
    else:
        deviance = (1 + skew) * math.log1p(skew) + (1 - skew) * math.log1p(-skew)
    exponent = _stirling_error(count) - _stirling_error(hits) - _stirling_error(misses) - count / 2 * deviance
    return math.exp(exponent) * math.sqrt(count / (2 * math.pi * hits * misses))


def _stirling_error(n: int) -> float:
    """log(n!) minus Stirling's approximation of it, for ``n`` from ``_STIRLING_FROM``."""
    square = n * n
    return (1 / 12 - (1 / 360 - (1 / 1260 - 1 / 1680 / square) / square) / square) / n


def paired_drop_interval(only_fp32: int, only_int8: int, count: int) -> tuple[float, float]:
    """95 % interval of FP32's accuracy minus INT8's on the same ``count`` images, as shares in [-1, 1].

    ``only_fp32`` images are classified correctly by FP32 alone, ``only_int8`` by INT8 alone. The point estimate
    (only_fp32 - only_int8) / count lies inside. Tango's score interval (*Statistics in Medicine* 17, 1998, pages 891-908): unlike
    the normal approximation it holds for few images, and has a width even where the two never differ. It excludes zero exactly
    where McNemar's statistic exceeds the normal quantile.
    """
    return -_upper_bound(only_int8, only_fp32, count), _upper_bound(only_fp32, only_int8, count)


def _upper_bound(more: int, fewer: int, count: int) -> float:
    """The largest true difference that the observed one, (more - fewer) / count, does not reject; found by bisection."""
    low, high = (more - fewer) / count, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        distance = more - fewer - count * middle
        if distance**2 < Z95**2 * _variance(middle, more, fewer, count):
            low = middle
        else:
            high = middle
    return high


def _variance(drop: float, more: int, fewer: int, count: int) -> float:
    """Variance of more - fewer if the true difference is ``drop``, by maximum likelihood (Tango's equations 2 and 8)."""
    square = 2 * count
    linear = -more - fewer + (2 * count - more + fewer) * drop
    constant = -fewer * drop * (1 - drop)
    root = math.sqrt(max(0.0, linear**2 - 4 * square * constant))
    # Of the two formulas for the larger root, the one without cancellation.
    share = (root - linear) / (2 * square) if linear <= 0 else -2 * constant / (root + linear)
    return count * (2 * share + drop * (1 - drop))
