"""A V4L2 camera through OpenCV, by its index or its device node. Does not know about networks, reconnecting or CSI sensors."""

from __future__ import annotations

import logging
import os
import re
import stat
from pathlib import Path
from typing import Any

from edge_resnet.core.errors import SourceError
from edge_resnet.device.cameras import describe_cameras, find_holder
from edge_resnet.streaming.opencv import load_opencv
from edge_resnet.streaming.sources.capture import OpenCvCapture
from edge_resnet.streaming.sources.live import LiveSource
from edge_resnet.streaming.sources.uri import TIMEOUT, Range, Timeouts, read_options

__all__ = ["open_camera"]

_log = logging.getLogger(__name__)

#: 0: the camera chooses.
_OPTIONS = {"width": Range(0, 1, 16384), "height": Range(0, 1, 16384), "fps": Range(0, 1, 1000, whole=False), "timeout": TIMEOUT}


def open_camera(uri: str) -> LiveSource:
    """Open ``0``, ``camera:0``, ``/dev/video0`` or ``v4l2:///dev/video0?width=1280&height=720&fps=30``.

    Names below /dev/v4l/ (``v4l2:///dev/v4l/by-id/…``) and /dev/edge-resnet/ do not change when other cameras are plugged in.
    MJPG is requested first: over USB, raw frames of 720p and more do not reach 30 per second. If the camera gives another format
    than requested, that is logged. Raises SourceError if the camera does not exist, may not be opened, is in use by another
    process, or gives no frame.
    """
    before, _, query = uri.partition("?")
    path = _path(before)
    index = re.fullmatch(r"/dev/video(\d+)", path)
    name = f"camera:{index.group(1)}" if index else path
    options = read_options(name, query, _OPTIONS)
    cv2 = load_opencv()
    node = _find_node(path)

    def connect() -> Any:
        capture = cv2.VideoCapture(str(node), cv2.CAP_V4L2)
        if not capture.isOpened():
            raise _refused(node)
        _request_format(cv2, capture, name, options)
        return capture

    def ended() -> SourceError:
        if not node.exists():
            return SourceError(
                f"{name} was unplugged ({node} is gone)", hint="plug it in again; try a shorter cable or a powered hub"
            )
        return SourceError(f"{name} gives no more frames", hint="plug it in again; sudo dmesg shows the driver's messages")

    hint = f"{_holder_of(node) or 'another program may use it'}; else plug it in again, or try ?width=640&height=480"
    return LiveSource(name, OpenCvCapture(connect, ended), Timeouts.of(options["timeout"]), hint)


def _path(before: str) -> str:
    """The path of the device node."""
    match = re.fullmatch(r"(?:camera:(?://)?)?(\d{1,3})", before)
    if match:
        return f"/dev/video{int(match.group(1))}"
    path = before.removeprefix("v4l2://")
    if not re.fullmatch(r"/.+" if before.startswith("v4l2://") else r"/dev/(video\d{1,3}|(v4l|edge-resnet)/.+)", path):
        raise SourceError(f"{before} is not the name of a camera", hint="use 0 or v4l2:///dev/video0")
    return path


def _find_node(path: str) -> Path:
    """The device node behind a path, after checking that it exists and may be opened."""
    node = Path(os.path.realpath(path))
    try:
        kind = node.stat().st_mode
    except OSError as error:
        raise SourceError(f"there is no camera {path}", hint=describe_cameras()) from error
    if not stat.S_ISCHR(kind):
        raise SourceError(f"{path} is not a camera", hint=describe_cameras())
    if not os.access(node, os.R_OK | os.W_OK):
        raise SourceError(
            f"{path} may not be opened by this user",
            hint="sudo usermod -aG video $USER, then log in again (in a container: --group-add video)",
        )
    return node


def _refused(node: Path) -> SourceError:
    held = _holder_of(node)
    if held:
        return SourceError(f"{node} is in use: {held}", hint="end that program, or use another camera")
    try:
        os.close(os.open(node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        return SourceError(f"{node} cannot be opened: {error.strerror}", hint=describe_cameras())
    return SourceError(
        f"{node} gives no images that OpenCV can read", hint=f"some device nodes carry only metadata; {describe_cameras()}"
    )


def _holder_of(node: Path) -> str:
    holder = find_holder(node)
    return f"{holder} has it open" if holder else ""


def _request_format(cv2: Any, capture: Any, name: str, options: dict[str, float]) -> None:
    """Set the format, then the size, then the rate: in another order drivers reset what was set before."""
    capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
    properties = {"width": cv2.CAP_PROP_FRAME_WIDTH, "height": cv2.CAP_PROP_FRAME_HEIGHT, "fps": cv2.CAP_PROP_FPS}
    for key, number in properties.items():
        if options[key]:
            capture.set(number, options[key])
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    got = {key: capture.get(number) for key, number in properties.items()}
    differences = [
        f"{key} {got[key]:g} instead of {options[key]:g}" for key in got if options[key] and abs(got[key] - options[key]) > 0.5
    ]
    code = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode("ascii", "replace")
    if differences:
        _log.warning("%s gives %s (%s)", name, ", ".join(differences), code)
