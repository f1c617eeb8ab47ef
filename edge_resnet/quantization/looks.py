"""What a set's pictures look like at a glance: repeated, flat, oddly normalised. Knows nothing of networks and of labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_resnet.core.errors import EdgeResnetError
from edge_resnet.core.records import Preprocess
from edge_resnet.imageset import ImageSet
from edge_resnet.preprocess import Picture, preprocess

__all__ = ["LOOKED_AT", "Look", "look", "looks", "normalised", "repeated"]

#: Pictures looked at, whatever the size of the set.
LOOKED_AT = 64
#: Mean difference of two thumbnails in grey levels. The nearest two of 64 pictures of CIFAR-10, ImageNet or the digits are at
#: least 9 apart; of a fixed camera's frames, one a second, 4 of 10 are within 3 of another.
_SAME, _THUMBNAIL = 3.0, 8
#: Deviation of a channel, in grey levels, below which there is nothing to see: real pictures have 20 and more.
_FLAT = 2.0

_Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Look:
    """One picture: ``thumbnail`` (8, 8) of grey levels, ``mean`` and ``square`` (3,) of the pixels in [0, 1], RGB, and whether
    the picture is ``flat``: nearly one colour."""

    thumbnail: _Floats
    mean: _Floats
    square: _Floats
    flat: bool


def looks(images: ImageSet, spec: Preprocess | None = None) -> Iterator[Look]:
    """Look at up to 64 pictures spread over the set, one in memory at a time; given ``spec``, as the network sees them.

    Pictures that cannot be read are passed over: the calibration pass counts and names them.
    """
    for index in range(0, len(images), max(1, -(-len(images) // LOOKED_AT))):
        seen = _attempt(images, index, spec)
        if seen is not None:
            yield seen


def look(picture: Picture) -> Look:
    """Look at one picture, (H, W, 3) uint8 RGB."""
    image = Image.fromarray(picture)
    thumbnail = np.asarray(image.convert("L").resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX), np.float64)
    shares = np.array(image.histogram()).reshape(3, 256) / (picture.size // 3)  # exact, and no copy of a large picture in floats
    levels = np.arange(256) / 255
    mean, square = shares @ levels, shares @ levels**2
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return Look(thumbnail, mean, square, bool(255 * deviation.max() < _FLAT))


def repeated(seen: Sequence[Look]) -> int:
    """How many of them look like an earlier one, to the pixel or nearly; flat ones do not count."""
    thumbnails = [one.thumbnail for one in seen if not one.flat]
    return sum(
        any(np.abs(thumbnail - earlier).mean() < _SAME for earlier in thumbnails[:place])
        for place, thumbnail in enumerate(thumbnails)
    )


def normalised(seen: Sequence[Look], spec: Preprocess) -> tuple[_Floats, _Floats]:
    """Mean and standard deviation per channel, (3,) each, of all their pixels after ``spec``'s normalisation."""
    mean = np.mean([one.mean for one in seen], axis=0)
    deviation = np.sqrt(np.maximum(np.mean([one.square for one in seen], axis=0) - mean**2, 0))
    return (mean - np.array(spec.mean)) / np.array(spec.std), deviation / np.array(spec.std)


def _attempt(images: ImageSet, index: int, spec: Preprocess | None) -> Look | None:
    try:
        picture = images.load(index)
        return look(picture if spec is None else preprocess(picture, spec))
    except EdgeResnetError:
        return None
