"""OpenCV's VideoCapture, opened and read with timeouts. Does not know what is captured."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from edge_resnet.core.errors import SourceError
from edge_resnet.core.packages import is_older
from edge_resnet.streaming.sources.live import CapturedImage
from edge_resnet.streaming.sources.uri import Timeouts

__all__ = ["APPSINK", "OpenCvCapture", "has_gstreamer", "open_ffmpeg", "open_gstreamer"]

#: The end of a GStreamer pipeline: frames in OpenCV's own layout, only the newest, as soon as they arrive.
APPSINK = "video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"
_FFMPEG_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
#: The environment belongs to the whole process, and OpenCV reads it whenever it opens a stream.
_environment = Lock()
#: Seconds: a read that fails later has timed out, one that fails sooner means that no more frames will come.
_QUICK_S = 0.25
#: The first OpenCV with timeouts for GStreamer. An older one opens the whole pipeline, cannot set them, and closes it again.
_GSTREAMER_TIMEOUTS = "4.7"


def has_gstreamer(cv2: Any) -> bool:
    """Whether this OpenCV is built with GStreamer. Its list of backends contains GStreamer even if it is not."""
    return bool(cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER))


def open_gstreamer(cv2: Any, pipeline: str, timeouts: Timeouts) -> Any:
    """A VideoCapture of a pipeline, which may have failed to open. OpenCV before 4.7 knows no ``timeouts`` here."""
    capture = cv2.VideoCapture()
    parameters = [] if is_older(cv2.__version__, _GSTREAMER_TIMEOUTS) else _times(cv2, timeouts)
    capture.open(pipeline, cv2.CAP_GSTREAMER, parameters)
    return capture


def open_ffmpeg(cv2: Any, uri: str, options: str, threads: int, timeouts: Timeouts) -> Any:
    """A VideoCapture of a stream, which may have failed to open, with FFmpeg's ``options`` (``name;value|name;value``).

    Options in the user's environment take precedence. ``threads``: for decoding, 0: one per core; each delays by one frame.
    """
    parameters = _times(cv2, timeouts)
    if threads and hasattr(cv2, "CAP_PROP_N_THREADS"):
        parameters += [cv2.CAP_PROP_N_THREADS, threads]
    capture = cv2.VideoCapture()
    with _ffmpeg_options(options):
        capture.open(uri, cv2.CAP_FFMPEG, parameters)
    return capture


class OpenCvCapture:
    """The frames of a VideoCapture. ``connect`` opens it or raises SourceError; ``ended`` makes the error for its end.

    ``has_begun``: it has given a frame.
    """

    def __init__(self, connect: Callable[[], Any], ended: Callable[[], SourceError]) -> None:
        self.lost = 0
        self.has_begun = False
        self._connect, self._ended = connect, ended
        self._capture: Any = None
        self._stopped = False

    def open(self) -> None:
        """Open the VideoCapture."""
        self._capture = self._connect()

    def read(self) -> CapturedImage:
        """Wait for a frame and decode it; frames that cannot be decoded are skipped and counted."""
        while not self._stopped:
            started = time.monotonic()
            if not self._capture.grab():
                if time.monotonic() - started < _QUICK_S:
                    break
                continue
            # Taken between the two: the time for decoding counts as the frame's age, the wait for it does not.
            captured_ns = time.monotonic_ns()
            ok, image = self._capture.retrieve()
            if ok and image is not None:
                self.has_begun = True
                return CapturedImage(image, captured_ns)
            self.lost += 1
        raise self._ended()

    def interrupt(self) -> None:
        """Make the current read the last one."""
        self._stopped = True

    def close(self) -> None:
        """Release the device."""
        if self._capture is not None:
            self._capture.release()


def _times(cv2: Any, timeouts: Timeouts) -> list[int]:
    # Half of it: OpenCV tries FFmpeg a second time after a timeout.
    read_ms = int(1000 * timeouts.read_s / 2)
    return [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(1000 * timeouts.open_s), cv2.CAP_PROP_READ_TIMEOUT_MSEC, read_ms]


@contextmanager
def _ffmpeg_options(options: str) -> Iterator[None]:
    with _environment:
        if _FFMPEG_OPTIONS in os.environ:
            yield
            return
        os.environ[_FFMPEG_OPTIONS] = options
        try:
            yield
        finally:
            del os.environ[_FFMPEG_OPTIONS]
