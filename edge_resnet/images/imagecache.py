"""Preprocessed images kept in a temporary file while they are read several times: memory does not grow with their number.

Does not know about networks or what the images are for.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_resnet.core.errors import CalibrationError
from edge_resnet.core.records import Preprocess
from edge_resnet.images.imageset import ImageSet, batches
from edge_resnet.images.preprocess import ImageArray

__all__ = ["CachedImages", "ImageCache", "ImageSubset"]

#: Images preprocessed at a time.
_BATCH = 8


class CachedImages(Protocol):
    """What reads images of one size several times asks for: an ``ImageCache``, or a part of one."""

    def __len__(self) -> int:
        """The number of images."""

    def take(self, positions: Sequence[int] | npt.NDArray[np.int64]) -> ImageArray:
        """The images at these positions as a new array, (len(positions), H, W, 3) uint8."""

    def batches(self, size: int, stop: int | None = None) -> Iterator[ImageArray]:
        """The images in order up to position ``stop``, ``size`` at a time; the last batch may be smaller."""


class ImageCache:
    """The images of ``chunks``, each (n, H, W, 3) uint8 of one size, in a nameless file that is removed on close.

    ``folder``: where the file is created; the system's folder for temporary files by default.

    ``digest``: sha256 over the pixels in order, however they are divided into chunks. ``indices``: for each image its position
    in the set that the cache was made of. Raises CalibrationError if there is no image.
    """

    def __init__(self, chunks: Iterable[ImageArray], folder: Path | None = None) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - this class is its context manager
        try:
            self._fill(chunks)
        except BaseException:
            self._file.close()
            raise
        self.indices: tuple[int, ...] = tuple(range(self._count))

    @classmethod
    def of_set(cls, images: ImageSet, preprocess: Preprocess, folder: Path | None = None) -> ImageCache:
        """Preprocess every image of a set once; images that cannot be read are skipped with a warning.

        Raises DataError if too many cannot be read, as ``batches`` does.
        """
        indices: list[int] = []

        def chunks() -> Iterator[ImageArray]:
            for batch in batches(images, preprocess, _BATCH):
                indices.extend(batch.indices.tolist())
                yield batch.images

        cache = cls(chunks(), folder)
        cache.indices = tuple(indices)
        return cache

    def __len__(self) -> int:
        return self._count

    def take(self, positions: Sequence[int] | npt.NDArray[np.int64]) -> ImageArray:
        """The images at these positions as a new array, (len(positions), H, W, 3) uint8."""
        taken = np.empty((len(positions), *self._shape), np.uint8)
        for row, position in zip(taken, positions, strict=True):
            self._file.seek(int(position) * row.nbytes)
            self._file.readinto(row.reshape(-1).data)
        return taken

    def batches(self, size: int, stop: int | None = None) -> Iterator[ImageArray]:
        """The images in order up to position ``stop``, ``size`` at a time; the last batch may be smaller."""
        end = len(self) if stop is None else min(stop, len(self))
        for start in range(0, end, size):
            yield self.take(range(start, min(start + size, end)))

    def close(self) -> None:
        """Remove the file. Calling it again has no effect."""
        self._file.close()

    def __enter__(self) -> ImageCache:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()

    def _fill(self, chunks: Iterable[ImageArray]) -> None:
        self._count, self._shape, digest = 0, (0, 0, 0), hashlib.sha256()
        for chunk in chunks:
            if len(chunk) == 0:
                continue
            self._shape = chunk.shape[1:]
            self._file.write(np.ascontiguousarray(chunk).data)
            digest.update(np.ascontiguousarray(chunk).data)
            self._count += len(chunk)
        if self._count == 0:
            raise CalibrationError("there is no image to calibrate on", hint="images are a folder, a CSV, an .npz or a name")
        self.digest = digest.hexdigest()


class ImageSubset:
    """The images of a cache at some ``positions``, in that order. The cache stays open as long as this is read."""

    def __init__(self, images: CachedImages, positions: Sequence[int] | npt.NDArray[np.int64]) -> None:
        self._images = images
        self.positions = np.asarray(positions, np.int64)

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, positions: Sequence[int] | npt.NDArray[np.int64]) -> ImageArray:
        """The images at these positions of the subset as a new array, (len(positions), H, W, 3) uint8."""
        return self._images.take(self.positions[np.asarray(positions, np.int64)])

    def batches(self, size: int, stop: int | None = None) -> Iterator[ImageArray]:
        """The images in order up to position ``stop`` of the subset, ``size`` at a time; the last batch may be smaller."""
        chosen = self.positions[:stop]
        for start in range(0, len(chosen), size):
            yield self._images.take(chosen[start : start + size])
