"""The range of a tensor, read off the histogram of its absolute values. Does not know about graphs or images.

A method is one pure function histogram, recipe → amax and one line in ``METHODS``. Widths are in bins until the last line of
each function, so that values scaled by a power of two have their range scaled by the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_resnet.core.errors import CalibrationError
from edge_resnet.core.records import QuantRecipe
from edge_resnet.quantization.histogram import BINS, AbsHistogram

__all__ = ["METHODS", "MIN_BINS", "Method", "read_amax"]

#: The smallest clip that is tried. Below it a step of int8 would be finer than a bin, and the counts cannot show its effect.
#: NVIDIA's entropy calibration starts there too.
MIN_BINS = 128
#: Positive steps of symmetric int8.
_STEPS = 127
#: Levels of |x| in int8, zero among them.
_LEVELS = 128
#: Divergences closer than this count as equal: they are sums of logarithms near 20.
_ROUNDING = 1e-12

_Floats: TypeAlias = npt.NDArray[np.float64]


def read_amax(histogram: AbsHistogram, recipe: QuantRecipe) -> float:
    """The range of one tensor by the recipe's method, > 0; 1.0 for a tensor that is zero everywhere.

    Raises CalibrationError for ``auto``, which is a choice among the methods and reads no range itself.
    """
    if recipe.method not in METHODS:
        raise CalibrationError(f"the method {recipe.method} reads no range", hint=f"choose one of {', '.join(METHODS)}")
    return METHODS[recipe.method](histogram, recipe) or 1.0


def _max(histogram: AbsHistogram, recipe: QuantRecipe) -> float:  # noqa: ARG001 - every method has one signature
    """The largest absolute value: nothing is clipped."""
    return histogram.amax


def _percentile(histogram: AbsHistogram, recipe: QuantRecipe) -> float:
    """The upper edge of the bin up to which ``recipe.percentile`` % of all absolute values lie; never above the largest."""
    total = int(histogram.counts.sum())
    inside = np.searchsorted(np.cumsum(histogram.counts), total * recipe.percentile / 100)
    edge = (min(int(inside), BINS - 1) + 1) * histogram.limit / BINS
    return min(edge, histogram.amax)


def _mse(histogram: AbsHistogram, recipe: QuantRecipe) -> float:  # noqa: ARG001 - every method has one signature
    """The clip with the smallest expected squared error of symmetric int8, for values spread evenly within their bin.

    From zero up, each threshold b = (k - 1/2) step that a value x passes moves it to the next integer and takes
    (x - (k-1) step)² - (x - k step)² = 2 step (x - b) off its squared error. So the best clip has the largest
    step * sum over b of the excess E[max(x - b, 0)]: 127 positions per clip instead of all bins, and no difference of large sums.
    """
    counts = _without_zeros(histogram)
    largest = histogram.amax * BINS / histogram.limit if histogram.limit else 0.0
    clips = np.append(np.arange(MIN_BINS, np.ceil(largest)), largest)
    above = np.append(np.cumsum(counts[::-1])[::-1], 0)
    excess = np.append(np.cumsum((above[1:] + counts / 2)[::-1])[::-1], 0)
    steps = clips / _STEPS
    thresholds = steps[:, np.newaxis] * (np.arange(_STEPS) + 0.5)
    bins = thresholds.astype(np.intp)
    inside = thresholds - bins
    gain = steps * (excess[bins] + inside * (inside * counts[bins] / 2 - above[bins])).sum(axis=1)
    best = gain.size - 1 - int(np.argmax(gain[::-1]))
    return min(float(clips[best]) * histogram.limit / BINS, histogram.amax)


def _entropy(histogram: AbsHistogram, recipe: QuantRecipe) -> float:  # noqa: ARG001 - every method has one signature
    """The clip whose 128 levels have the smallest Kullback-Leibler divergence from the values; the largest of equal ones.

    After Migacz, 8-bit Inference with TensorRT (GTC 2017). P: the first i bins, with everything beyond them added to the last.
    Q: the same bins without what lies beyond, summed into 128 levels, each level's sum spread evenly over its nonempty bins. An
    empty bin stays empty in both, so nothing is smoothed. Only a clip right behind an empty bin would have mass in P where Q has
    none; it is skipped, because the bin before it clips the same values with a finer step.
    """
    counts = _without_zeros(histogram)
    clips = np.flatnonzero(counts) + 1
    clips = clips[clips >= MIN_BINS]
    if clips.size == 0:
        return histogram.amax
    # Q is constant on the occupied bins of a level, so the sums over bins become sums over 128 levels of each clip.
    edges = -(-clips[:, np.newaxis] * np.arange(_LEVELS + 1) // _LEVELS)
    mass = np.diff(_before(counts)[edges])
    occupied = np.diff(_before(counts > 0)[edges])
    per_bin = mass / np.maximum(occupied, 1)
    kept, total = mass.sum(axis=1), counts.sum()
    beyond = total - kept
    own = _before(_times_log(counts))[clips - 1] + _times_log(counts[clips - 1] + beyond)
    cross = (occupied * _times_log(per_bin)).sum(axis=1) + beyond * np.log(per_bin[:, -1])
    divergence = (own - cross) / total - np.log(total / kept)
    best = np.flatnonzero(divergence <= divergence.min() + _ROUNDING)[-1]
    return min(float(clips[best]) * histogram.limit / BINS, histogram.amax)


def _without_zeros(histogram: AbsHistogram) -> _Floats:
    """The counts, with the first no larger than the second.

    The first bin holds the exact zeros of a ReLU, often most of a tensor. Every clip represents zero exactly, so counting them
    would only distort the first level. How many small values share the bin is unknown; the count of the next bin is the guess
    (NVIDIA's pytorch-quantization replaces the count in the same way).
    """
    counts = histogram.counts.astype(np.float64)
    counts[0] = min(counts[0], counts[1])
    return counts


def _before(values: npt.NDArray[np.generic]) -> _Floats:
    """Sums of the first 0, 1, 2 … values."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _times_log(values: _Floats) -> _Floats:
    """x log x, 0 at 0."""
    return values * np.log(np.where(values > 0, values, 1.0))


Method: TypeAlias = Callable[[AbsHistogram, QuantRecipe], float]
METHODS: Mapping[str, Method] = MappingProxyType({"max": _max, "percentile": _percentile, "mse": _mse, "entropy": _entropy})
