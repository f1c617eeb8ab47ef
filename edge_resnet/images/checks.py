"""What a set's images look like at a glance: repeated, flat, oddly normalised. Knows nothing of networks and of labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_resnet.core.errors import CalibrationError, DataError, EdgeResnetError
from edge_resnet.core.records import Preprocess
from edge_resnet.images.imageset import ImageSet
from edge_resnet.images.preprocess import ImageArray, preprocess

__all__ = [
    "MAX_SAMPLED",
    "FrozenFrameDetector",
    "ImageStats",
    "normalised",
    "refuse_noise",
    "repeated",
    "sampled_stats",
    "stats_of",
]


#: Pixels looked at along the longer side: a change in the image shows in them, and the look takes microseconds.
_ACROSS = 32


#: Grey levels, 0 to 255: what less than a hundredth of a black image reaches. A covered lens has noise.
_BLACK = 20


class FrozenFrameDetector:
    """Judges frames one after another; a camera with a sensor never gives the same bytes for long."""

    def __init__(self, *, frozen_s: float, black_s: float) -> None:
        self._frozen_ns, self._black_ns = frozen_s * 1e9, black_s * 1e9
        self._last = b""
        self._same_since = self._black_since = 0
        self._is_black = False
        self.frozen = False
        self.black = False

    def see(self, image: npt.NDArray[np.uint8], at_ns: int) -> None:
        """Take the next frame (H, W, 3), captured at ``at_ns``; afterwards ``frozen`` and ``black`` hold."""
        step = max(1, max(image.shape[:2]) // _ACROSS)
        sample = image[step // 2 :: step, step // 2 :: step]
        content = sample.tobytes()
        if content != self._last:
            self._last, self._same_since = content, at_ns
        is_black = int(np.count_nonzero(sample >= _BLACK)) * 100 < sample.size
        if is_black and not self._is_black:
            self._black_since = at_ns
        self._is_black = is_black
        self.frozen = at_ns - self._same_since >= self._frozen_ns
        self.black = is_black and at_ns - self._black_since >= self._black_ns


#: Images looked at, whatever the size of the set.
MAX_SAMPLED = 64
#: Mean difference of two thumbnails in grey levels. The nearest two of 64 images of CIFAR-10, ImageNet or the digits are at
#: least 9 apart; of a fixed camera's frames, one a second, 4 of 10 are within 3 of another.
_SAME, _THUMBNAIL = 3.0, 8
#: Deviation of a channel, in grey levels, below which there is nothing to see: real images have 20 and more.
_FLAT = 2.0

_Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ImageStats:
    """One image: ``thumbnail`` (8, 8) of grey levels, ``mean`` and ``square`` (3,) of the pixels in [0, 1], RGB, and whether
    the image is ``flat``: nearly one colour."""

    thumbnail: _Floats
    mean: _Floats
    square: _Floats
    flat: bool


def sampled_stats(images: ImageSet, spec: Preprocess | None = None) -> Iterator[ImageStats]:
    """Look at up to 64 images spread over the set, one in memory at a time; given ``spec``, as the network sees them.

    Images that cannot be read are passed over: the calibration pass counts and names them.
    """
    for index in range(0, len(images), max(1, -(-len(images) // MAX_SAMPLED))):
        seen = _attempt(images, index, spec)
        if seen is not None:
            yield seen


def stats_of(pixels: ImageArray) -> ImageStats:
    """Look at one image, (H, W, 3) uint8 RGB."""
    image = Image.fromarray(pixels)
    thumbnail = np.asarray(image.convert("L").resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX), np.float64)
    shares = np.array(image.histogram()).reshape(3, 256) / (pixels.size // 3)  # exact, and no copy of a large image in floats
    levels = np.arange(256) / 255
    mean, square = shares @ levels, shares @ levels**2
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return ImageStats(thumbnail, mean, square, bool(255 * deviation.max() < _FLAT))


def repeated(seen: Sequence[ImageStats]) -> int:
    """How many of them look like an earlier one, to the pixel or nearly; flat ones do not count."""
    thumbnails = [one.thumbnail for one in seen if not one.flat]
    return sum(
        any(np.abs(thumbnail - earlier).mean() < _SAME for earlier in thumbnails[:place])
        for place, thumbnail in enumerate(thumbnails)
    )


def normalised(seen: Sequence[ImageStats], spec: Preprocess) -> tuple[_Floats, _Floats]:
    """Mean and standard deviation per channel, (3,) each, of all their pixels after ``spec``'s normalisation."""
    mean = np.mean([one.mean for one in seen], axis=0)
    deviation = np.sqrt(np.maximum(np.mean([one.square for one in seen], axis=0) - mean**2, 0))
    return (mean - np.array(spec.mean)) / np.array(spec.std), deviation / np.array(spec.std)


def _attempt(images: ImageSet, index: int, spec: Preprocess | None) -> ImageStats | None:
    try:
        image = images.load(index)
        return stats_of(image if spec is None else preprocess(image, spec))
    except EdgeResnetError:
        return None


#: Below this correlation of neighbouring pixels an image is called noise; the eight-pixel digits, the least smooth real set
#: at hand, stay far above it.
_NOISE_CORRELATION = 0.15


def refuse_noise(images: ImageSet) -> None:
    """Raise CalibrationError where most of the images are noise: neighbouring pixels of an image resemble each other.

    Looks at up to 16 images spread over the set. Images of the world correlate above 0.8 from one pixel to the next,
    noise of any distribution around 0.
    """
    looked_at = range(0, len(images), max(1, -(-len(images) // 16)))
    similar = [value for index in looked_at if (value := _neighbours(images, index)) is not None]
    if similar and float(np.median(similar)) < _NOISE_CORRELATION:
        raise CalibrationError(
            f"the images of {images.name} look like random noise (neighbouring pixels correlate {np.median(similar):.2f})",
            hint="calibrate on images like those at run time; --allow-random to do it all the same",
        )


def _neighbours(images: ImageSet, index: int) -> float | None:
    """Correlation of horizontally neighbouring pixels of one image; None where it cannot be read or is flat."""
    try:
        grey = images.load(index).astype(np.float32).mean(axis=2)
    except DataError:
        return None  # the pass itself counts and names unreadable images
    left, right = grey[:, :-1].ravel(), grey[:, 1:].ravel()
    if left.size < 2 or left.std() == 0 or right.std() == 0:
        return None
    return float(np.corrcoef(left, right)[0, 1])
