"""A CSI sensor of a Jetson, through GStreamer's nvarguscamerasrc. Does not know about USB cameras.

Not yet run on a board: its tests run real pipelines, in which only the Jetson's own elements are stand-ins.
"""

from __future__ import annotations

import re
from typing import Any

from edge_resnet.core.errors import SourceError
from edge_resnet.device.cameras import describe_cameras
from edge_resnet.device.gstreamer import has_plugin
from edge_resnet.streaming.opencv import load_opencv
from edge_resnet.streaming.sources.capture import APPSINK, OpenCvCapture, has_gstreamer, open_gstreamer
from edge_resnet.streaming.sources.live import LiveSource
from edge_resnet.streaming.sources.uri import TIMEOUT, Range, Timeouts, read_options

__all__ = ["csi_pipeline", "open_csi"]

_SIZE = Range(0, 16, 8192)
_OPTIONS = {
    "width": Range(1920, 16, 8192),
    "height": Range(1080, 16, 8192),
    "fps": Range(30, 1, 240),
    "flip": Range(0, 0, 7),
    "out_width": _SIZE,
    "out_height": _SIZE,
    "timeout": TIMEOUT,
}
#: The elements that only a Jetson has are plugins of the same names.
_PLUGINS = ("nvarguscamerasrc", "nvvidconv")
_NOT_A_JETSON = (
    "csi:// works on a Jetson only; a USB camera is 0   (on a Jetson: sudo apt install nvidia-l4t-gstreamer; in a container: "
    "--runtime nvidia)"
)
_HINT = "sudo systemctl restart nvargus-daemon; check the ribbon cable, and the sensor in /opt/nvidia/jetson-io/jetson-io.py"


def open_csi(uri: str) -> LiveSource:
    """Open ``csi://0?width=1920&height=1080&fps=30&flip=0&out_width=…&out_height=…``.

    width, height, fps: a mode of the sensor. flip: nvvidconv's flip-method (2 rotates by 180 degrees). out_…: the size of the
    frames, scaled in hardware; one alone keeps the aspect ratio. Raises SourceError if OpenCV has no GStreamer,
    GStreamer has not the Jetson's elements, or the sensor gives no frame.
    """
    before, _, query = uri.partition("?")
    match = re.fullmatch(r"csi://(\d{1,2})/?", before, re.IGNORECASE)
    if match is None:
        raise SourceError(f"{before} is not the name of a sensor", hint="use csi://0")
    name = f"csi://{int(match.group(1))}"
    options = read_options(name, query, _OPTIONS)
    cv2 = load_opencv()
    if not has_gstreamer(cv2):
        raise SourceError(
            f"{name}: this OpenCV ({cv2.__version__}) is built without GStreamer, which CSI cameras need",
            hint="pip uninstall -y opencv-python opencv-python-headless; sudo apt install python3-opencv; "
            "a virtual environment with --system-site-packages",
        )
    for plugin in _PLUGINS:
        if not has_plugin(plugin):
            raise SourceError(f"{name}: GStreamer has no {plugin} here", hint=_NOT_A_JETSON)
    timeouts = Timeouts.of(options["timeout"])

    def connect() -> Any:
        opened = open_gstreamer(cv2, csi_pipeline(int(match.group(1)), options), timeouts)
        if not opened.isOpened():
            raise SourceError(f"{name} gives no frames", hint=_HINT)
        return opened

    def ended() -> SourceError:
        # A sensor that is not there opens, and its stream is at its end at once.
        if not capture.has_begun:
            return SourceError(f"{name} gives no frames", hint=f"{describe_cameras()}; {_HINT}")
        return SourceError(f"{name} gives no more frames", hint=_HINT)

    capture = OpenCvCapture(connect, ended)
    return LiveSource(name, capture, timeouts, _HINT)


def csi_pipeline(sensor: int, options: dict[str, float]) -> str:
    """The pipeline's description. nvvidconv scales and rotates in hardware; videoconvert only drops the fourth channel."""
    width, height, fps, flip = (int(options[key]) for key in ("width", "height", "fps", "flip"))
    out_width, out_height = int(options["out_width"]), int(options["out_height"])
    # Odd methods rotate by a quarter turn or mirror at a diagonal, which swaps the sides.
    shape = (height, width) if flip in (1, 3, 5, 7) else (width, height)
    if not (out_width or out_height):
        out_width, out_height = shape
    # Even numbers: the sensor's format stores colour at half the resolution.
    out_width = out_width or 2 * round(out_height * shape[0] / shape[1] / 2)
    out_height = out_height or 2 * round(out_width * shape[1] / shape[0] / 2)
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! "
        f"video/x-raw(memory:NVMM),width={width},height={height},framerate={fps}/1,format=NV12 ! "
        f"nvvidconv flip-method={flip} ! video/x-raw,width={out_width},height={out_height},format=BGRx ! videoconvert ! {APPSINK}"
    )
