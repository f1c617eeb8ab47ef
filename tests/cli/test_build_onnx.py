"""`edge-resnet build --onnx`: what it prints, what the other commands show of the artifact, and how it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from foreignnets import onnx_of

Cli = Callable[..., Any]
BUILD = ("build", "--onnx", "joined.onnx", "--backend", "onnxruntime")


@pytest.fixture
def file(cli: Cli) -> Path:
    """A file in the working folder; not before ``cli``, which chooses that."""
    path = Path("joined.onnx")
    path.write_bytes(onnx_of("joined", 13))
    return path


def test_a_build_says_what_it_took_and_changed(cli: Cli, file: Path) -> None:
    """And the artifact lies where the file's name says; inspect shows the same."""
    outcome = cli(*BUILD, "--normalise", "unit")
    assert outcome.code == 0, outcome.err
    assert f"weights {file}" in outcome.out
    assert "mean, std as asked for, the rest is edge-resnet's default" in outcome.out
    assert "changed: opset 13 is converted to 17" in outcome.out
    shown = " ".join(cli("inspect", "artifacts/joined-fp32").out.split())
    assert "joined, from ONNX, 5 classes" in shown
    assert "opset 13 is converted to 17" in shown
    assert json.loads(cli("inspect", "artifacts/joined-fp32", "--json").out)["model"]["name"] == "joined"


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ((), "nothing says how the images"),
        (("--normalise", "unit", "--depth", "18"), "its own weights and shape"),
        (("--normalise", "unit", "--int8"), "needs images to calibrate on"),
        (("--normalise", "unit", "--input-size", "64"), "16 pixels, not 64"),
    ],
)
def test_refusals(cli: Cli, file: Path, words: tuple[str, ...], match: str) -> None:
    """Exit code 2, one line of error and one of hint, and nothing written."""
    outcome = cli(*BUILD, *words)
    assert outcome.code == 2
    assert match in " ".join(outcome.err.split())
    assert "hint: " in outcome.err
    assert not Path("artifacts").exists()
