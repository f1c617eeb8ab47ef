"""Experiments that train: their files, resuming, and their results."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.core.records import ModelSpec
from edge_resnet.studies.paper import ExperimentRequest, ExperimentResult, run_experiment
from edge_resnet.studies.paper import training as module
from edge_resnet.studies.paper.scale import paper_options
from edge_resnet.studies.paper.training import train_networks

Make = Callable[..., ExperimentRequest]
EIGHT = ModelSpec("cifar", 8, "A", classes=3, input_size=16)


def test_degradation_from_end_to_end(finished: tuple[ExperimentRequest, ExperimentResult], tmp_path: Path) -> None:
    """Four networks are trained, compared with the paper and drawn; differences are listed; the networks can be used again."""
    request, result = finished
    assert [row["network"] for row in result.tables[0].as_dicts()] == ["plain-8", "ResNet-8", "plain-14", "ResNet-14"]
    assert not result.interrupted
    assert len(result.verdicts) == 3
    assert {chart.name for chart in result.charts} == {"degradation-plain", "degradation-residual"}
    differences = {item.what: item.here for item in result.differences}
    assert differences["epochs"] == "2"
    assert differences["steps"] == "6"
    assert differences["depths"] == "8, 14"
    assert differences["training images"] == "90 of small"
    assert differences["classes"] == "3"
    assert "Degradation" in (request.output / "index.html").read_text(encoding="utf-8")
    again, _ = run_experiment(
        ExperimentRequest("responses", tmp_path / "r", data=request.data, classes=3, input_size=16, source=request.output)
    )
    assert [one["network"] for one in again.data["networks"]] == ["plain-8", "plain-14", "ResNet-8", "ResNet-14"]


def test_curves_are_the_logs(finished: tuple[ExperimentRequest, ExperimentResult]) -> None:
    """The errors of every epoch in the JSON are those in the training's log; no checkpoint is left."""
    request, result = finished
    for network in result.data["networks"]:
        folder = request.output / "networks" / network["network"].lower()
        with (folder / "log.csv").open(newline="", encoding="utf-8") as file:
            logged = [(float(row["train_error"]), float(row["test_error"])) for row in csv.DictReader(file)]
        assert logged == [(record["train_error"], record["test_error"]) for record in network["curves"]]
        assert not (folder / "checkpoint.safetensors").exists()


def test_finished_networks_are_not_trained_again(
    finished: tuple[ExperimentRequest, ExperimentResult], copied: ExperimentRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resuming a finished experiment trains nothing and gives the same result."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(module, "fit", never)
    again, _ = run_experiment(copied, resume=True)
    assert again.tables == finished[1].tables
    assert again.verdicts == finished[1].verdicts


class _Stopper:
    """A progress that interrupts at a step of one network."""

    def __init__(self, network: str, step: int) -> None:
        self.network, self.step = network, step

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage == self.network and done >= self.step:
            raise KeyboardInterrupt


def test_interrupted_and_resumed_is_the_same(training: Make, finished: tuple[ExperimentRequest, ExperimentResult]) -> None:
    """Ctrl-C in the second epoch keeps the complete epochs; after resuming, every network ends as without interruption."""
    whole = finished[1]
    request = training()
    part, page = run_experiment(request, progress=_Stopper("plain-14", 5))
    assert part.interrupted
    assert [network["finished"] for network in part.data["networks"]] == [True, True, False]
    assert "Incomplete:" in page.read_text(encoding="utf-8")
    assert len(part.data["networks"][-1]["curves"]) == 1
    rest, _ = run_experiment(request, resume=True)
    assert not rest.interrupted

    def errors(result: Any) -> list[list[tuple[float, float]]]:
        return [[(r["train_error"], r["test_error"]) for r in n["curves"]] for n in result.data["networks"]]

    assert errors(rest) == errors(whole)


def test_interrupted_before_anything(training: Make) -> None:
    """Ctrl-C in the first epoch of the first network is raised, and no folder is left."""
    request = training()
    with pytest.raises(KeyboardInterrupt):
        run_experiment(request, progress=_Stopper("plain-8", 1))
    assert not request.output.exists()


def test_twins_start_with_the_same_weights(training: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain network and its residual twin with option A start from the same weights: only the shortcut differs."""
    seen: dict[str, Any] = {}
    real = module.fit

    def spying(network: Any, *args: Any, folder: Path, **options: Any) -> Any:
        seen[folder.name] = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        return real(network, *args, folder=folder, **options)

    monkeypatch.setattr(module, "fit", spying)
    train_networks(training(epochs=1), [replace(EIGHT, plain=True), EIGHT])
    plain, residual = seen["plain-8"], seen["resnet-8"]
    assert all(np.array_equal(plain[name], residual[name]) for name in plain)


def test_deep_networks_warm_up(training: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """110 layers start at 0.01 as in section 4.2, 56 do not."""
    asked = training()
    assert module._options(asked, replace(EIGHT, depth=110)).warm_up == 0.01
    assert module._options(asked, replace(EIGHT, depth=56)).warm_up is None
    assert module._options(asked, EIGHT).seed == asked.seed


def test_shortcuts_compares_three_options(training: Make) -> None:
    """The plain network and options A, B and C of one depth; projections have more parameters."""
    result, _ = run_experiment(training("shortcuts", depths=(8,), epochs=1))
    rows = result.tables[0].as_dicts()
    assert [row["network"] for row in rows] == ["plain-8", "ResNet-8 A", "ResNet-8 B", "ResNet-8 C"]
    plain, a, b, c = (float(str(row["mparams"])) for row in rows)
    assert plain == a < b < c
    assert len(result.verdicts) == 3


def test_depth_goes_through_table_six(training: Make) -> None:
    """Each depth is compared with the one before, and with the paper if it has that depth."""
    result, _ = run_experiment(training("depth", depths=(14, 8, 20), epochs=1))
    rows = result.tables[0].as_dicts()
    assert [(row["network"], row["paper_test_error"]) for row in rows] == [
        ("ResNet-8", None),
        ("ResNet-14", None),
        ("ResNet-20", "8.75"),
    ]
    assert "110 layers 6.43 (6.61±0.16)" in result.charts[0].alt


@pytest.mark.parametrize(
    ("experiment", "changed", "message"),
    [
        ("degradation", {"depths": (8,)}, "one depth"),
        ("degradation", {"data": "", "test_data": ""}, "no train images"),
        ("degradation", {"test_data": ""}, "no test images"),
        ("degradation", {"depths": (9, 14)}, "6n"),
        ("shortcuts", {"depths": (8, 14)}, "one depth"),
        ("shortcuts", {"depths": (8,), "shortcut": "B"}, "A, B and C"),
        ("depth", {"family": "imagenet"}, "table 6"),
        ("degradation", {"training": None}, "no training"),
    ],
)
def test_what_is_refused(training: Make, experiment: str, changed: dict[str, Any], message: str) -> None:
    """An invalid request is a ConfigError with a hint, and leaves no folder."""
    request = training(experiment, **changed)
    with pytest.raises(ConfigError, match=message) as refused:
        run_experiment(request)
    assert refused.value.hint
    assert not request.output.exists()


def test_classes_that_do_not_fit(training: Make, small_set: Path, tmp_path: Path) -> None:
    """Labels beyond --classes, and a test set with a class that the training set does not have, are DataErrors."""
    with pytest.raises(DataError, match=r"knows 0\.\.1"):
        run_experiment(training(classes=2))
    more = tmp_path / "more.npz"
    np.savez(more, images=np.zeros((8, 32, 32, 3), np.uint8), labels=np.arange(8))
    with pytest.raises(DataError, match="class 3"):
        run_experiment(training(test_data=str(more)))


def test_class_folders_that_differ(training: Make, tmp_path: Path) -> None:
    """Two sets with the same number of classes but other names are refused: their indices would differ in meaning."""
    for part, names in (("train", ("cat", "dog")), ("val", ("cat", "fox"))):
        for name in names:
            (tmp_path / part / name).mkdir(parents=True)
            for count in range(2):
                Image.new("RGB", (32, 32)).save(tmp_path / part / name / f"{count}.png")
    with pytest.raises(DataError, match="different classes: only one of them has dog"):
        run_experiment(training(data=str(tmp_path / "train"), test_data=str(tmp_path / "val")))


def test_a_damaged_record_is_named(copied: ExperimentRequest) -> None:
    """For a damaged record of a finished network the hint says which folder to remove."""
    path = copied.output / "networks/resnet-8/network.json"
    path.write_text(json.dumps({"name": "ResNet-8"}), encoding="utf-8")
    with pytest.raises(DataError, match=r"network\.json") as refused:
        run_experiment(copied, resume=True)
    assert "resnet-8" in refused.value.hint


@pytest.mark.parametrize("family", ["cifar", "imagenet"])
def test_the_papers_recipe(family: Any) -> None:
    """Epochs and batch give the paper's iterations: 64k for CIFAR, 60 · 10⁴ for ImageNet; no Nesterov, no label smoothing."""
    options = paper_options(family)
    images, iterations = {"cifar": (50_000, 64_000), "imagenet": (1_281_167, 600_000)}[family]
    assert options.epochs * images / options.batch == pytest.approx(iterations, rel=0.002)
    assert (options.rate, options.momentum, options.weight_decay, options.nesterov) == (0.1, 0.9, 1e-4, False)
    assert options.label_smoothing == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twins_on_class_folders(training: Make, tmp_path: Path) -> None:
    """The networks of figure 4, with 18 and 34 layers, train on class folders of small images."""
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for place, name in enumerate(("dark", "light")):
            (tmp_path / part / name).mkdir(parents=True)
            for count in range(8):
                pixels = rng.integers(100 * place, 100 * place + 100, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{count}.png")
    options = replace(paper_options("imagenet"), epochs=1, batch=8)
    request = training(
        family="imagenet",
        depths=(),
        data=str(tmp_path / "train"),
        test_data=str(tmp_path / "val"),
        input_size=32,
        training=options,
    )
    result, _ = run_experiment(request)
    rows = result.tables[0].as_dicts()
    assert [row["network"] for row in rows] == ["plain-18", "ResNet-18", "plain-34", "ResNet-34"]
    assert [row["paper_test_error"] for row in rows] == ["27.94", "27.88", "28.54", "25.03"]
