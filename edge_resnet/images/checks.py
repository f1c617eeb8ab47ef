"""What can be wrong with images at a glance: noise, repetition, one colour, an unusual normalisation, a frozen camera.

Does not know about networks or labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_resnet.core.errors import CalibrationError, DataError
from edge_resnet.core.records import Preprocess
from edge_resnet.images.imageset import ImageSet
from edge_resnet.images.preprocess import ImageArray

__all__ = [
    "MAX_SAMPLED",
    "FrozenFrameDetector",
    "ImageStats",
    "LoadableImages",
    "normalised",
    "refuse_noise",
    "repeated",
    "sampled_stats",
    "stats_of",
]

#: Images sampled for statistics, and for the noise check, however large the set is.
MAX_SAMPLED = 64
_MAX_NOISE_SAMPLED = 16
#: Below this correlation of neighbouring pixels an image counts as noise. The least smooth real set at hand, digits of eight
#: pixels, stays far above it.
_NOISE_CORRELATION = 0.15
#: Mean difference of two thumbnails in grey levels. The nearest two of 64 images of CIFAR-10, ImageNet or the digits are at
#: least 9 apart; of a fixed camera's frames, one a second, 4 of 10 are within 3 of another.
_SAME, _THUMBNAIL = 3.0, 8
#: Standard deviation of a channel, in grey levels, below which there is nothing to see: real images have 20 and more.
_FLAT = 2.0
#: Pixels sampled along the longer side of a frame: any change of the scene shows in them, and reading them takes microseconds.
_ACROSS = 32
#: Grey levels, 0 to 255: less than a hundredth of a black frame reaches this. The frames of a covered lens still have noise.
_BLACK = 20

_Floats: TypeAlias = npt.NDArray[np.float64]


class LoadableImages(Protocol):
    """A number of images that are loaded one at a time, (H, W, 3) uint8 RGB."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> ImageArray:
        """Load one image. Raises DataError if it cannot be read."""
        ...


@dataclass(frozen=True, eq=False)
class ImageStats:
    """Statistics of one image.

    ``thumbnail`` (8, 8): grey levels. ``mean``, ``square`` (3,): of the pixels and of their squares, in [0, 1], RGB. ``flat``:
    whether the image is nearly one colour.
    """

    thumbnail: _Floats
    mean: _Floats
    square: _Floats
    flat: bool


class FrozenFrameDetector:
    """Detects a frozen or black video from its frames: a camera with a sensor never delivers the same bytes for long.

    ``frozen_s``, ``black_s``: how long frames must stay the same, or black, before they count as such.
    """

    def __init__(self, *, frozen_s: float, black_s: float) -> None:
        self._frozen_ns, self._black_ns = frozen_s * 1e9, black_s * 1e9
        self._last = b""
        self._same_since = self._black_since = 0
        self._is_black = False
        self.frozen = False
        self.black = False

    def see(self, image: npt.NDArray[np.uint8], at_ns: int) -> None:
        """Take the next frame (H, W, 3), captured at ``at_ns``, and update ``frozen`` and ``black``."""
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


def refuse_noise(images: ImageSet) -> None:
    """Raise CalibrationError if most of up to 16 images, spread over the set, are random noise.

    Neighbouring pixels of a real image correlate above 0.8, those of noise of any distribution around 0.
    """
    sampled = _sampled(images, _MAX_NOISE_SAMPLED)
    correlations = [value for image in sampled if (value := _neighbour_correlation(image)) is not None]
    if correlations and float(np.median(correlations)) < _NOISE_CORRELATION:
        raise CalibrationError(
            f"the images of {images.name} look like random noise (neighbouring pixels correlate {np.median(correlations):.2f})",
            hint="calibrate on images like those at run time, or use --allow-random to calibrate on these",
        )


def sampled_stats(images: LoadableImages) -> Iterator[ImageStats]:
    """Statistics of up to 64 images spread over the set, one in memory at a time; images that cannot be read are skipped."""
    return (stats_of(image) for image in _sampled(images, MAX_SAMPLED))


def stats_of(pixels: ImageArray) -> ImageStats:
    """Statistics of one image, (H, W, 3) uint8 RGB."""
    image = Image.fromarray(pixels)
    thumbnail = np.asarray(image.convert("L").resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX), np.float64)
    shares = np.array(image.histogram()).reshape(3, 256) / (pixels.size // 3)  # exact, without a float copy of a large image
    levels = np.arange(256) / 255
    mean, square = shares @ levels, shares @ levels**2
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return ImageStats(thumbnail, mean, square, bool(255 * deviation.max() < _FLAT))


def repeated(stats: Sequence[ImageStats]) -> int:
    """How many images look like an earlier one, exactly or nearly; flat images do not count."""
    thumbnails = [one.thumbnail for one in stats if not one.flat]
    return sum(
        any(np.abs(thumbnail - earlier).mean() < _SAME for earlier in thumbnails[:position])
        for position, thumbnail in enumerate(thumbnails)
    )


def normalised(stats: Sequence[ImageStats], spec: Preprocess) -> tuple[_Floats, _Floats]:
    """Mean and standard deviation per channel, (3,) each, over all pixels after ``spec``'s normalisation."""
    mean = np.mean([one.mean for one in stats], axis=0)
    deviation = np.sqrt(np.maximum(np.mean([one.square for one in stats], axis=0) - mean**2, 0))
    return (mean - np.array(spec.mean)) / np.array(spec.std), deviation / np.array(spec.std)


def _sampled(images: LoadableImages, maximum: int) -> Iterator[ImageArray]:
    """Up to ``maximum`` images spread evenly. Those that cannot be read are named when the whole set is read."""
    for index in range(0, len(images), max(1, -(-len(images) // maximum))):
        try:
            image = images.load(index)
        except DataError:
            continue
        yield image


def _neighbour_correlation(image: ImageArray) -> float | None:
    """Correlation of horizontally neighbouring pixels; None if it is not defined, as for one colour."""
    grey = image.astype(np.float32).mean(axis=2)
    left, right = grey[:, :-1].ravel(), grey[:, 1:].ravel()
    if left.size < 2 or left.std() == 0 or right.std() == 0:
        return None
    return float(np.corrcoef(left, right)[0, 1])
