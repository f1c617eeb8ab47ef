"""Absolute values of a tensor, counted as they stream by. Knows nothing of graphs, images or ranges."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from edge_resnet.core.errors import CalibrationError

__all__ = ["BINS", "CHUNK", "MIN_LIMIT", "AbsHistogram", "clipped_energy", "median_nonzero", "point", "share_above"]

#: As many as NVIDIA's entropy calibration starts from.
BINS = 2048
#: Values handled at a time: few enough for a core's second-level cache, so many that counting threads seldom wait for Python.
CHUNK = 1 << 18
#: Where the limit starts: further down, bins per unit leave float32 (a dead channel's values are denormal).
MIN_LIMIT = 2.0**-100
#: Neighbouring values are counted in tables of their own: equal ones, as a ReLU's zeros, else wait for each other's count.
_LANES = 4
_LANE = (np.arange(CHUNK) % _LANES * BINS).astype(np.int16)


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

    def add(self, values: npt.NDArray[np.float32], largest: npt.NDArray[np.float32] | None = None) -> None:
        """Count an array of any shape. Raises CalibrationError where a value is not finite.

        ``largest``: where ``values`` are a sample, the largest values of the whole; they enter ``amax``, not the counts.
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
        """Double the limit until ``largest`` lies below it."""
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
        # torch counts 16-bit integers in half of NumPy's time for its 64-bit ones, and lets other threads go on meanwhile.
        places = torch.from_numpy(index)
        for start in range(0, flat.size, CHUNK):
            part = flat[start : start + CHUNK]
            n = part.size
            np.multiply(part, per_value, out=scaled[:n])
            if absolute:
                np.abs(scaled[:n], out=scaled[:n])
            np.copyto(index[:n], scaled[:n], casting="unsafe")
            np.add(index[:n], _LANE[:n], out=index[:n])
            counts = torch.bincount(places[:n], minlength=_LANES * BINS).numpy()
            self.counts += counts.reshape(_LANES, BINS).sum(axis=0)


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
