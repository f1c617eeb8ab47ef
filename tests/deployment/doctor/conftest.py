"""The Python that the tests of TensorRT's and TensorRT for RTX's checks examine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edge_resnet.core.packages import required_packages


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder at the front of this Python's path, which has no TensorRT, PyCUDA or cuda.core but what a test puts there."""
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    required_packages()  # read before the path to edge-resnet's own metadata is gone
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder), *(path for path in sys.path if "-packages" not in path)])
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder
