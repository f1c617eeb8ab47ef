"""Image files as frames: one file, a folder, or a glob. Does not know about videos, cameras or classes."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from types import TracebackType

from edge_resnet.core.errors import DataError, SourceError
from edge_resnet.images.preprocess import decode_image
from edge_resnet.images.walk import (
    SUFFIXES,
    PassedOver,
    describe_passed_over,
    images_matching,
    list_folder,
    log_passed_over,
)
from edge_resnet.streaming.records import Frame

__all__ = ["ImagesSource"]

_log = logging.getLogger(__name__)


class ImagesSource:
    """The images of a path or a glob in natural order: ``img2`` before ``img10``.

    An image that cannot be read is dropped with a warning; if none can be read, SourceError is raised. Whatever else lies in a
    folder is passed over and counted in one warning. ``images://PATH`` takes a file of any name for an image.
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
    """The images that ``uri`` names, in natural order; what is passed over is logged by kind, in one line."""
    path, passed_over = Path(uri), PassedOver()
    if path.is_file():
        return [path]
    if path.is_dir():
        content = list_folder(path, passed_over)
        found = list(content.images)
        passed_over["folders"] += len(content.folders)
        if not found:
            seen = f", only {text}" if (text := describe_passed_over(passed_over)) else ""
            below = f"; for those in its folders: --source '{path}/**/*'" if content.folders else ""
            raise SourceError(f"{uri} contains no images{seen}", hint=f"looked for {', '.join(sorted(SUFFIXES))}{below}")
    elif any(mark in uri for mark in "*?["):
        found = images_matching(uri, passed_over)
        if not found:
            raise SourceError(
                f"no image matches {uri}", hint="check the pattern, and quote it so that the shell does not expand it"
            )
    else:
        raise SourceError(f"{uri} does not exist", hint="use a file, a folder, a glob or a camera index")
    log_passed_over(uri, passed_over)
    return sorted(found, key=lambda entry: (_natural(str(entry)), str(entry)))


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]
