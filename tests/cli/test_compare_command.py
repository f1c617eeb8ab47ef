"""``edge-resnet compare``: its table, Markdown, JSON and exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_resnet.artifact.folder import Artifact
from edge_resnet.runtime.backend import open_backend

Cli = Callable[..., Any]


@pytest.fixture
def pair(cli: Cli, tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> tuple[str, str]:
    """Two evaluations on images that are labelled with what FP32 predicts: all correct, and one of the fake backend."""
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    artifact = tiny_artifacts["fp32"]
    with open_backend(artifact) as network:
        np.savez(tmp_path / "images.npz", images=images, labels=network.infer(images).argmax(1))
    paths = []
    for backend in ("onnxruntime", "fake"):
        paths.append(str(tmp_path / f"{backend}.json"))
        options = ("--data", str(tmp_path / "images.npz"), "--backend", backend, "--allow-random", "--save", paths[-1])
        outcome = cli("eval", str(artifact.folder), *options)
        assert outcome.code == 0, outcome.err
    return paths[0], paths[1]


def test_a_regression_is_exit_3(cli: Cli, pair: tuple[str, str]) -> None:
    """It names the figure and the paired interval; in the other direction nothing is worse."""
    old, new = pair
    outcome = cli("compare", old, new)
    assert outcome.code == 3
    line = outcome.out.splitlines()[0]
    assert line.startswith("top-1 ")
    assert ", paired)" in line
    assert line.endswith("worse")
    assert "something became worse" in outcome.out
    back = cli("compare", new, old)
    assert (back.code, "nothing became worse" in back.out) == (0, True)
    assert cli("compare", old, new, "--max-drop", "100").code == 0


def test_markdown_and_json(cli: Cli, pair: tuple[str, str]) -> None:
    """A table with a row per figure, and the same as JSON."""
    old, new = pair
    lines = cli("compare", old, new, "--markdown").out.splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    assert len(rows) == 2 + 3
    assert "**Something became worse.**" in lines
    found = json.loads(cli("compare", old, new, "--json").out)
    assert found["regressed"] is True
    assert [delta["verdict"] for delta in found["deltas"]] == ["worse", "same", "same"]


def test_a_missing_file(cli: Cli, pair: tuple[str, str]) -> None:
    """One line and a hint, exit 2."""
    outcome = cli("compare", pair[0], "nothing.json")
    assert outcome.code == 2
    assert [line.split(":")[0] for line in outcome.err.strip().splitlines()] == ["error", "hint"]
