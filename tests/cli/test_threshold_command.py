"""``calibrate --threshold``, ``run`` with it, and ``eval --details``: end to end on a tiny network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from refusals import assert_refused
from tiny import as_trained

from edge_resnet.artifact.folder import Artifact, open_artifact
from edge_resnet.runtime.backend import open_backend

Cli = Callable[..., Any]


@pytest.fixture
def labelled(tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> tuple[str, str]:
    """An INT8 artifact and 256 images that it mostly classifies as labelled."""
    folder = as_trained(tiny_artifacts["int8"], tmp_path / "int8")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (256, 8, 8, 3), dtype=np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    with open_backend(open_artifact(folder), "onnxruntime") as network:
        labels = network.infer(pixels).argmax(axis=1)
    labels[rng.permutation(256)[:12]] = 9
    np.savez(tmp_path / "labelled.npz", images=pixels, labels=labels)
    Image.fromarray(pixels[0]).save(tmp_path / "one.png")
    return str(folder), str(tmp_path / "labelled.npz")


def test_found_stored_used_and_removed(cli: Cli, labelled: tuple[str, str]) -> None:
    """calibrate prints what it stores, run answers unknown by it unless told otherwise, and off removes it."""
    folder, data = labelled
    words = ("calibrate", folder, "--threshold", "20", "--val-data", data, "--backend", "onnxruntime")
    made = cli(*words)
    assert made.code == 0, made.err
    rule = open_artifact(Path(folder)).manifest.confidence
    assert rule is not None
    assert f"threshold    {rule.threshold:.4f}  {rule.answered} answers" in made.out
    assert max(map(len, made.out.splitlines())) <= 80
    again = cli(*words, "--json")
    assert json.loads(again.out)["confidence"]["threshold"] == rule.threshold

    def answer(*options: str) -> tuple[dict[str, Any], str]:
        done = cli("run", folder, "--source", "one.png", "--jsonl", "-", "--headless", "--backend", "onnxruntime", *options)
        assert done.code == 0, done.err
        return json.loads(done.out), done.err

    line, told = answer()
    assert f"the answer is unknown below {rule.threshold:.4g} (the artifact's threshold" in told
    is_known = line["top"][0]["probability"] >= rule.threshold
    assert line["answer"]["class_index"] == (line["top"][0]["class_index"] if is_known else -1)
    line, told = answer("--min-confidence", "0.9999")
    assert (line["answer"]["class_index"], line["answer"]["label"]) == (-1, "unknown")
    line, told = answer("--min-confidence", "0")
    assert line["answer"]["label"] == line["top"][0]["label"]
    assert "never unknown (as you say)" in told
    assert "no threshold" in cli("calibrate", folder, "--threshold", "off").out
    assert open_artifact(Path(folder)).manifest.confidence is None
    assert "unknown" not in answer()[1]


def test_what_is_refused(cli: Cli, labelled: tuple[str, str]) -> None:
    """Without labelled images, with another word, with a share that is none, and with options of other tasks."""
    folder, data = labelled
    assert_refused(cli("calibrate", folder, "--threshold", "1"), "needs labelled images", "--val-data")
    assert_refused(cli("calibrate", folder, "--threshold", "few", "--val-data", data), "percent or off")
    assert_refused(cli("calibrate", folder, "--threshold", "0", "--val-data", data), "between 0 and 100 percent")
    assert_refused(cli("calibrate", folder, "--threshold", "1", "--val-data", data), "256 labelled images are too few for 1 %")
    assert_refused(cli("calibrate", folder, "--threshold", "1", "--val-data", data, "--sweep"), "no meaning with --threshold")
    assert_refused(cli("calibrate", folder, "--simulate-int8", "--sweep", "--calib-data", data), "is for --threshold")
    assert_refused(cli("calibrate", folder, "--threshold", "20", "--val-data", "one.png"), "no labels")
    assert_refused(cli("run", folder, "--source", "one.png", "--min-confidence", "1"), "0..1")


def test_the_details_of_an_evaluation(cli: Cli, labelled: tuple[str, str]) -> None:
    """eval --details writes the page, the record and the charts, once unless forced; stdout stays JSON alone."""
    pytest.importorskip("matplotlib")
    folder, data = labelled
    words = ("eval", folder, "--data", data, "--backend", "onnxruntime", "--json", "--details", "page")
    done = cli(*words)
    assert done.code == 0, done.err
    result, details = json.loads(done.out), json.loads(Path("page/details.json").read_text(encoding="utf-8"))
    assert details["top1"] == result["top1"]
    assert {path.name for path in Path("page").iterdir()} == {
        "details.html", "details.json", "confusion.png", "confusion.svg", "reliability.png", "reliability.svg"
    }  # fmt: skip
    assert_refused(cli(*words), "holds details already", "--force")
    assert cli(*words, "--force").code == 0
