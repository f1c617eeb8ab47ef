"""The cameras of this machine, from /sys and /dev, and which process uses one. Does not know about OpenCV; opens no stream."""

from __future__ import annotations

import os
import re
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Camera", "describe_cameras", "find_holder", "list_cameras"]

_ROOT = Path("/")
#: VIDIOC_QUERYCAP and its result: driver, card, bus, version, capabilities of the device and of this node (linux/videodev2.h).
_QUERYCAP = 0x80685600
_CAPABILITIES = struct.Struct("=16s32s32sIII12x")
_DEVICE_CAPS = 0x80000000
_CAPTURE, _CAPTURE_MPLANE = 0x1, 0x1000


@dataclass(frozen=True)
class Camera:
    """A node ``/dev/videoN``. ``name``: as the driver reports it, empty if /sys has none.

    ``kind``: ``csi`` for a Jetson's sensor, which OpenCV reads only through GStreamer. ``captures``: it delivers images rather
    than metadata, as far as is known. ``openable``: this user may read and write it.
    """

    path: str
    name: str
    index: int
    kind: Literal["v4l2", "csi"]
    captures: bool
    openable: bool


def list_cameras(root: Path = _ROOT) -> tuple[Camera, ...]:
    """All video nodes, by number; ``root`` stands for ``/``."""
    folders = [root / "sys/class/video4linux", root / "dev"]
    found = {path.name for folder in folders for path in folder.glob("video*")}
    indices = sorted(int(name[5:]) for name in found if re.fullmatch(r"video\d{1,4}", name))
    return tuple(_camera(root, index) for index in indices)


def find_holder(path: Path, root: Path = _ROOT) -> str | None:
    """The process that has the device open, as ``name (process 12)``; None if none is visible, as those of other users may be."""
    for folder in sorted(root.glob("proc/[0-9]*"), key=lambda entry: entry.name):
        with suppress(OSError):
            for link in (folder / "fd").iterdir():
                if link.readlink() != path:
                    continue
                if folder.name == str(os.getpid()):
                    return "this program"
                return f"{(folder / 'comm').read_text(errors='replace').strip()} (process {folder.name})"
    return None


def describe_cameras(root: Path = _ROOT) -> str:
    """The cameras of this machine in one line, for hints."""
    cameras = list_cameras(root)
    if not cameras:
        return "there is no /dev/video* on this machine: is the camera plugged in? (in a container: --device /dev/video0)"
    named = [f"{camera.path} ({camera.name})" if camera.name else camera.path for camera in cameras if camera.captures]
    return f"there are {', '.join(named)}" if named else f"there are only metadata nodes: {cameras[0].path} and the like"


def _camera(root: Path, index: int) -> Camera:
    node, described = root / f"dev/video{index}", root / f"sys/class/video4linux/video{index}"
    name = _text(described / "name")
    openable = os.access(node, os.R_OK | os.W_OK)
    captures = _query_captures(node) if openable else None
    if captures is None:
        # The second node of a USB camera carries metadata and has the index 1 within the device.
        captures = _text(described / "index") in ("", "0")
    # The name of a Tegra video input, for example "vi-output, imx219 9-0010".
    kind: Literal["v4l2", "csi"] = "csi" if name.startswith("vi-output") else "v4l2"
    return Camera(f"/dev/video{index}", name, index, kind, captures, openable)


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return ""


def _query_captures(node: Path) -> bool | None:
    """Whether the driver reports that the node captures; None if it cannot be queried."""
    import fcntl

    with suppress(OSError):
        handle = os.open(node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return _captures(fcntl.ioctl(handle, _QUERYCAP, bytes(_CAPABILITIES.size)))
        finally:
            os.close(handle)
    return None


def _captures(result: bytes) -> bool:
    *_, device, node = _CAPABILITIES.unpack(result)
    return bool((node if device & _DEVICE_CAPS else device) & (_CAPTURE | _CAPTURE_MPLANE))
