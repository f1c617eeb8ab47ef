"""timingcache.py: one file per device, written whole or not at all, and never a reason to fail."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from edge_resnet.compiler.tensorrt.timingcache import read_timings, timings_path, write_timings


def test_one_file_per_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """TensorRT, GPU and compute capability are in its name, in the user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = timings_path("10.3.0", "NVIDIA Orin (nvgpu)", "8.7")
    assert path == tmp_path / "edge-resnet/tensorrt/nvidia-orin-nvgpu-8.7-10.3.0.timings"
    assert len({path, timings_path("10.3.1", "NVIDIA Orin (nvgpu)", "8.7"), timings_path("10.3.0", "NVIDIA Thor", "11.0")}) == 3


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """The newest content, and no temporary file beside it; without a path nothing is read."""
    path = tmp_path / "a" / "cache"
    assert read_timings(path) == b""
    write_timings(path, b"one")
    write_timings(path, b"two")
    assert read_timings(path) == b"two"
    assert list(path.parent.iterdir()) == [path]
    assert read_timings(None) == b""


def test_a_bad_place_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A folder where the file should be, and a file where the folder should be."""
    (tmp_path / "file").write_bytes(b"")
    with caplog.at_level(logging.WARNING, logger="edge_resnet"):
        assert read_timings(tmp_path) == b""
        write_timings(tmp_path / "file" / "cache", b"x")
    assert "cannot be read" in caplog.text
    assert "cannot be written" in caplog.text
