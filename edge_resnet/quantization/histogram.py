"""Streaming histogram of a tensor's absolute values, and figures read off it. Does not know about graphs, images or ranges."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from edge_resnet.core.errors import CalibrationError

__all__ = ["BINS", "CHUNK", "MIN_LIMIT", "AbsHistogram", "clipped_energy", "median_nonzero", "point", "share_above"]

#: The number that NVIDIA's entropy calibration starts from.
BINS = 2048
#: Values counted at a time: few enough for a core's second-level cache, enough that counting threads rarely wait for Python.
CHUNK = 1 << 18
#: The smallest limit: below it, bins per unit exceed float32 (the values of a dead channel are denormal).
MIN_LIMIT = 2.0**-100
#: Neighbouring values are counted in separate tables: equal ones, like a ReLU's zeros, would wait for each other's increment.
_LANES = 4
_LANE = (np.arange(CHUNK) % _LANES * BINS).astype(np.int16)


class AbsHistogram:
    """Counts of |x| in 2048 equal bins over [0, limit); ``limit`` is a power of two that doubles when a value exceeds it.

    Doubling merges neighbouring bins, so that the same values give the same counts in any order and in batches of any size, in
    constant memory. ``amax`` and ``signed`` are exact.
    """

    def __init__(self) -> None:
        self.counts: npt.NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.limit = 0.0
        self.amax = 0.0
        self.signed = False

    def add(self, values: npt.NDArray[np.float32], largest: npt.NDArray[np.float32] | None = None) -> None:
        """Count an array of any shape. Raises CalibrationError if a value is not finite.

        ``largest``: the largest values of the whole tensor, if ``values`` are a sample; they enter ``amax``, not the counts.
        """
        if values.size == 0:
            return
        flat = np.ascontiguousarray(values).reshape(-1)
        low, high = float(flat.min()), float((flat if largest is None else largest).max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise CalibrationError("an activation is not finite", hint="the weights are broken, or the input is not an image")
        top = max(high, -low)
        self.signed |= low < 0
        self.amax = max(self.amax, top)
        self._grow(top)
        if self.limit == 0:
            self.counts[0] += flat.size
            return
        self._count(flat, absolute=low < 0)

    def _grow(self, largest: float) -> None:
        """Double the limit until it exceeds ``largest``."""
        if largest == 0 or largest < self.limit:
            return
        limit = max(MIN_LIMIT, 2.0 ** (math.floor(math.log2(largest)) + 1))
        while self.limit and self.limit < limit:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(axis=1), np.zeros(BINS // 2, np.int64)])
            self.limit *= 2
        self.limit = limit

    def _count(self, flat: npt.NDArray[np.float32], *, absolute: bool) -> None:
        per_value = np.float32(BINS / self.limit)  # exact: both are powers of two
        scaled = np.empty(min(CHUNK, flat.size), np.float32)
        index = np.empty(scaled.size, np.int16)
        # torch counts 16-bit integers in half the time that NumPy takes for 64-bit ones, and releases the interpreter lock.
        bins = torch.from_numpy(index)
        for start in range(0, flat.size, CHUNK):
            part = flat[start : start + CHUNK]
            n = part.size
            np.multiply(part, per_value, out=scaled[:n])
            if absolute:
                np.abs(scaled[:n], out=scaled[:n])
            np.copyto(index[:n], scaled[:n], casting="unsafe")
            np.add(index[:n], _LANE[:n], out=index[:n])
            counts = torch.bincount(bins[:n], minlength=_LANES * BINS).numpy()
            self.counts += counts.reshape(_LANES, BINS).sum(axis=0)


def point(histogram: AbsHistogram, share: float) -> float:
    """The upper edge of the bin up to which ``share`` (in [0, 1]) of the absolute values lie; 0 for a tensor of zeros."""
    inside = int(np.searchsorted(np.cumsum(histogram.counts), share * int(histogram.counts.sum())))
    return (min(inside, BINS - 1) + 1) * histogram.limit / BINS


def median_nonzero(histogram: AbsHistogram) -> float:
    """The median of the nonzero absolute values, as the upper edge of a bin.

    The first bin is not counted because it holds ReLU's zeros; if every value lies in it, the result is ``amax``.
    """
    inside = np.cumsum(histogram.counts[1:])
    if inside[-1] == 0:
        return histogram.amax
    return (int(np.searchsorted(inside, inside[-1] / 2)) + 2) * histogram.limit / BINS


def share_above(histogram: AbsHistogram, value: float) -> float:
    """Share of all values, in [0, 1], in bins that lie entirely above ``value``."""
    if histogram.limit == 0 or value >= histogram.limit:
        return 0.0
    first = math.ceil(value / histogram.limit * BINS)
    return float(histogram.counts[first:].sum()) / int(histogram.counts.sum())


def clipped_energy(histogram: AbsHistogram, amax: float) -> float:
    """Energy lost by clipping at ``amax``: sum(max(|x| - amax, 0)²) over sum(x²), in [0, 1], each bin's values at its centre."""
    if histogram.limit == 0:
        return 0.0
    centres = (np.arange(BINS) + 0.5) / BINS
    cut = np.maximum(centres - amax / histogram.limit, 0)
    return float(histogram.counts @ cut**2) / float(histogram.counts @ centres**2)
