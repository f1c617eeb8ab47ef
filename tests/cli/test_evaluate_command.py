"""``edge-resnet eval``: INT8 compared with FP32, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from refusals import assert_refused

from edge_resnet.artifact.folder import Artifact
from edge_resnet.runtime.backend import open_backend

Cli = Callable[..., Any]
Ints = npt.NDArray[np.int64]


@pytest.fixture(scope="module")
def named(tiny_artifacts: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Random images labelled with what FP32 predicts, with what the fake backend predicts, or with a class that neither does."""
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    artifact = tiny_artifacts["int8"]
    with open_backend(artifact, variant="reference") as fp32, open_backend(artifact, "fake") as fake:
        fp32_says, fake_says = fp32.infer(images).argmax(1), fake.infer(images).argmax(1)
    unused = int(np.bincount(fp32_says, minlength=10).argmin())  # an untrained network leaves classes out
    labels: dict[str, Ints] = {"fp32": fp32_says, "fake": fake_says, "neither": np.full(64, unused)}

    def path(who: str) -> str:
        file = tmp_path_factory.mktemp("named") / f"{who}.npz"
        np.savez(file, images=images, labels=labels[who])
        return str(file)

    return path


def sentence(cli: Cli, artifact: Artifact, data: str, *options: str) -> str:
    outcome = cli("eval", str(artifact.folder), "--data", data, "--allow-random", *options)
    assert outcome.code == 0, outcome.err
    lines = [line for line in outcome.out.splitlines() if "McNemar" in line]
    return lines[0] if lines else ""


def test_the_difference_in_words(cli: Cli, tiny_artifacts: dict[str, Artifact], named: Callable[[str], str]) -> None:
    """A difference below or above FP32 has its interval, and is called significant where chance does not explain it."""
    artifact = tiny_artifacts["int8"]
    below = sentence(cli, artifact, named("fp32"), "--backend", "fake")
    above = sentence(cli, artifact, named("fake"), "--backend", "fake")
    for text, where in ((below, "below"), (above, "above")):
        assert text.startswith("INT8 is ")
        assert f" points {where} FP32 (95 % interval " in text
        assert text.endswith("): significant on 64 images")
        amount, low, high = (float(text.split(mark)[1].split()[0].rstrip(",")) for mark in ("is ", "interval ", " to "))
        assert 0 < low < amount <= high


def test_a_difference_that_may_be_chance(cli: Cli, tiny_artifacts: dict[str, Artifact], named: Callable[[str], str]) -> None:
    """A sound INT8 does not differ significantly from FP32 on 64 images, and the interval holds zero."""
    text = sentence(cli, tiny_artifacts["int8"], named("fp32"))
    assert text.endswith("no significant difference on 64 images")
    low, high = (float(text.split(mark)[1].split()[0].rstrip(",")) for mark in ("interval ", " to "))
    assert low < 0 < high


def test_neither_right(cli: Cli, tiny_artifacts: dict[str, Artifact], named: Callable[[str], str]) -> None:
    """Where the two have the same accuracy the sentence says so."""
    text = sentence(cli, tiny_artifacts["int8"], named("neither"))
    assert text.startswith("INT8 is level with FP32 (")
    assert "p = 1)" in text


def test_fp32_is_not_compared_with_itself(cli: Cli, tiny_artifacts: dict[str, Artifact], named: Callable[[str], str]) -> None:
    """The FP32 graph on the reference backend gets no sentence; on another backend the sentence names it."""
    assert sentence(cli, tiny_artifacts["fp32"], named("fp32"), "--backend", "onnxruntime") == ""
    assert sentence(cli, tiny_artifacts["fp32"], named("fp32"), "--backend", "fake").startswith("FP32 on fake is ")


def test_random_weights_are_refused(cli: Cli, tiny_artifacts: dict[str, Artifact], named: Callable[[str], str]) -> None:
    """Without --allow-random it is an error with that hint, before anything is measured."""
    outcome = cli("eval", str(tiny_artifacts["fp32"].folder), "--data", named("fp32"))
    assert outcome.code == 2
    assert "random weights" in outcome.err
    assert "--allow-random" in outcome.err


def test_the_same_in_json(cli: Cli, tiny_artifacts: dict[str, Artifact], named: Callable[[str], str]) -> None:
    """--json holds the interval and the p-value under their documented keys, and no sentence."""
    folder = str(tiny_artifacts["int8"].folder)
    result = json.loads(cli("eval", folder, "--data", named("fp32"), "--allow-random", "--backend", "fake", "--json").out)
    low, high = result["drop_ci95"]
    assert low < result["fp32_top1"] - result["top1"] <= high
    assert 0 < result["mcnemar_p"] < 0.05


def test_results_per_image_are_saved_and_not_printed(
    cli: Cli, tiny_artifacts: dict[str, Artifact], named: Callable[[str], str], tmp_path: Path
) -> None:
    """--save writes them, and replaces a file only with --force; --json leaves them out."""
    path, folder = tmp_path / "eval.json", str(tiny_artifacts["fp32"].folder)
    arguments = ("eval", folder, "--data", named("fp32"), "--allow-random", "--save", str(path), "--json")
    printed = json.loads(cli(*arguments).out)
    kept = json.loads(path.read_text())
    assert (printed["right"], kept["right"]) == ("", "1" * 64)
    assert {**printed, "right": kept["right"]} == kept
    refused = cli(*arguments)
    assert (refused.code, "exists already" in refused.err) == (2, True)
    assert cli(*arguments, "--force").code == 0


def test_images_of_another_network_are_refused(cli: Cli, tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """Eight class folders that match and two that do not are no measurement: exit 2, and what is to be renamed."""
    names = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    for index, name in enumerate(names):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), (index, 0, 0)).save(tmp_path / "set" / name / "1.png")
    outcome = cli("eval", str(tiny_artifacts["fp32"].folder), "--data", str(tmp_path / "set"), "--allow-random")
    assert_refused(outcome, "others match: car, plane", "labels without a folder: airplane, automobile")


def test_a_result_at_chance_is_a_warning_and_a_result(
    cli: Cli, tiny_artifacts: dict[str, Artifact], named: Callable[[str], str]
) -> None:
    """The figure is printed, with what casts doubt on it on stderr; stdout stays JSON."""
    outcome = cli("eval", str(tiny_artifacts["int8"].folder), "--data", named("neither"), "--allow-random", "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out)["top1"] < 20
    assert "WARNING: top-1 of " in outcome.err
    assert "is not significantly above chance" in outcome.err
