"""CSI sensors: the pipeline's description, and refusals. test_gstreamer_sources.py runs the pipeline."""

from __future__ import annotations

import cv2
import pytest

from edge_resnet.core.errors import SourceError
from edge_resnet.streaming.sources import open_source
from edge_resnet.streaming.sources.capture import has_gstreamer
from edge_resnet.streaming.sources.csi import _OPTIONS, csi_pipeline
from edge_resnet.streaming.sources.uri import read_options


def _pipeline(query: str) -> str:
    return csi_pipeline(1, read_options("csi://1", query, _OPTIONS))


def test_the_defaults() -> None:
    """1080p at 30 frames per second, not scaled, only the newest frame."""
    assert _pipeline("") == (
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1920,height=1080,framerate=30/1,format=NV12 ! "
        "nvvidconv flip-method=0 ! video/x-raw,width=1920,height=1080,format=BGRx ! videoconvert ! "
        "video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"
    )


@pytest.mark.parametrize(
    ("query", "size"),
    [
        ("out_width=640", (640, 360)),
        ("out_height=270", (480, 270)),
        ("out_width=300&out_height=200", (300, 200)),
        ("width=1640&height=1232&out_width=333", (333, 250)),
        ("flip=2", (1920, 1080)),
        ("flip=3", (1080, 1920)),
        ("flip=1&out_width=540", (540, 960)),
    ],
)
def test_the_size_that_comes_out(query: str, size: tuple[int, int]) -> None:
    """One side alone keeps the aspect ratio; a quarter turn swaps the sides."""
    assert f"video/x-raw,width={size[0]},height={size[1]},format=BGRx" in _pipeline(query)


@pytest.mark.parametrize(
    ("uri", "match"),
    [
        ("csi://", "is not the name of a sensor"),
        ("csi://front", "is not the name of a sensor"),
        ("csi://0/x", "is not the name of a sensor"),
        ("csi://0?flip=8", "flip must lie in 0..7"),
        ("csi://0?fps=30!fakesink", "not valid"),
        ("csi://0?sensor=1", "not valid"),
    ],
)
def test_what_is_refused(uri: str, match: str) -> None:
    """Only numbers within their ranges get from a URI into the pipeline."""
    with pytest.raises(SourceError, match=match) as caught:
        open_source(uri)
    assert caught.value.hint


def test_without_gstreamer() -> None:
    """pip's OpenCV cannot read CSI cameras: the hint names the system's package."""
    if has_gstreamer(cv2):
        pytest.skip("this OpenCV is built with GStreamer")
    with pytest.raises(SourceError, match="built without GStreamer") as caught:
        open_source("csi://0")
    assert "python3-opencv" in caught.value.hint
