"""OpenCV loaded late and quietly, for those who need it. Knows nothing of what is captured, shown or recorded."""

from __future__ import annotations

import os
from typing import Any

from edge_resnet.core.errors import MissingDependencyError

__all__ = ["load_opencv"]


def load_opencv(wanted: str = "cameras and videos need") -> Any:
    """The module cv2, its own messages on stderr silenced: the user gets one line from us instead.

    ``wanted``: what the line begins with. Raises MissingDependencyError with the command that installs it.
    """
    # OpenCV before 4.7 can be silenced in no other way.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    # Read once, when the library is loaded: seconds after which OpenCV looks up from a V4L2 camera that gives nothing.
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "2")
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(
            f"{wanted} OpenCV ({error})",
            hint="pip install 'edge-resnet[camera]'   (on a Jetson: sudo apt install python3-opencv, which has GStreamer)",
        ) from error
    # FFmpeg's own messages can be silenced in no other way; OpenCV reads this when it opens the first video.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    if hasattr(cv2.utils, "logging"):
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2
