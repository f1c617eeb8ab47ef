"""Cameras found in trees that imitate /sys and /dev, and the process that uses a device."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from children import started

from edge_resnet.device.cameras import _captures, describe_cameras, find_holder, list_cameras


def _node(root: Path, number: int, name: str = "", index: str = "0") -> None:
    node = root / f"dev/video{number}"
    node.parent.mkdir(exist_ok=True)
    node.write_bytes(b"")
    if name:
        told = root / f"sys/class/video4linux/video{number}"
        told.mkdir(parents=True)
        (told / "name").write_text(f"{name}\n")
        (told / "index").write_text(f"{index}\n")


def test_no_camera(tmp_path: Path) -> None:
    """A machine without cameras has none, and the line says what to check."""
    assert list_cameras(tmp_path) == ()
    assert "plugged in" in describe_cameras(tmp_path)


def test_cameras_in_order_of_their_numbers(tmp_path: Path) -> None:
    """A USB camera with its metadata node, a CSI sensor, and a camera without an entry in /sys."""
    _node(tmp_path, 10, "vi-output, imx219 9-0010")
    _node(tmp_path, 0, "HD Pro Webcam C920")
    _node(tmp_path, 1, "HD Pro Webcam C920", index="1")
    _node(tmp_path, 2)
    (tmp_path / "dev/videodev").write_bytes(b"")
    cameras = list_cameras(tmp_path)
    assert [camera.path for camera in cameras] == ["/dev/video0", "/dev/video1", "/dev/video2", "/dev/video10"]
    assert [camera.index for camera in cameras] == [0, 1, 2, 10]
    assert [camera.captures for camera in cameras] == [True, False, True, True]
    assert [camera.kind for camera in cameras] == ["v4l2", "v4l2", "v4l2", "csi"]
    assert cameras[0].name == "HD Pro Webcam C920"
    assert cameras[2].name == ""
    assert (
        describe_cameras(tmp_path)
        == "there are /dev/video0 (HD Pro Webcam C920), /dev/video2, /dev/video10 (vi-output, imx219 9-0010)"
    )


def test_a_camera_that_is_not_ours(tmp_path: Path) -> None:
    """A node that this user may not read and write is listed as not openable."""
    _node(tmp_path, 0, "cam")
    (tmp_path / "dev/video0").chmod(0)
    if os.getuid() == 0:
        os.setreuid(65534, -1)
        try:
            (camera,) = list_cameras(tmp_path)
        finally:
            os.setreuid(0, -1)
    else:
        (camera,) = list_cameras(tmp_path)
    assert not camera.openable


def test_a_device_that_left_dev(tmp_path: Path) -> None:
    """In a container /sys shows cameras that were not passed in: they are listed as not openable."""
    _node(tmp_path, 0, "cam")
    (tmp_path / "dev/video0").unlink()
    (camera,) = list_cameras(tmp_path)
    assert (camera.name, camera.openable) == ("cam", False)


@pytest.mark.parametrize(
    ("device", "node", "captures"),
    [
        (0x84A00001, 0x04200001, True),  # a USB camera's images (uvcvideo)
        (0x84A00001, 0x04A00000, False),  # its metadata
        (0x00000001, 0x00000000, True),  # an old driver, which knows no capabilities of nodes
        (0x84201000, 0x04201000, True),  # several planes
        (0x84208000, 0x04208000, False),  # a decoder
    ],
)
def test_what_a_driver_says(device: int, node: int, captures: bool) -> None:
    """The capabilities of the node count if the driver reports them (struct v4l2_capability)."""
    answer = struct.pack("=16s32s32sIII12x", b"uvcvideo", b"cam", b"usb-1", 0x60000, device, node)
    assert len(answer) == 104
    assert _captures(answer) is captures


def test_who_holds_a_device(tmp_path: Path) -> None:
    """The process that has it open is named with its number; our own is called this program; None without one."""
    device = tmp_path / "video0"
    device.write_bytes(b"")
    assert find_holder(device) is None
    with started(
        [sys.executable, "-c", f"f = open({str(device)!r}); print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        holder = find_holder(device)
        child.communicate(b"\n")
    assert holder is not None
    assert f"(process {child.pid})" in holder
    assert "python" in holder
    with device.open():
        assert find_holder(device) == "this program"


def test_without_opencv_and_pillow() -> None:
    """Listing cameras loads neither, since doctor does it too."""
    code = (
        "import sys; sys.modules['cv2'] = sys.modules['PIL'] = None\n"
        "from edge_resnet.device.cameras import list_cameras; list_cameras()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
