"""Wrong input at the door: each mistake is one of edge_resnet's errors, before anything is written, and says what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import edge_resnet as er
from edge_resnet.artifact.folder import Artifact


class Place:
    """What the calls below are about: two artifacts, images, and a folder to write to."""

    def __init__(self, artifacts: dict[str, Artifact], images: Path, folder: Path) -> None:
        self.fp32, self.int8 = artifacts["fp32"].folder, artifacts["int8"].folder
        self.images, self.folder, self.output = images, folder, folder / "output"

    def build(self, **options: Any) -> er.Artifact:
        """Build a small network."""
        return er.build(**{"output": self.output, "family": "cifar", "depth": 8, "weights": "random", **options})

    def quantize(self, **options: Any) -> er.Artifact:
        """Quantize the FP32 artifact."""
        given = {
            "calibration": self.images,
            "output": self.output,
            "overrides": er.RecipeOverrides(images=16),
            "allow_random": True,
        }
        return er.quantize(**{"artifact": self.fp32, **given, **options})

    def evaluate(self, **options: Any) -> er.Evaluation:
        """Evaluate the FP32 artifact."""
        return er.evaluate(**{"model": self.fp32, "data": self.images, "allow_random": True, **options})

    def finetune(self, **options: Any) -> Any:
        """Fine-tune the FP32 artifact."""
        return er.finetune(**{"artifact": self.fp32, "data": self.images, "output": self.output, "allow_random": True, **options})

    def model(self, **options: Any) -> er.Model:
        """The FP32 artifact on the fake backend."""
        return er.load(self.fp32, **{"backend": "fake", **options})

    def closed(self) -> er.Model:
        """The same, closed."""
        model = self.model()
        model.close()
        return model


@pytest.fixture
def place(tiny_artifacts: dict[str, Artifact], smooth_images: Path, tmp_path: Path) -> Place:
    """With a folder that is no artifact, and a recipe that names no images."""
    (tmp_path / "nothing").mkdir()
    (tmp_path / "plain.toml").write_text('method = "max"')
    return Place(tiny_artifacts, smooth_images, tmp_path)


Case = tuple[str, type[er.EdgeResnetError], Callable[[Place], Any]]

CASES: list[Case] = [
    # load
    ("load: a wrong path", er.ArtifactError, lambda at: er.load(at.folder / "missing", backend="fake")),
    ("load: a folder that is no artifact", er.ArtifactError, lambda at: er.load(str(at.folder / "nothing"), backend="fake")),
    ("load: a file", er.ArtifactError, lambda at: er.load(at.images, backend="fake")),
    ("load: an unknown backend", er.ConfigError, lambda at: er.load(at.fp32, backend="cuda")),
    ("load: an unknown variant", er.ConfigError, lambda at: er.load(at.fp32, variant="fast")),  # type: ignore[arg-type]
    ("load: a simulation in OpenVINO", er.ConfigError, lambda at: er.load(at.int8, backend="openvino", variant="simulated")),
    # build
    ("build: INT8 without images", er.CalibrationError, lambda at: at.build(precision="int8", recipe=at.folder / "plain.toml")),
    ("build: INT8 of random weights", er.CalibrationError, lambda at: at.build(precision="int8", calibration=at.images)),
    ("build: wrong images", er.DataError, lambda at: at.build(precision="int8", calibration="no/such", allow_random=True)),
    ("build: an unknown precision", er.ConfigError, lambda at: at.build(precision="int4")),
    ("build: an unknown family", er.ConfigError, lambda at: at.build(family="vgg")),
    ("build: an unknown shortcut", er.ConfigError, lambda at: at.build(shortcut="D")),
    ("build: an unknown depth", er.ConfigError, lambda at: at.build(depth=9)),
    ("build: an unknown backend", er.ConfigError, lambda at: at.build(backend="cuda")),
    ("build: an unknown recipe", er.ConfigError, lambda at: at.build(precision="int8", recipe="best")),
    ("build: batch 0", er.ConfigError, lambda at: at.build(batch=0)),
    ("build: a batch that falls", er.ConfigError, lambda at: at.build(batch=(8, 4, 1))),
    ("build: a batch of two numbers", er.ConfigError, lambda at: at.build(batch=(1, 4))),
    ("build: too few labels", er.ConfigError, lambda at: at.build(labels=["cat", "dog"], classes=3)),
    ("build: labels that are a file's name", er.ConfigError, lambda at: at.build(labels="names.txt")),
    ("build: labels that are a path", er.ConfigError, lambda at: at.build(labels=at.folder / "names.txt")),
    ("build: a budget for FP32", er.ConfigError, lambda at: at.build(max_drop=0.5)),
    ("build: weights that are not there", er.WeightsError, lambda at: at.build(weights=at.folder / "missing.pth")),
    ("build: an output that is there", er.BuildError, lambda at: at.build(output=at.folder / "nothing")),
    ("build: a mean beyond 1", er.ConfigError, lambda at: at.build(mean=(123.7, 116.3, 103.5))),
    ("build: a module of unsaid size", er.ConfigError, lambda at: er.build(model=nn.Linear(3, 2), normalise="unit")),
    ("build: no classifier", er.WeightsError, lambda at: er.build(model=nn.Linear(3, 2), normalise="unit", input_size=32)),
    ("build: an ONNX file that is not there", er.WeightsError, lambda at: er.build(onnx="missing.onnx", normalise="unit")),
    ("build: an ONNX file that is none", er.WeightsError, lambda at: er.build(onnx=at.images, normalise="unit")),
    ("build: a model and weights", er.ConfigError, lambda at: at.build(model=nn.Linear(3, 2))),
    ("build: a model and classes", er.ConfigError, lambda at: at.build(model=nn.Linear(3, 2), weights="default", classes=2)),
    # quantize, finetune, train, compile
    ("quantize: no images", er.CalibrationError, lambda at: at.quantize(calibration=None)),
    ("quantize: a wrong path", er.ArtifactError, lambda at: at.quantize(artifact=at.folder / "missing")),
    ("quantize: images of nothing", er.DataError, lambda at: at.quantize(calibration=at.folder / "nothing")),
    ("quantize: random weights", er.CalibrationError, lambda at: at.quantize(allow_random=False)),
    ("quantize: into itself", er.ConfigError, lambda at: at.quantize(output=at.fp32, force=True)),
    ("quantize: a method of no name", er.ConfigError, lambda at: at.quantize(overrides=er.RecipeOverrides(method="kl"))),  # type: ignore[arg-type]
    ("quantize: an unknown backend", er.ConfigError, lambda at: at.quantize(backend="cuda")),
    ("finetune: random weights", er.CalibrationError, lambda at: at.finetune(allow_random=False)),
    ("finetune: a share beyond 1", er.ConfigError, lambda at: at.finetune(distil=2.0)),
    ("finetune: a budget of nothing", er.ConfigError, lambda at: at.finetune(max_drop=0.5)),
    ("compile: a wrong path", er.ArtifactError, lambda at: er.compile(at.folder / "missing")),
    ("compile: an unknown backend", er.ConfigError, lambda at: er.compile(at.int8, backend="cuda")),
    ("stream: a path for the model", er.ConfigError, lambda at: er.stream(at.fp32, at.images)),  # type: ignore[arg-type]
    ("open_images: labels that are a file's name", er.ConfigError, lambda at: er.open_images(at.images, labels="names.txt")),
    # evaluate and open_images
    ("evaluate: random weights", er.ConfigError, lambda at: er.evaluate(at.fp32, at.images)),
    ("evaluate: a wrong path", er.DataError, lambda at: at.evaluate(data=at.folder / "missing")),
    ("evaluate: nothing to simulate", er.ConfigError, lambda at: at.evaluate(simulate_int8=True)),
    ("open_images: an empty folder", er.DataError, lambda at: er.open_images(at.folder / "nothing")),
    ("open_images: an unknown name", er.DataError, lambda at: er.open_images("cifar11")),
    ("open_images: an unknown part", er.DataError, lambda at: er.open_images("digits", split="val")),  # type: ignore[arg-type]
    # benchmark
    ("benchmark: no seconds", er.ConfigError, lambda at: er.benchmark(at.fp32, backend="fake", seconds=0)),
    ("benchmark: an unknown scenario", er.ConfigError, lambda at: er.benchmark(at.fp32, scenario="server")),  # type: ignore[arg-type]
    ("benchmark: batch 0", er.ConfigError, lambda at: er.benchmark(at.fp32, backend="fake", scenario="offline", batch=0)),
    ("benchmark: a batch of one image", er.ConfigError, lambda at: er.benchmark(at.fp32, backend="fake", batch=4)),
    ("benchmark: a closed model", er.BackendError, lambda at: er.benchmark(at.closed())),
    ("benchmark: the reference", er.ConfigError, lambda at: er.benchmark(at.model(variant="reference"))),
    ("benchmark: a simulation", er.ConfigError, lambda at: er.benchmark(at.model(variant="simulated"))),
    # stream
    ("stream: an unknown sink", er.ConfigError, lambda at: er.stream(at.model(), "synthetic://", sinks=["csv:out"])),
    ("stream: a sink twice", er.ConfigError, lambda at: er.stream(at.model(), "synthetic://", sinks=["web:0", "web:0"])),
    ("stream: no source", er.ConfigError, lambda at: er.stream(at.model(), [])),
    ("stream: a source that is not there", er.SourceError, lambda at: er.stream(at.model(), at.folder / "missing.mp4")),
    ("stream: a source of no kind", er.SourceError, lambda at: er.stream(at.model(), "ftp://host/clip")),
    ("stream: top 0", er.ConfigError, lambda at: er.stream(at.model(), "synthetic://", top=0)),
    ("stream: no frames", er.ConfigError, lambda at: er.stream(at.model(), "synthetic://", frames=0)),
    ("stream: negative frames", er.ConfigError, lambda at: er.stream(at.model(), "synthetic://", frames=-1)),
    ("stream: no time", er.ConfigError, lambda at: er.stream(at.model(), "synthetic://", duration_s=0.0)),
    ("stream: rate 0", er.ConfigError, lambda at: er.stream(at.model(), "synthetic://", rate=0.0)),
    ("stream: a rate of no number", er.ConfigError, lambda at: er.stream(at.model(), "synthetic://", rate=float("nan"))),
    ("stream: a closed model", er.BackendError, lambda at: er.stream(at.closed(), "synthetic://")),
]  # fmt: skip


@pytest.mark.parametrize(("error", "call"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_mistake_is_refused_with_a_hint(error: type[er.EdgeResnetError], call: Callable[[Place], Any], place: Place) -> None:
    """The right kind of error, a hint, and nothing written."""
    before = sorted(place.folder.rglob("*"))
    with pytest.raises(error) as raised:
        call(place)
    assert raised.value.message
    assert raised.value.hint
    assert sorted(place.folder.rglob("*")) == before


def test_a_backend_that_is_not_installed_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for by name it says how to install it; ``auto`` takes another one."""
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    for call in (
        lambda: er.load(place.fp32, backend="tensorrt"),
        lambda: er.evaluate(place.fp32, place.images, backend="tensorrt", allow_random=True),
        lambda: er.benchmark(place.fp32, backend="tensorrt"),
        lambda: er.compile(place.fp32, backend="tensorrt"),
        lambda: er.load(place.fp32),
    ):
        with pytest.raises(er.MissingDependencyError) as error:
            call()
        assert error.value.hint.startswith("pip install")


def test_an_error_is_also_pythons_own_kind(place: Place) -> None:
    """A wrong value is a ValueError, a missing package an ImportError: code that does not know edge_resnet handles them."""
    with pytest.raises(ValueError, match="variant"):
        er.load(place.fp32, variant="fast")  # type: ignore[arg-type]
    assert issubclass(er.MissingDependencyError, ImportError)


def test_a_damaged_artifact_is_not_loaded(tiny_int8: Path) -> None:
    """One byte more in the graph."""
    with (tiny_int8 / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(er.ArtifactError, match="changed") as error:
        er.load(tiny_int8, backend="fake")
    assert error.value.hint


def test_labels_of_another_network_are_refused(place: Place) -> None:
    """Class 10 of a network that has 0 to 9."""
    path = place.folder / "other.npz"
    np.savez(path, images=np.zeros((2, 8, 8, 3), np.uint8), labels=np.array([0, 10]))
    with pytest.raises(er.DataError, match=r"class 10") as error:
        er.evaluate(place.fp32, path, allow_random=True)
    assert error.value.hint
