"""Confidence intervals of a percentile and of a rate, from the run's own samples in order. Does not measure.

Consecutive latencies are correlated: a burst of other work slows a hundred in a row. An interval that assumes independence is too
narrow, so the spread is also taken from consecutive blocks, short and long ones, and the largest counts (batch means: Law,
*Simulation Modeling and Analysis*, chapter 9). Differences between runs that do not show within one are not included; the longer
the run, the smaller they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, variance

from edge_resnet.core.statistics import Z95, percentile

__all__ = ["percentile_interval", "rate_interval"]

#: Number of consecutive blocks → Student's t of a two-sided 95 % interval with one degree of freedom less.
#: Few long blocks show slow changes; many short blocks estimate the spread better.
_BLOCKS = {20: 2.093, 10: 2.262, 5: 2.776}
#: The same for runs with fewer samples than blocks.
_FEW_SAMPLES = {4: 3.182, 3: 4.303, 2: 12.706}
#: Samples that each block of a percentile needs.
_MIN_BLOCK = 5


def percentile_interval(samples: Sequence[float], share: float) -> tuple[float, float, bool]:
    """95 % interval of ``percentile(…, share)`` over samples in the order of measurement: low, high, and whether it is certain.

    Both bounds are samples, and the percentile lies between them. Their ranks follow a binomial distribution; the spread is the
    largest of the binomial's and those of the share of samples below the percentile over blocks. It is certain where there would
    be enough samples if they were independent; otherwise the bounds are the smallest and largest sample.
    """
    count, probability = len(samples), share / 100
    ordered = sorted(samples)
    centre = percentile(ordered, share)
    independent = Z95 * math.sqrt(count * probability * (1 - probability))
    below = [float(sample <= centre) for sample in samples]
    half = max([independent, *(count * spread for spread in _spreads(below, _MIN_BLOCK))])
    low, high = math.floor(count * probability - half), math.ceil(count * probability + half) + 1
    certain = count * probability >= independent + 1 and math.ceil(count * probability + independent) < count
    return ordered[max(1, low) - 1], ordered[min(count, high) - 1], certain


def rate_interval(samples: Sequence[float], units: int) -> tuple[float, float]:
    """95 % interval of ``units * len(samples) / sum(samples)``: units per second, if each sample is the seconds of ``units``.

    The rate lies inside. It comes from the means of consecutive blocks, or from the samples themselves if they are few. The
    interval of a single sample is the rate alone.
    """
    mean = math.fsum(samples) / len(samples)
    half = max(_spreads(samples, 1), default=0.0)
    # A few samples that differ much give no upper bound; the best rate seen takes its place.
    fastest = mean - half if mean > half else min(samples)
    return units / (mean + half), units / fastest


def _spreads(samples: Sequence[float], min_block: int) -> list[float]:
    """Half of the 95 % interval of the samples' mean, for each number of blocks with at least ``min_block`` samples each."""
    fitting = {count: t for count, t in _BLOCKS.items() if len(samples) >= min_block * count}
    if not fitting and min_block == 1:
        fitting = {count: t for count, t in _FEW_SAMPLES.items() if count == len(samples)}
    found = []
    for count, t in fitting.items():
        size = len(samples) // count
        # Surplus samples are dropped from the start, which is the least settled part.
        first = len(samples) - count * size
        means = [fmean(samples[start : start + size]) for start in range(first, len(samples), size)]
        found.append(t * math.sqrt(variance(means) / count))
    return found
