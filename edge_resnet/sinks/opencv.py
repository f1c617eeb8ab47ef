"""OpenCV loaded late and quietly, for the sinks that need it. Knows nothing of what is shown or recorded."""

from __future__ import annotations

import os
from typing import Any

from edge_resnet.errors import MissingDependencyError

__all__ = ["load_opencv"]


def load_opencv(option: str) -> Any:
    """The module cv2, its own messages on stderr silenced. ``option``: what asks for it.

    Raises MissingDependencyError with the command that installs it.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(
            f"{option} needs OpenCV ({error})",
            hint="pip install 'edge-resnet[camera]'   (on a Jetson: sudo apt install python3-opencv)",
        ) from error
    # FFmpeg's own messages can be silenced in no other way; OpenCV reads this when it opens the first video.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2
