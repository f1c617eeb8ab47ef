"""Calibration images: drawn from a set by class and seed, refused if they are noise, and preprocessed once.

Does not know about networks or ranges.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from edge_resnet.core.records import Preprocess, QuantRecipe
from edge_resnet.images.checks import refuse_noise
from edge_resnet.images.imagecache import ImageCache
from edge_resnet.images.imageset import ImageSet, balanced_sample, require_several
from edge_resnet.images.preprocess import ImageArray

__all__ = ["CalibrationImages", "draw_calibration_images", "prepare_calibration_images"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class CalibrationImages:
    """Images that ranges and corrections are measured on. A context manager: leaving it removes the cached pixels.

    ``images``: the images that could be read, with their labels if the set has any. ``indices``: their positions in the set that
    they were taken from. ``preprocess``: how ``pixels`` were made of them, (N, crop, crop, 3) uint8 RGB.
    """

    images: ImageSet
    indices: tuple[int, ...]
    preprocess: Preprocess
    pixels: ImageCache

    @property
    def name(self) -> str:
        """The name of the set that the images were taken from."""
        return self.images.name

    @property
    def digest(self) -> str:
        """Sha256 over the preprocessed pixels in order."""
        return self.pixels.digest

    def __len__(self) -> int:
        return len(self.pixels)

    def load(self, index: int) -> ImageArray:
        """One image after preprocessing, (crop, crop, 3) uint8 RGB."""
        image: ImageArray = self.pixels.take([index])[0]
        return image

    def __enter__(self) -> CalibrationImages:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.pixels.close()


def draw_calibration_images(
    source: ImageSet, recipe: QuantRecipe, preprocess: Preprocess, *, allow_noise: bool = False, folder: Path | None = None
) -> CalibrationImages:
    """Draw as many images as ``recipe`` asks for by its seed, balanced over the classes; all of them if there are fewer.

    Raises what ``prepare_calibration_images`` raises, and DataError for a set of one image.
    """
    require_several(source)
    indices = balanced_sample(source, recipe.images, recipe.seed)
    if len(indices) < recipe.images:
        _log.warning("%s has %d images, fewer than the %d asked for", source.name, len(indices), recipe.images)
    return prepare_calibration_images(source, preprocess, indices=indices, allow_noise=allow_noise, folder=folder)


def prepare_calibration_images(
    source: ImageSet,
    preprocess: Preprocess,
    *,
    indices: list[int] | None = None,
    allow_noise: bool = False,
    folder: Path | None = None,
) -> CalibrationImages:
    """Preprocess the images of ``source`` at ``indices`` (all of them by default) into a file under ``folder``.

    Images that cannot be read are skipped with a warning. Raises CalibrationError if most of the images are noise, DataError if
    too many cannot be read.
    """
    chosen = source if indices is None else source.subset(indices)
    if not allow_noise:
        refuse_noise(chosen)
    pixels = ImageCache.of_set(chosen, preprocess, folder)
    origin = pixels.indices if indices is None else tuple(indices[position] for position in pixels.indices)
    return CalibrationImages(chosen.subset(pixels.indices), origin, preprocess, pixels)
