"""Annotated frames in a window on the screen, through OpenCV. Does not know how a run ends: it calls ``stop``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from edge_resnet.core.errors import ConfigError
from edge_resnet.streaming.opencv import load_opencv
from edge_resnet.streaming.records import Frame, Prediction
from edge_resnet.streaming.sinks.annotate import Annotator

__all__ = ["WindowSink"]

_REMEDY = "use --web instead: a browser on this or another machine shows the same"
#: Maximum number of windows; the images of a folder are sources that share one.
_WINDOWS = 16
_WIDEST, _HIGHEST = 1280, 720
_KEYS = (ord("q"), ord("Q"), 27)
_PROBE = "import cv2; cv2.namedWindow('edge-resnet'); cv2.waitKey(1); cv2.destroyAllWindows()"
_PROBE_S = 20.0
_FONTS = "/usr/share/fonts/truetype/dejavu"


class WindowSink:
    """Shows the predicted frames with the answer drawn in. ``per_source``: a window per source, for up to 16.

    q, Esc, or closing the window calls ``stop`` once; later frames are skipped. Keys are read when frames arrive: with a camera
    that gives none, Ctrl-C ends the run. The window belongs to the thread that calls ``write`` first.

    Raises ConfigError if there is no screen, or OpenCV was built without windows.
    """

    name = "window"
    wants_frames = True

    def __init__(self, stop: Callable[[], object], *, per_source: bool = False) -> None:
        self._cv2 = load_opencv("--window needs")
        _check_screen(self._cv2)
        self._stop = stop
        self._stopped = False
        self._per_source = per_source
        self._annotator = Annotator()
        self._titles: set[str] = set()

    def write(self, prediction: Prediction, frame: Frame) -> None:
        """Show one frame and read the keys. Raises ConfigError if OpenCV cannot show it."""
        if self._stopped:
            return
        title = f"edge-resnet {prediction.source}" if self._per_source else "edge-resnet"
        image = self._annotator.draw(prediction, frame)
        try:
            if title not in self._titles:
                self._open(title, image.shape[1], image.shape[0])
            self._cv2.imshow(title, image)
            key = self._cv2.waitKey(1) & 0xFF
        except self._cv2.error as error:
            raise ConfigError(f"OpenCV cannot show the frame: {_line(error)}", hint=_REMEDY) from error
        if key in _KEYS or self._is_closed():
            self._stopped = True
            self._stop()

    def close(self) -> None:
        """Close the windows."""
        if not self._titles:
            return
        self._titles.clear()
        with suppress(self._cv2.error):  # the user may have closed the window
            self._cv2.destroyAllWindows()
            self._cv2.waitKey(1)

    def __enter__(self) -> WindowSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()

    def _is_closed(self) -> bool:
        try:
            return any(self._cv2.getWindowProperty(title, self._cv2.WND_PROP_VISIBLE) < 1 for title in self._titles)
        except self._cv2.error:  # raised by Qt when its last window was closed
            return True

    def _open(self, title: str, width: int, height: int) -> None:
        if len(self._titles) >= _WINDOWS:
            raise ConfigError(f"--window opens at most {_WINDOWS} windows, one per source", hint="use fewer sources")
        self._cv2.namedWindow(title, self._cv2.WINDOW_NORMAL | self._cv2.WINDOW_KEEPRATIO)
        scale = min(1.0, _WIDEST / width, _HIGHEST / height)
        self._cv2.resizeWindow(title, max(1, round(width * scale)), max(1, round(height * scale)))
        self._titles.add(title)


def _check_screen(cv2: Any) -> None:
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise ConfigError("--window needs a screen, and neither DISPLAY nor WAYLAND_DISPLAY is set", hint=_REMEDY)
    framework = getattr(cv2, "currentUIFramework", None)  # since OpenCV 4.5.3
    if framework is not None and not framework():
        raise ConfigError("this OpenCV was built without windows (opencv-python-headless?)", hint=_REMEDY)
    # pip's OpenCV refers to a folder of fonts that it does not contain, and Qt reports that on stderr for each window.
    if not Path(os.environ.get("QT_QPA_FONTDIR", "/")).is_dir():
        os.environ["QT_QPA_FONTDIR"] = _FONTS
    # Without a screen Qt aborts the whole process instead of raising: a child process tries first.
    try:
        probe = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, timeout=_PROBE_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"no window could be opened within {_PROBE_S:.0f} s", hint=_REMEDY) from error
    if probe.returncode != 0:
        screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        raise ConfigError(f"no window can be opened on the screen {screen}", hint=_REMEDY)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
