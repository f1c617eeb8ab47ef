"""From a URI to a source: every form, and every way to be wrong."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_resnet.errors import SourceError
from edge_resnet.sources import SCHEMES, open_source
from edge_resnet.sources.images import ImagesSource
from edge_resnet.sources.synthetic import SyntheticSource
from edge_resnet.sources.video import VideoSource


def _assert_refused(uri: str, match: str) -> None:
    with pytest.raises(SourceError, match=match) as caught, open_source(uri) as source:
        list(source)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_every_line_of_the_table_leads_to_a_source(scheme: str) -> None:
    """Each scheme names a class with the protocol's members."""
    module, name = SCHEMES[scheme].split(":")
    kind = getattr(importlib.import_module(module), name)
    assert all(hasattr(kind, member) for member in ("__iter__", "close", "__enter__", "__exit__", "live"))


def test_files_are_told_apart_by_name(tmp_path: Path) -> None:
    """An image, a folder, a glob and synthetic:// open what they name."""
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.png")
    for uri in (f"{tmp_path}/a.png", str(tmp_path), f"{tmp_path}/*.png", f"images://{tmp_path}/a.png"):
        with open_source(uri) as source:
            assert isinstance(source, ImagesSource)
            assert len(list(source)) == 1
    with open_source("synthetic://?frames=1") as source:
        assert isinstance(source, SyntheticSource)


@pytest.mark.parametrize("scheme", ["rtsp", "csi", "http", "https", "RTSP"])
def test_schemes_to_come_say_so(scheme: str) -> None:
    """What the design names and this version lacks is not called unknown."""
    _assert_refused(f"{scheme}://somewhere/1", "not supported in this version")


@pytest.mark.parametrize(
    ("uri", "match"),
    [
        ("", "no name"),
        ("nowhere.jpg", "does not exist"),
        ("nowhere.mp4", "does not exist"),
        ("nowhere/", "does not exist"),
        ("nowhere*.png", "no image matches"),
        ("ftp://x/y.mp4", "scheme ftp"),
        ("camera:front", "names no camera"),
        ("camera:9999", "names no camera"),
        ("v4l2://front", "names no camera"),
        ("synthetic://100", "not understood"),
        ("synthetic://?frames=-1", "not understood"),
        ("synthetic://?speed=3", "not understood"),
        ("synthetic://?width=0", "must lie in"),
        ("synthetic://?height=100000", "must lie in"),
    ],
)
def test_what_is_not_there(uri: str, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is one line with a remedy, exit 2."""
    monkeypatch.chdir(tmp_path)
    _assert_refused(uri, match)


@pytest.mark.parametrize("uri", ["77", "camera:77", "/dev/video77", "v4l2:///dev/video77"])
def test_a_camera_that_is_not_there(uri: str) -> None:
    """Quickly, in one line that names the cameras there are, without a word from OpenCV itself."""
    code = (
        "import time; from edge_resnet.errors import SourceError; from edge_resnet.sources import open_source\n"
        "start = time.monotonic()\n"
        f"try:\n    open_source({uri!r})\n"
        "except SourceError as error:\n    print(error.message, '|', error.hint)\n"
        "assert time.monotonic() - start < 5"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("camera 77 gives no frames |")
    assert "/dev/video" in result.stdout
    assert result.stderr == ""


def test_without_opencv_images_still_work(tmp_path: Path) -> None:
    """The base install reads images; a video names the command that installs OpenCV."""
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.mp4").write_bytes(b"x")
    code = (
        "import sys; sys.modules['cv2'] = None\n"
        "from edge_resnet.errors import MissingDependencyError; from edge_resnet.sources import open_source\n"
        f"print(len(list(open_source({str(tmp_path / 'a.png')!r}))))\n"
        f"try:\n    open_source({str(tmp_path / 'a.mp4')!r})\n"
        "except MissingDependencyError as error:\n    print(error.hint)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == "1"
    assert "edge-resnet[camera]" in result.stdout


def test_videos_are_told_by_their_ending(tmp_path: Path) -> None:
    """A file of that ending is opened as a video; a folder of that name is a folder of images."""
    (tmp_path / "clip.mp4").mkdir()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "clip.mp4" / "a.png")
    with open_source(str(tmp_path / "clip.mp4")) as source:
        assert not isinstance(source, VideoSource)
        assert len(list(source)) == 1
