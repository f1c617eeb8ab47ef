"""V4L2 cameras without one: names, refusals and their hints. What needs a real camera is marked."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from children import started

from edge_resnet.core.errors import SourceError
from edge_resnet.streaming.sources import open_source
from edge_resnet.streaming.sources.capture import OpenCvCapture
from edge_resnet.streaming.sources.live import LiveSource
from edge_resnet.streaming.sources.uri import Timeouts


def _refusal(uri: str) -> SourceError:
    with pytest.raises(SourceError) as caught:
        open_source(uri)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("uri", ["camera:front", "camera:9999", "v4l2://front", "v4l2://", "v4l2:///", "camera:-1"])
def test_what_names_no_camera(uri: str) -> None:
    """A name that is neither an index nor a path is refused."""
    assert "is not the name of a camera" in _refusal(uri).message


@pytest.mark.parametrize("uri", ["0?width=0", "camera:0?size=3", "v4l2:///dev/video0?fps=fast", "/dev/video0?width=99999"])
def test_options_are_checked_first(uri: str) -> None:
    """A wrong option is reported whether or not the camera exists."""
    assert "camera:0: " in _refusal(uri).message


@pytest.mark.parametrize(
    "uri", ["77", "camera:77?width=640", "/dev/video77", "v4l2:///dev/v4l/by-id/no-such", "/dev/edge-resnet/x"]
)
def test_no_such_device(uri: str) -> None:
    """The hint names the cameras that exist, or says that there is none."""
    error = _refusal(uri)
    assert "there is no camera /dev/" in error.message
    assert "/dev/video" in error.hint


def test_a_file_is_no_camera(tmp_path: Path) -> None:
    """Neither is a folder."""
    (tmp_path / "video0").write_bytes(b"")
    for path in (tmp_path, tmp_path / "video0"):
        assert "is not a camera" in _refusal(f"v4l2://{path}").message


@pytest.mark.alone  # another test may have the device open, which is told first
def test_a_device_that_gives_no_images() -> None:
    """A device of another kind is refused soon, without messages of OpenCV on stderr."""
    code = (
        "from edge_resnet.core.errors import SourceError; from edge_resnet.streaming.sources import open_source\n"
        "try:\n    open_source('v4l2:///dev/full')\nexcept SourceError as error:\n    print(error.message)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.startswith("/dev/full gives no images that OpenCV can read")
    assert result.stderr == ""


def test_a_device_in_use() -> None:
    """The error names the program that has it open."""
    with started(
        [sys.executable, "-c", "f = open('/dev/full'); print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        error = _refusal("v4l2:///dev/full")
        child.communicate(b"\n")
    assert "is in use" in error.message
    assert "process" in error.message
    assert "end that program" in error.hint


def test_a_device_that_may_not_be_opened() -> None:
    """The hint names the group that may open cameras."""
    closed = [path for path in Path("/dev").iterdir() if _is_closed_to_others(path)]
    if not closed:
        pytest.skip("every device here is everybody's")
    if os.getuid() == 0:
        os.setreuid(65534, -1)
        try:
            error = _refusal(f"v4l2://{closed[0]}")
        finally:
            os.setreuid(0, -1)
    else:
        error = _refusal(f"v4l2://{closed[0]}")
    assert "may not be opened by this user" in error.message
    assert "usermod -aG video" in error.hint


def _is_closed_to_others(path: Path) -> bool:
    status = path.stat()
    return stat.S_ISCHR(status.st_mode) and status.st_uid == status.st_gid == 0 and not status.st_mode & stat.S_IRWXO


def test_an_opencv_capture(tmp_path: Path) -> None:
    """Every frame of a real VideoCapture arrives with its time, and the source's error ends it."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for index in range(20):
        writer.write(np.full((48, 64, 3), 10 * index, np.uint8))
    writer.release()
    capture = OpenCvCapture(lambda: cv2.VideoCapture(str(path)), lambda: SourceError("unplugged", hint="plug it in"))
    with LiveSource("cam", capture, Timeouts(5, 5), "hint") as source:
        frames = list(islice(source, 20))
        with pytest.raises(SourceError, match="unplugged"):
            next(iter(source))
    np.testing.assert_allclose([frame.image.mean() for frame in frames], 10 * np.arange(20), atol=4)
    stamps = [frame.captured_ns for frame in frames]
    assert stamps == sorted(stamps)


@pytest.mark.camera
def test_a_real_camera() -> None:
    """Camera 0 gives thirty frames of the requested size, and can be reopened at once."""
    for _ in range(2):
        with open_source("camera:0?width=640&height=480&fps=30") as source:
            frames = list(islice(source, 30))
        assert {frame.image.shape for frame in frames} == {(480, 640, 3)}
