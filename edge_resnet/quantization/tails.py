"""Where a tensor's values lie: points, shares and energies read off a histogram. Knows nothing of graphs, recipes and ranges."""

from __future__ import annotations

import math

import numpy as np

from edge_resnet.quantization.histogram import BINS, AbsHistogram

__all__ = ["clipped_energy", "median_nonzero", "point", "share_above"]


def point(histogram: AbsHistogram, share: float) -> float:
    """The upper edge of the bin below which ``share`` (in [0, 1]) of the absolute values lie; 0 for a tensor of zeros."""
    inside = int(np.searchsorted(np.cumsum(histogram.counts), share * int(histogram.counts.sum())))
    return (min(inside, BINS - 1) + 1) * histogram.limit / BINS


def median_nonzero(histogram: AbsHistogram) -> float:
    """Half of the nonzero absolute values lie below: the upper edge of a bin.

    The first bin is not counted, for ReLU's zeros lie there. ``amax`` where every value lies in it.
    """
    inside = np.cumsum(histogram.counts[1:])
    if inside[-1] == 0:
        return histogram.amax
    return (int(np.searchsorted(inside, inside[-1] / 2)) + 2) * histogram.limit / BINS


def share_above(histogram: AbsHistogram, value: float) -> float:
    """Share of all values, in [0, 1], in bins that lie wholly above ``value``."""
    if histogram.limit == 0 or value >= histogram.limit:
        return 0.0
    first = math.ceil(value / histogram.limit * BINS)
    return float(histogram.counts[first:].sum()) / int(histogram.counts.sum())


def clipped_energy(histogram: AbsHistogram, amax: float) -> float:
    """What clipping at ``amax`` cuts off: sum(max(|x| - amax, 0)²) over sum(x²), in [0, 1], each bin's values at its centre."""
    if histogram.limit == 0:
        return 0.0
    centres = (np.arange(BINS) + 0.5) / BINS
    cut = np.maximum(centres - amax / histogram.limit, 0)
    return float(histogram.counts @ cut**2) / float(histogram.counts @ centres**2)
