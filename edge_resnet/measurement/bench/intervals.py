"""How far a percentile or a rate could be off, from the run's own samples in their order. Knows no clock and no network.

Latencies that follow each other resemble each other: a burst of other work slows a hundred in a row. An interval that takes them
for independent is too narrow, so the spread is taken from consecutive blocks, short and long ones, wherever it is the larger one
(batch means: Law, *Simulation Modeling and Analysis*, chapter 9). What differs from one run to the next and not within one is
not in it: the longer a run, the less that is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, variance

from edge_resnet.core.statistics import percentile

__all__ = ["percentile_interval", "rate_interval"]

#: Consecutive blocks that a run is cut into → Student's t of a two-sided 95 % interval for one degree of freedom less.
#: Few long blocks see what changes slowly, many short ones tell the spread itself better.
_BLOCKS = {20: 2.093, 10: 2.262, 5: 2.776}
#: The same where there are fewer samples than blocks.
_FEW = {4: 3.182, 3: 4.303, 2: 12.706}
#: The normal quantile of that.
_Z95 = 1.96
#: Samples in a block at least, for the blocks of a percentile to say anything.
_MIN = 5


def percentile_interval(samples: Sequence[float], share: float) -> tuple[float, float, bool]:
    """95 % interval of ``percentile(…, share)`` over samples in the order in which they were measured: low, high, and whether
    there are enough of them, were they independent. Where there are not, its bounds are the samples' own.

    Both bounds are samples, and the percentile lies between them. Ranks as of a binomial, spread as the largest of the
    binomial's and those of the share of samples below the percentile over blocks.
    """
    count, probability = len(samples), share / 100
    ordered = sorted(samples)
    centre = percentile(ordered, share)
    independent = _Z95 * math.sqrt(count * probability * (1 - probability))
    below = [float(sample <= centre) for sample in samples]
    half = max([independent, *(count * spread for spread in _spreads(below, _MIN))])
    low, high = math.floor(count * probability - half), math.ceil(count * probability + half) + 1
    certain = count * probability >= independent + 1 and math.ceil(count * probability + independent) < count
    return ordered[max(1, low) - 1], ordered[min(count, high) - 1], certain


def rate_interval(samples: Sequence[float], units: int) -> tuple[float, float]:
    """95 % interval of ``units * len(samples) / sum(samples)``: units per second where samples are seconds of ``units`` each.

    The rate lies inside. From the means of consecutive blocks; from the samples themselves where there are few. One sample has
    no spread to go by: its interval is the rate alone.
    """
    mean = math.fsum(samples) / len(samples)
    half = max(_spreads(samples, 1), default=0.0)
    # A few samples that differ much allow no upper bound: then the best rate seen.
    fastest = mean - half if mean > half else min(samples)
    return units / (mean + half), units / fastest


def _spreads(samples: Sequence[float], least: int) -> list[float]:
    """Half of the 95 % interval of the samples' mean, by each number of blocks that leaves ``least`` samples in each."""
    fitting = {count: t for count, t in _BLOCKS.items() if len(samples) >= least * count}
    if not fitting and least == 1:
        fitting = {count: t for count, t in _FEW.items() if count == len(samples)}
    found = []
    for count, t in fitting.items():
        size = len(samples) // count
        # The rest is left out at the beginning: what comes first is the least settled.
        first = len(samples) - count * size
        means = [fmean(samples[start : start + size]) for start in range(first, len(samples), size)]
        found.append(t * math.sqrt(variance(means) / count))
    return found
