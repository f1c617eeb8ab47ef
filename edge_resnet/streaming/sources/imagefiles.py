"""Image files as frames: one file, a folder, or a glob. Does not know about videos, cameras or classes."""

from __future__ import annotations

import glob
import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from types import TracebackType

from edge_resnet.core.errors import DataError, SourceError
from edge_resnet.images.preprocess import decode_image
from edge_resnet.streaming.records import Frame

__all__ = ["ImagesSource"]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"})

_log = logging.getLogger(__name__)


class ImagesSource:
    """The images of a path or a glob in natural order: ``img2`` before ``img10``.

    An image that cannot be read is dropped with a warning; if none can be read, SourceError is raised. Hidden files of a folder
    are skipped. ``images://PATH`` takes a file of any name for an image.
    """

    live = False

    def __init__(self, uri: str) -> None:
        self.dropped = 0
        self._uri = uri.removeprefix("images://")
        self._paths = _paths(self._uri)
        self._closed = Event()

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        for done, path in enumerate(self._paths, start=1):
            if self._closed.is_set():
                return
            captured_ns = time.monotonic_ns()
            try:
                image = decode_image(path)[..., ::-1]
            except DataError as error:
                self.dropped += 1
                if index == 0 and done == len(self._paths):
                    none = "" if done == 1 else f"none of the {done} images of {self._uri} can be read, the last because "
                    raise SourceError(none + error.message, hint=error.hint or "use other images") from error
                _log.warning("dropped an image: %s", error)
                continue
            yield Frame(image, index, captured_ns, str(path))
            index += 1

    def close(self) -> None:
        """End the iteration after the current image."""
        self._closed.set()

    def __enter__(self) -> ImagesSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()


def _paths(uri: str) -> list[Path]:
    path = Path(uri)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [entry for entry in path.iterdir() if _is_image(entry) and not entry.name.startswith(".")]
        if not found:
            raise SourceError(f"{uri} contains no images", hint=f"looked for {', '.join(sorted(SUFFIXES))}")
    elif any(mark in uri for mark in "*?["):
        names = glob.glob(uri, recursive=True)  # noqa: PTH207 - takes absolute patterns
        found = [Path(name) for name in names if _is_image(Path(name))]
        if not found:
            raise SourceError(
                f"no image matches {uri}", hint="check the pattern, and quote it so that the shell does not expand it"
            )
    else:
        raise SourceError(f"{uri} does not exist", hint="use a file, a folder, a glob or a camera index")
    return sorted(found, key=lambda entry: (_natural(str(entry)), str(entry)))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]
