"""Pillow's antialiased resize of one axis as integer weights, for the GPU to sum.

Pillow sums 8-bit pixels in integers (its libImaging, Resample.c): a filter as wide as the scale, sampled in double precision,
normalised to a sum of 1, rounded to 22 fractional bits. The filter is a triangle, or
Keys' cubic (1981) with a = -0.5. Weights computed with the same operations in the same order give the same pixels.
Does not know about pixels or a GPU.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_resnet.core.records import Interpolation
from edge_resnet.images.preprocess import Axis

__all__ = ["FRACTION_BITS", "Weights", "resampling_weights"]

#: Fractional bits of a weight: with the 8 bits of a pixel, a sum leaves two bits of an int unused.
FRACTION_BITS = 22
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}

_Floats: TypeAlias = npt.NDArray[np.float64]


class Weights(NamedTuple):
    """Which source pixels of an axis make up each pixel of the crop.

    ``low``, ``high``: the range of source pixels that are used, counted on the whole axis. ``table`` (2 + taps, crop) int32: a
    column per pixel of the crop, with its first source pixel counted from ``low``, the number of source pixels, and the weight
    of each; weights beyond that number are zero. A cubic's are negative towards its ends.
    """

    low: int
    high: int
    table: npt.NDArray[np.int32]


def resampling_weights(axis: Axis, crop: int, interpolation: Interpolation = "bilinear") -> Weights:
    """The weights for the ``crop`` pixels after ``axis.trim`` of a planned axis.

    An axis that is not resized gets weights of 1, which change nothing. A sum of pixels with a cubic's weights may lie below 0 or
    above 255, and must be limited at both ends.
    """
    source = axis.last - axis.first
    # Pillow stores the box as 32-bit floats, and takes its width as their difference.
    begin, end = np.float32(axis.begin), np.float32(axis.end)
    scale = float(end - begin) / axis.pixels
    stretch = max(scale, 1.0)
    reach = _SUPPORT[interpolation] * stretch
    centre = float(begin) + (np.arange(axis.trim, axis.trim + crop) + 0.5) * scale
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + reach + 0.5).astype(np.int64), source) - first
    taps = np.arange(count.max())[:, None]
    distance = np.abs(((taps + first) - centre + 0.5) * (1.0 / stretch))
    shares = np.where(taps < count, _triangle(distance) if interpolation == "bilinear" else _cubic(distance), 0.0)
    # In order: np.sum adds in pairs, which rounds differently.
    total = np.add.accumulate(shares, axis=0)[-1]
    shares = np.divide(shares, total, out=shares, where=total != 0.0)
    fixed = (shares * (1 << FRACTION_BITS) + np.where(shares < 0, -0.5, 0.5)).astype(np.int32)
    low, high = int(first.min()), int((first + count).max())
    table = np.concatenate([(first - low)[None], count[None], fixed]).astype(np.int32)
    return Weights(axis.first + low, axis.first + high, table)


def _triangle(distance: _Floats) -> _Floats:
    return np.where(distance < 1.0, 1.0 - distance, 0.0)


def _cubic(distance: _Floats) -> _Floats:
    """The operations of Pillow's bicubic_filter, in their order."""
    a = -0.5
    inner = ((a + 2.0) * distance - (a + 3.0)) * distance * distance + 1
    outer = (((distance - 5) * distance + 8) * distance - 4) * a
    return np.where(distance < 1.0, inner, np.where(distance < 2.0, outer, 0.0))
