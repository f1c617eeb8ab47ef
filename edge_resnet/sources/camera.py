"""A camera by its index, through OpenCV. Knows nothing of networks of cameras, reconnecting or GStreamer pipelines."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from edge_resnet.errors import SourceError
from edge_resnet.frame import Frame
from edge_resnet.sources.capture import load_opencv

__all__ = ["CameraSource"]


class CameraSource:
    """Frames as the camera delivers them. URIs: ``0``, ``camera:0``, ``/dev/video0``, ``v4l2:///dev/video0``.

    MJPG is asked for before anything else: over USB, raw frames of 720p and more do not reach 30 per second.
    """

    live = True
    dropped = 0

    def __init__(self, uri: str) -> None:
        cv2 = load_opencv()
        index = _index(uri)
        self._name = f"camera:{index}"
        self._capture = cv2.VideoCapture(index)
        self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        if not self._capture.isOpened() or not self._capture.read()[0]:
            self._capture.release()
            raise SourceError(f"camera {index} gives no frames", hint=_cameras())

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while self._capture.isOpened():
            ok = self._capture.grab()
            # Taken between the two: waiting for the frame is not its age, decoding it is.
            captured_ns = time.monotonic_ns()
            image = self._capture.retrieve()[1] if ok else None
            if image is None:
                raise SourceError(f"{self._name} stopped after {index} frames", hint="is it still plugged in?")
            yield Frame(image, index, captured_ns, self._name)
            index += 1

    def close(self) -> None:
        """Let go of the camera."""
        self._capture.release()

    def __enter__(self) -> CameraSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()


def _index(uri: str) -> int:
    match = re.fullmatch(r"(?:camera:(?://)?|(?:v4l2://)?/dev/video)?(\d{1,3})", uri)
    if match is None:
        raise SourceError(f"{uri} names no camera", hint="use --camera 0, or v4l2:///dev/video0")
    return int(match.group(1))


def _cameras() -> str:
    """What the user can do: the cameras that exist, or why there is none."""
    found = sorted(str(path) for path in Path("/dev").glob("video*"))
    if not found:
        return "there is no /dev/video* on this machine: is the camera plugged in?"
    return f"there are {', '.join(found)}; another program may hold it, or: sudo usermod -aG video $USER"
