"""Loads OpenCV when it is needed, with its messages silenced. Does not know what is captured, shown or recorded."""

from __future__ import annotations

import os
from typing import Any

from edge_resnet.core.errors import MissingDependencyError

__all__ = ["load_opencv"]


def load_opencv(wanted: str = "cameras and videos need") -> Any:
    """The module cv2, with its own messages on stderr silenced: the user gets one line from edge-resnet instead.

    ``wanted``: the beginning of the error message. Raises MissingDependencyError with the command that installs OpenCV.
    """
    # The only way to silence OpenCV before 4.7.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    # Read once, when the library is loaded: seconds that OpenCV waits for a V4L2 camera without a frame.
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "2")
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(
            f"{wanted} OpenCV ({error})",
            hint="pip install 'edge-resnet[camera]'   (on a Jetson: sudo apt install python3-opencv, which has GStreamer)",
        ) from error
    # The only way to silence FFmpeg; OpenCV reads this when it opens the first video.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    if hasattr(cv2.utils, "logging"):
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2
