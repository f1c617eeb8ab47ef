"""A video file through OpenCV, every frame; as fast as it is read, or at its own pace. Does not know about cameras."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from types import TracebackType

import numpy as np
import numpy.typing as npt

from edge_resnet.core.errors import SourceError
from edge_resnet.streaming.opencv import load_opencv
from edge_resnet.streaming.records import Frame
from edge_resnet.streaming.sources.pace import Pace

__all__ = ["VideoSource"]

_log = logging.getLogger(__name__)

_HINT = "check that the file is complete: ffmpeg -i FILE shows what is in it"
#: Timestamps of a damaged file may jump by hours.
_LONGEST_GAP_S = 5.0


class VideoSource:
    """The frames of a video file in order; none is skipped. ``video://PATH`` takes a file of any name for a video.

    A frame's ``position_ns`` is its time in the file. ``realtime``: the source is ``live``: each frame comes at
    its own time, and that is its time of capture.
    """

    dropped = 0

    def __init__(self, uri: str, *, realtime: bool = False) -> None:
        self.live = realtime
        self._cv2 = load_opencv()
        self._path = uri.removeprefix("video://")
        path = Path(self._path)
        if not path.is_file():
            raise SourceError(f"{self._path} does not exist", hint="check the path")
        if path.stat().st_size == 0:
            raise SourceError(f"{self._path} is empty (0 bytes)", hint="record or copy it again")
        self._capture = self._cv2.VideoCapture(self._path)
        # OpenCV must not close a file while it reads it.
        self._reading = Lock()
        self._pace = Pace()
        if not self._capture.isOpened():
            self._capture.release()
            raise SourceError(f"{self._path} cannot be read as a video", hint=_HINT)

    def __iter__(self) -> Iterator[Frame]:
        index, at_s = 0, 0.0
        rate = self._get(self._cv2.CAP_PROP_FPS)
        gap_s = 1 / rate if 0.1 <= rate <= 1000 else 1 / 25
        expected = int(self._get(self._cv2.CAP_PROP_FRAME_COUNT))
        while True:
            captured_ns = time.monotonic_ns()
            image, stamp_s = self._read()
            if self._pace.stopped:
                return
            if image is None:
                break
            at_s = _next(at_s, stamp_s, gap_s) if index else 0.0
            if self.live:
                captured_ns = self._pace.wait(at_s)
                if self._pace.stopped:
                    return
            yield Frame(image, index, captured_ns, self._path, round(at_s * 1e9))
            index += 1
        if index == 0:
            raise SourceError(f"{self._path} has no frame that can be decoded", hint=_HINT)
        # Many containers estimate the count from the duration, and are off by a frame or two.
        if expected - index > max(2, expected // 10):
            _log.warning("%s ended after %d of about %d frames: it may be incomplete", self._path, index, expected)

    def close(self) -> None:
        """End the iteration, in whichever thread, and close the file."""
        self._pace.stop()
        with self._reading:
            self._capture.release()

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()

    def _get(self, number: int) -> float:
        with self._reading:
            return float(self._capture.get(number))

    def _read(self) -> tuple[npt.NDArray[np.uint8] | None, float]:
        """The next frame, None at the end, and its time in the file, in seconds."""
        with self._reading:
            if self._pace.stopped:
                return None, 0.0
            ok, image = self._capture.read()
            return (image if ok else None), self._capture.get(self._cv2.CAP_PROP_POS_MSEC) / 1000


def _next(before_s: float, stamp_s: float, gap_s: float) -> float:
    """When the next frame is due: at its own time if that is plausible, else after the frame rate's interval."""
    return stamp_s if before_s < stamp_s <= before_s + _LONGEST_GAP_S else before_s + gap_s
