"""From a URI to a source: every form, and every kind of error."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_resnet.core.errors import SourceError
from edge_resnet.streaming.sources import SCHEMES, open_source
from edge_resnet.streaming.sources.imagefiles import ImagesSource
from edge_resnet.streaming.sources.synthetic import SyntheticSource
from edge_resnet.streaming.sources.uri import parse_address
from edge_resnet.streaming.sources.video import VideoSource


def _assert_refused(uri: str, match: str) -> None:
    with pytest.raises(SourceError, match=match) as caught, open_source(uri) as source:
        list(source)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_every_line_of_the_table_leads_to_an_opener(scheme: str) -> None:
    """Each scheme names something that can be called with a URI."""
    module, name = SCHEMES[scheme].split(":")
    assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize(
    ("uri", "realtime", "live"),
    [
        ("synthetic://?frames=1", False, False),
        ("synthetic://?frames=1&fps=100", False, True),
        ("clip.avi", True, True),
        ("clip.avi", False, False),
    ],
)
def test_what_is_live(uri: str, realtime: bool, live: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source with a frame rate of its own is live; a file is if that is requested."""
    monkeypatch.chdir(tmp_path)
    writer = cv2.VideoWriter("clip.avi", cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    with open_source(uri, realtime=realtime) as source:
        assert source.live is live
        assert [frame.index for frame in source] == [0]


@given(
    st.text(max_size=40),
    st.sampled_from(["rtsp://", "http://", "https://", "csi://", "v4l2://", "camera:", "synthetic://", "video://", ""]),
)
@settings(max_examples=300)
@example("/\0", "v4l2://")
@example("/dev/%00", "v4l2://")
def test_any_text_is_a_source_or_refused(text: str, scheme: str) -> None:
    """No URI fails with anything but SourceError, with a hint (URIs that would reach a network or the disk excluded)."""
    uri = scheme + text
    assume(not (scheme in ("rtsp://", "http://", "https://") and _is_address(uri)))
    assume(scheme or not Path(text.replace("\0", "x")).exists())
    try:
        with open_source(uri):
            pass
    except SourceError as error:
        assert error.hint  # noqa: PT017 - either outcome is right, each with its own demand


def _is_address(uri: str) -> bool:
    try:
        parse_address(uri)
    except SourceError:
        return False
    return True


def test_files_by_name(tmp_path: Path) -> None:
    """An image, a folder, a glob and synthetic:// open what they name."""
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.png")
    for uri in (f"{tmp_path}/a.png", str(tmp_path), f"{tmp_path}/*.png", f"images://{tmp_path}/a.png"):
        with open_source(uri) as source:
            assert isinstance(source, ImagesSource)
            assert len(list(source)) == 1
    with open_source("synthetic://?frames=1") as source:
        assert isinstance(source, SyntheticSource)


@pytest.mark.parametrize(
    ("uri", "match"),
    [
        ("", "is empty"),
        ("nowhere.jpg", "does not exist"),
        ("nowhere.mp4", "does not exist"),
        ("nowhere/", "does not exist"),
        ("nowhere*.png", "no image matches"),
        ("ftp://x/y.mp4", "scheme ftp"),
        ("camera:front", "is not the name of a camera"),
        ("camera:9999", "is not the name of a camera"),
        ("v4l2://front", "is not the name of a camera"),
        ("rtsp://", "has no valid host"),
        ("HTTP://h:x/", "has no valid host"),
        ("csi://", "is not the name of a sensor"),
        ("synthetic://?fps=1001", "must lie in"),
        ("synthetic://100", "not valid"),
        ("synthetic://?frames=-1", "not valid"),
        ("synthetic://?speed=3", "not valid"),
        ("synthetic://?width=0", "must lie in"),
        ("synthetic://?height=100000", "must lie in"),
    ],
)
def test_what_is_not_there(uri: str, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is one line with a hint, exit code 2."""
    monkeypatch.chdir(tmp_path)
    _assert_refused(uri, match)


@pytest.mark.parametrize("uri", ["77", "camera:77", "/dev/video77", "v4l2:///dev/video77"])
def test_a_camera_that_is_not_there(uri: str) -> None:
    """Quickly, in one line that names the existing cameras, without messages of OpenCV itself."""
    code = (
        "import time; from edge_resnet.core.errors import SourceError; from edge_resnet.streaming.sources import open_source\n"
        "start = time.monotonic()\n"
        f"try:\n    open_source({uri!r})\n"
        "except SourceError as error:\n    print(error.message, '|', error.hint)\n"
        "assert time.monotonic() - start < 5"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("there is no camera /dev/video77 |")
    assert "/dev/video" in result.stdout
    assert result.stderr == ""


def test_without_opencv_images_still_work(tmp_path: Path) -> None:
    """The base install reads images; for a video the error names the command that installs OpenCV."""
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.mp4").write_bytes(b"x")
    code = (
        "import sys; sys.modules['cv2'] = None\n"
        "from edge_resnet.core.errors import MissingDependencyError; from edge_resnet.streaming.sources import open_source\n"
        f"print(len(list(open_source({str(tmp_path / 'a.png')!r}))))\n"
        f"try:\n    open_source({str(tmp_path / 'a.mp4')!r})\n"
        "except MissingDependencyError as error:\n    print(error.hint)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == "1"
    assert "edge-resnet[camera]" in result.stdout


def test_videos_by_suffix(tmp_path: Path) -> None:
    """A file with such a suffix is opened as a video; a folder of that name is a folder of images."""
    (tmp_path / "clip.mp4").mkdir()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "clip.mp4" / "a.png")
    with open_source(str(tmp_path / "clip.mp4")) as source:
        assert not isinstance(source, VideoSource)
        assert len(list(source)) == 1


@pytest.mark.parametrize("suffix", [".3gp", ".mts", ".m2ts", ".h264", ".hevc", ".MP4"])
def test_videos_of_phones_and_camcorders(suffix: str, tmp_path: Path) -> None:
    """Their files are taken for videos by their names, and OpenCV finds out the format by the content."""
    written = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(written), cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 48))
    for _ in range(3):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    path = written.rename(tmp_path / f"film{suffix}")
    with open_source(str(path)) as source:
        assert isinstance(source, VideoSource)
        assert len(list(source)) == 3
