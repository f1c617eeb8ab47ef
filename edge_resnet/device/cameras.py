"""The cameras of this machine, read from /sys and /dev, and who holds one. Knows nothing of OpenCV and opens no stream."""

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
#: VIDIOC_QUERYCAP and its answer: driver, card, bus, version, capabilities of the device, of this node (linux/videodev2.h).
_QUERYCAP = 0x80685600
_ANSWER = struct.Struct("=16s32s32sIII12x")
_DEVICE_CAPS = 0x80000000
_CAPTURE, _CAPTURE_MPLANE = 0x1, 0x1000


@dataclass(frozen=True)
class Camera:
    """A node ``/dev/videoN``. ``name``: the driver's word for it, empty where /sys has none.

    ``kind``: ``csi`` where a Jetson's sensor stands behind it, which OpenCV reads through GStreamer only. ``captures``: it gives
    images rather than metadata, as far as can be seen. ``openable``: this user may read and write it.
    """

    path: str
    name: str
    index: int
    kind: Literal["v4l2", "csi"]
    captures: bool
    openable: bool


def list_cameras(root: Path = _ROOT) -> tuple[Camera, ...]:
    """Every video node, in the order of their numbers; ``root`` stands for ``/``."""
    folders = [root / "sys/class/video4linux", root / "dev"]
    found = {path.name for folder in folders for path in folder.glob("video*")}
    indices = sorted(int(name[5:]) for name in found if re.fullmatch(r"video\d{1,4}", name))
    return tuple(_look_at(root, index) for index in indices)


def find_holder(path: Path, root: Path = _ROOT) -> str | None:
    """Who has the device open, as ``name (process 12)``; None where nobody is seen to. Other users' processes may be hidden."""
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
    """What cameras there are, in a line for a person."""
    cameras = list_cameras(root)
    if not cameras:
        return "there is no /dev/video* on this machine: is the camera plugged in? (in a container: --device /dev/video0)"
    named = [f"{camera.path} ({camera.name})" if camera.name else camera.path for camera in cameras if camera.captures]
    return f"there are {', '.join(named)}" if named else f"there are only nodes of metadata: {cameras[0].path} and the like"


def _look_at(root: Path, index: int) -> Camera:
    node, told = root / f"dev/video{index}", root / f"sys/class/video4linux/video{index}"
    name = _text(told / "name")
    openable = os.access(node, os.R_OK | os.W_OK)
    captures = _asked(node) if openable else None
    if captures is None:
        # A USB camera's second node, of metadata, has the index 1 in its device.
        captures = _text(told / "index") in ("", "0")
    # The Tegra video input's words, for example "vi-output, imx219 9-0010".
    kind: Literal["v4l2", "csi"] = "csi" if name.startswith("vi-output") else "v4l2"
    return Camera(f"/dev/video{index}", name, index, kind, captures, openable)


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return ""


def _asked(node: Path) -> bool | None:
    """Whether the driver says that the node captures; None where it cannot be asked."""
    import fcntl

    with suppress(OSError):
        handle = os.open(node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return _captures(fcntl.ioctl(handle, _QUERYCAP, bytes(_ANSWER.size)))
        finally:
            os.close(handle)
    return None


def _captures(answer: bytes) -> bool:
    *_, device, node = _ANSWER.unpack(answer)
    return bool((node if device & _DEVICE_CAPS else device) & (_CAPTURE | _CAPTURE_MPLANE))
