"""A video file, every frame of it, through OpenCV. Knows nothing of cameras."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from edge_resnet.errors import SourceError
from edge_resnet.frame import Frame
from edge_resnet.sources.capture import load_opencv

__all__ = ["VideoSource"]

_log = logging.getLogger(__name__)

_HINT = "is it a whole video? ffmpeg -i FILE says what is in it"


class VideoSource:
    """Frames of a video file in order; none is skipped, however slow the reader. ``video://PATH`` names any file a video."""

    live = False
    dropped = 0

    def __init__(self, uri: str) -> None:
        cv2 = load_opencv()
        self._frame_count = cv2.CAP_PROP_FRAME_COUNT
        self._path = uri.removeprefix("video://")
        if not Path(self._path).is_file():
            raise SourceError(f"{self._path} does not exist", hint="name a video file")
        self._capture = cv2.VideoCapture(self._path)
        if not self._capture.isOpened():
            self._capture.release()
            raise SourceError(f"{self._path} cannot be read as a video", hint=_HINT)

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while self._capture.isOpened():
            captured_ns = time.monotonic_ns()
            ok, image = self._capture.read()
            if not ok:
                break
            yield Frame(image, index, captured_ns, self._path)
            index += 1
        if index == 0:
            raise SourceError(f"{self._path} has no frame that can be decoded", hint=_HINT)
        expected = int(self._capture.get(self._frame_count))
        # Many containers only estimate the count from the duration, a frame or two off.
        if expected - index > max(2, expected // 10):
            _log.warning("%s ended after %d of about %d frames: is it whole?", self._path, index, expected)

    def close(self) -> None:
        """Close the file."""
        self._capture.release()

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()
