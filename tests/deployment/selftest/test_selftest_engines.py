"""The checks of engines: a right cache passes, and a backend that opens what it must refuse fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edge_resnet.artifact.folder import Artifact, open_artifact
from edge_resnet.deployment.selftest import engines
from edge_resnet.deployment.selftest.check import NotHereError, WrongResultError
from edge_resnet.runtime.fake import FakeBackend
from edge_resnet.runtime.onnxruntime import OnnxRuntimeBackend


@pytest.fixture
def artifact(tiny_int8: Path) -> Artifact:
    """INT8, with its engine for this processor."""
    opened = open_artifact(tiny_int8)
    engines.compiled(opened, "onnxruntime")
    return opened


def test_an_engine_is_compiled_and_kept(artifact: Artifact, tmp_path: Path) -> None:
    """The second compile writes nothing, and other engines are not opened."""
    assert "a second compile" in engines.kept(artifact, "onnxruntime").detail
    found = engines.refused(artifact, "onnxruntime", tmp_path / "refused")
    assert found.detail == "engines of another network, with a changed byte are not opened"


def test_a_graph_that_is_run_as_it_is_needs_no_engine(tiny_artifacts: dict[str, Artifact]) -> None:
    """FP32 on a processor."""
    assert engines.compiled(tiny_artifacts["fp32"], "onnxruntime").detail == "the graph is run as it is"


def test_without_onnx_it_is_not_here(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is the command that brings it."""
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(NotHereError, match=r"edge-resnet\[compile\]"):
        engines.compiled(artifact, "onnxruntime")


def test_an_engine_that_is_written_again_is_found(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second compile that touches a file is no cache."""
    monkeypatch.setattr(engines, "_derive", lambda made, backend: (made.folder / "engines" / "new").mkdir())
    with pytest.raises(WrongResultError, match="wrote the engine again"):
        engines.kept(artifact, "onnxruntime")


def test_a_backend_that_opens_anything_is_found(artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine of another network that is opened is a wrong result, named."""

    class Careless(FakeBackend):
        engine_request = OnnxRuntimeBackend.engine_request

    monkeypatch.setattr(engines, "load_backend", lambda name: Careless)
    with pytest.raises(WrongResultError, match="an engine of another network is opened"):
        engines.refused(artifact, "onnxruntime", tmp_path / "refused")
