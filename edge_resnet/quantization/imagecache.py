"""Preprocessed images kept in a file while they are read several times over: memory does not grow with their number."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_resnet.core.errors import CalibrationError

__all__ = ["ImageCache"]

Images: TypeAlias = npt.NDArray[np.uint8]


class ImageCache:
    """The images of ``batches``, (n, H, W, 3) uint8 of one size, in a nameless file that closing removes.

    ``folder``: on which disk it lies, the system's place for temporary files where it is None.

    ``digest``: sha256 over the pixels in their order, whatever the batches. Raises CalibrationError where there is no image.
    """

    def __init__(self, batches: Iterable[Images], folder: Path | None = None) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - this class is its context manager
        try:
            self._fill(batches)
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return self._count

    def take(self, places: Sequence[int] | npt.NDArray[np.int64]) -> Images:
        """The images at these places, (len(places), H, W, 3) uint8, the caller's to keep."""
        taken = np.empty((len(places), *self._shape), np.uint8)
        for row, place in zip(taken, places, strict=True):
            self._file.seek(int(place) * row.nbytes)
            self._file.readinto(row.reshape(-1).data)
        return taken

    def batches(self, size: int, stop: int | None = None) -> Iterator[Images]:
        """The images in their order up to place ``stop``, ``size`` at a time."""
        end = len(self) if stop is None else min(stop, len(self))
        for start in range(0, end, size):
            yield self.take(range(start, min(start + size, end)))

    def close(self) -> None:
        """Remove the file; harmless when repeated."""
        self._file.close()

    def __enter__(self) -> ImageCache:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()

    def _fill(self, batches: Iterable[Images]) -> None:
        self._count, self._shape, digest = 0, (0, 0, 0), hashlib.sha256()
        for batch in batches:
            if len(batch) == 0:
                continue
            self._shape = batch.shape[1:]
            self._file.write(np.ascontiguousarray(batch).data)
            digest.update(np.ascontiguousarray(batch).data)
            self._count += len(batch)
        if self._count == 0:
            raise CalibrationError(
                "there is no image to calibrate on", hint="--calib-data takes a folder, a CSV, an .npz or a name"
            )
        self.digest = digest.hexdigest()
