"""Deriving engines: once, for this machine, from the truth alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edge_resnet.artifact import MODEL, Artifact, open_artifact
from edge_resnet.backends import BACKENDS
from edge_resnet.compile import DERIVATIONS, compile_engine


def test_a_float_artifact_needs_none(tiny_artifacts: dict[str, Artifact]) -> None:
    """Where the backend runs the artifact's graph itself there is nothing to derive."""
    assert compile_engine(tiny_artifacts["fp32"]) is None
    assert compile_engine(tiny_artifacts["int8"], "fake") is None
    assert compile_engine(tiny_artifacts["int8"], variant="reference") is None


def test_what_is_cached_is_kept(tiny_int8: Path) -> None:
    """A second call neither derives nor writes again."""
    artifact = open_artifact(tiny_int8)
    folder = compile_engine(artifact)
    assert folder is not None
    before = (folder / MODEL).stat().st_mtime_ns
    assert compile_engine(artifact) == folder
    assert (folder / MODEL).stat().st_mtime_ns == before


def test_a_damaged_engine_is_derived_anew_and_equal(tiny_int8: Path) -> None:
    """Derivation is deterministic: the healed engine has the bytes of the first."""
    artifact = open_artifact(tiny_int8)
    folder = compile_engine(artifact)
    assert folder is not None
    first = (folder / MODEL).read_bytes()
    (folder / MODEL).write_bytes(b"damaged")
    assert compile_engine(artifact) == folder
    assert (folder / MODEL).read_bytes() == first


@pytest.mark.parametrize("variant", ["native", "simulated"])
def test_engines_derive_from_the_truth_alone(tiny_int8: Path, variant: str) -> None:
    """With the engines folder gone, the same engine comes back."""
    artifact = open_artifact(tiny_int8)
    folder = compile_engine(artifact, "onnxruntime", variant)  # type: ignore[arg-type]
    assert folder is not None
    first = (folder / MODEL).read_bytes()
    shutil.rmtree(tiny_int8 / "engines")
    again = compile_engine(artifact, "onnxruntime", variant)  # type: ignore[arg-type]
    assert again == folder
    assert (folder / MODEL).read_bytes() == first


def test_the_cpu_form_is_smaller(tiny_artifacts: dict[str, Artifact]) -> None:
    """Integers are stored: the engine takes less than half of the float graph."""
    artifact = tiny_artifacts["int8"]
    folder = compile_engine(artifact)
    assert folder is not None
    assert (folder / MODEL).stat().st_size < 0.5 * artifact.model_path.stat().st_size


def test_every_derivation_belongs_to_a_backend() -> None:
    """No line of the table is left over."""
    assert set(DERIVATIONS) <= set(BACKENDS)
