"""Absolute values of a tensor, counted as they stream by, and the ranges read off the counts. Knows nothing of graphs or images.

A method is one pure function histogram → amax and one line in ``METHODS``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_resnet.errors import CalibrationError
from edge_resnet.spec import QuantRecipe

__all__ = ["BINS", "METHODS", "AbsHistogram", "Method", "read_amax"]

#: As many as NVIDIA's entropy calibration starts from.
BINS = 2048
#: Values handled at a time: small enough that the three temporary arrays stay in a core's cache.
CHUNK = 1 << 15
#: Where the limit starts: further down, bins per unit leave float32 (a dead channel's values are denormal).
LEAST_LIMIT = 2.0**-100


class AbsHistogram:
    """Counts of |x| in 2048 equal bins over [0, limit); ``limit`` is a power of two that doubles when a value exceeds it.

    Doubling merges neighbouring bins, so that any order and any batching of the same values gives the same counts, and the
    memory is that of 2048 counts however many values were seen. ``amax`` and ``signed`` are exact.
    """

    def __init__(self) -> None:
        self.counts: npt.NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.limit = 0.0
        self.amax = 0.0
        self.signed = False

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Count an array of any shape. Raises CalibrationError where a value is not finite."""
        if values.size == 0:
            return
        flat = np.ascontiguousarray(values).reshape(-1)
        low, high = float(flat.min()), float(flat.max())
        largest = max(high, -low)
        if not math.isfinite(largest):
            raise CalibrationError("an activation is not finite", hint="the weights are broken, or the input is not a picture")
        self.signed |= low < 0
        self.amax = max(self.amax, largest)
        self._grow(largest)
        if self.limit == 0:
            self.counts[0] += flat.size
            return
        self._count(flat, absolute=low < 0)

    def _grow(self, largest: float) -> None:
        """Double the limit until ``largest`` lies below it."""
        if largest == 0 or largest < self.limit:
            return
        limit = max(LEAST_LIMIT, 2.0 ** (math.floor(math.log2(largest)) + 1))
        while self.limit and self.limit < limit:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(axis=1), np.zeros(BINS // 2, np.int64)])
            self.limit *= 2
        self.limit = limit

    def _count(self, flat: npt.NDArray[np.float32], *, absolute: bool) -> None:
        per_value = np.float32(BINS / self.limit)  # exact: both are powers of two
        scaled = np.empty(min(CHUNK, flat.size), np.float32)
        index = np.empty(scaled.size, np.intp)
        for start in range(0, flat.size, CHUNK):
            part = flat[start : start + CHUNK]
            n = part.size
            np.multiply(part, per_value, out=scaled[:n])
            if absolute:
                np.abs(scaled[:n], out=scaled[:n])
            np.copyto(index[:n], scaled[:n], casting="unsafe")
            self.counts += np.bincount(index[:n], minlength=BINS)


def _max(histogram: AbsHistogram, recipe: QuantRecipe) -> float:  # noqa: ARG001 - every method has one signature
    """The largest absolute value seen: nothing is clipped."""
    return histogram.amax


def _percentile(histogram: AbsHistogram, recipe: QuantRecipe) -> float:
    """The upper edge of the bin in which ``recipe.percentile`` % of all absolute values lie; never above the largest."""
    total = int(histogram.counts.sum())
    inside = np.searchsorted(np.cumsum(histogram.counts), total * recipe.percentile / 100)
    edge = (min(int(inside), BINS - 1) + 1) * histogram.limit / BINS
    return min(edge, histogram.amax)


Method: TypeAlias = Callable[[AbsHistogram, QuantRecipe], float]
METHODS: Mapping[str, Method] = MappingProxyType({"max": _max, "percentile": _percentile})


def read_amax(histogram: AbsHistogram, recipe: QuantRecipe) -> float:
    """The range bound of one tensor by the recipe's method, > 0; 1.0 for a tensor that is zero everywhere."""
    return METHODS[recipe.method](histogram, recipe) or 1.0
