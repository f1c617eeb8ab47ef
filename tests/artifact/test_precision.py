"""An artifact of another precision is the same graph, with hashes checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_resnet.artifact.folder import Artifact
from edge_resnet.artifact.precision import with_precision
from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import BatchProfile


def test_precisions_are_derived_from_one_graph(tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """Other precision, other batches, the same graph, hashes checked; kept while it is the same, and INT8 needs ranges."""
    source, profile = tiny_artifacts["int8"], BatchProfile(1, 4, 8)
    for precision in ("fp32", "fp16", "int8"):
        made = with_precision(source, precision, profile, tmp_path / precision)
        assert (made.manifest.precision, made.manifest.batch) == (precision, profile)
        assert made.manifest.files["model.onnx"] == source.manifest.files["model.onnx"]
        assert ("calibration.json" in made.manifest.files) is (precision == "int8")
        assert (made.source_digest() == source.source_digest()) is (precision == "int8")
        stamp = (made.folder / "manifest.json").stat().st_mtime_ns
        assert with_precision(source, precision, profile, made.folder).manifest == made.manifest
        assert (made.folder / "manifest.json").stat().st_mtime_ns == stamp
    assert with_precision(source, "int8", BatchProfile(), tmp_path / "int8").manifest.batch == BatchProfile()
    with pytest.raises(ConfigError, match="no ranges"):
        with_precision(tiny_artifacts["fp32"], "int8", profile, tmp_path / "other")
