"""Pillow's antialiased bilinear resize of one axis as integer weights, which a GPU can sum. Knows no pixels and no GPU.

Pillow sums 8-bit pixels in integers (its libImaging, Resample.c): a triangle as wide as the scale, sampled in double precision,
scaled to sum 1, rounded to 22 fractional bits. Weights made with the same operations in the same order give the same pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_resnet.images.preprocess import Axis

__all__ = ["FRACTION_BITS", "Weights", "resampling_weights"]

#: Fractional bits of a weight: an int holds them, the pixel's 8 and two to spare.
FRACTION_BITS = 22


class Weights(NamedTuple):
    """Which source pixels of an axis make up each pixel of the crop.

    ``low``, ``high``: the source pixels that are used at all, counted on the whole axis. ``table`` (2 + taps, crop) int32: a
    column per pixel of the crop, its first source pixel counted from ``low``, how many there are, and the weight of each;
    weights beyond that count are zero.
    """

    low: int
    high: int
    table: npt.NDArray[np.int32]


def resampling_weights(axis: Axis, crop: int) -> Weights:
    """The weights for the ``crop`` pixels after ``axis.trim`` of a planned axis.

    An axis that is kept as it is gets weights of one, which change nothing.
    """
    source = axis.last - axis.first
    # The box goes through 32-bit floats, and its width is their difference.
    begin, end = np.float32(axis.begin), np.float32(axis.end)
    scale = float(end - begin) / axis.pixels
    reach = max(scale, 1.0)
    centre = float(begin) + (np.arange(axis.trim, axis.trim + crop) + 0.5) * scale
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + reach + 0.5).astype(np.int64), source) - first
    taps = np.arange(count.max())[:, None]
    distance = np.abs(((taps + first) - centre + 0.5) * (1.0 / reach))
    shares = np.where((taps < count) & (distance < 1.0), 1.0 - distance, 0.0)
    # One after the other: np.sum adds in pairs, which rounds otherwise.
    total = np.add.accumulate(shares, axis=0)[-1]
    shares = np.divide(shares, total, out=shares, where=total != 0.0)
    fixed = (shares * (1 << FRACTION_BITS) + 0.5).astype(np.int32)
    low, high = int(first.min()), int((first + count).max())
    table = np.concatenate([(first - low)[None], count[None], fixed]).astype(np.int32)
    return Weights(axis.first + low, axis.first + high, table)
