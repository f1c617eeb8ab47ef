"""The cold start in a real process, and its failure."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edge_resnet.artifact.folder import MODEL, Artifact
from edge_resnet.measurement.bench.startup import measure_startup


def test_a_process_predicts(tiny_artifacts: dict[str, Artifact]) -> None:
    """The median of two starts is longer than the start of an interpreter, and the memory is at least NumPy's."""
    startup = measure_startup(tiny_artifacts["fp32"].folder, "fake", 8, 2)
    assert startup is not None
    assert 30 < startup.first_answer_ms < 60_000
    assert startup.peak_mib is not None
    assert startup.peak_mib > 15


def test_a_damaged_artifact_gives_none(
    tiny_artifacts: dict[str, Artifact], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A process that fails gives None, not a fast start; its last line is logged."""
    folder = Path(shutil.copytree(tiny_artifacts["fp32"].folder, tmp_path / "tiny"))
    (folder / MODEL).write_bytes(b"")
    assert measure_startup(folder, "fake", 1, 2) is None
    assert "model.onnx was changed after the build" in caplog.text
