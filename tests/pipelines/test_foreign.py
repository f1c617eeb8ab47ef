"""Networks of other makers from file or module to artifact: built, opened, quantized; nothing about the images is guessed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from exported import image_batch
from foreignnets import CLASSES, SIZE, exported, network, onnx_of
from torch import nn

import edge_resnet as er
from edge_resnet.artifact.folder import Artifact, open_artifact
from edge_resnet.artifact.schema import ForeignSpec
from edge_resnet.core.records import NORMALISATIONS

LABELS = ["cat", "dog", "bird", "fish", "horse"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen images without labels."""
    path = tmp_path_factory.mktemp("images") / "images.npz"
    np.savez(path, images=image_batch(16, SIZE, seed=2), labels=np.arange(16) % CLASSES)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file of opset 13."""
    path = tmp_path_factory.mktemp("onnx") / "my net.onnx"
    path.write_bytes(onnx_of("joined", 13))
    return path


@pytest.fixture(scope="module")
def built(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The file in FP32. Not to be changed."""
    output = tmp_path_factory.mktemp("built") / "fp32"
    return er.build(onnx=file, normalise="imagenet", labels=LABELS, output=output, backend="onnxruntime")


def test_a_file_becomes_an_artifact(built: Artifact, file: Path) -> None:
    """Whose manifest says what it is and where it came from, and which predicts what torch does."""
    found = open_artifact(built.folder).manifest
    assert isinstance(found.model, ForeignSpec)
    assert (found.model.name, found.model.classes, found.model.input_size) == ("my-net", CLASSES, SIZE)
    assert found.origin is not None
    assert (found.origin.source, f"sha256:{found.origin.sha256}") == (file.name, found.model.weights)
    assert any("opset 13" in change for change in found.model.changes)
    pixels = image_batch(2, SIZE)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in NORMALISATIONS["imagenet"])
    with er.load(built, backend="onnxruntime") as model, torch.inference_mode():
        expected = network("joined")((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std).numpy()
        assert model.logits(list(pixels)) == pytest.approx(expected, abs=1e-4)
        assert model.labels == tuple(LABELS)


def test_the_card_and_the_manifest_name_the_changes(built: Artifact) -> None:
    """For people and for programs."""
    assert "opset 13 is converted" in (built.folder / "README.md").read_text(encoding="utf-8")
    manifest = json.loads((built.folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["schema_version"] == 3
    assert set(manifest["model"]) == {"name", "classes", "input_size", "weights", "changes"}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"classes": 1}, "classes must lie"),
        ({"input_size": "16"}, "model.input_size"),
        ({"name": "../up"}, "no network is named"),
        ({"depth": 50}, "model.depth"),
    ],
)
def test_a_manifest_that_was_changed_is_refused(built: Artifact, tmp_path: Path, change: dict[str, object], match: str) -> None:
    """The error names the field of a foreign network, which is never taken for a ResNet."""
    for path in built.folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    manifest["model"].update(change)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(er.ArtifactError, match=match):
        open_artifact(tmp_path)


def test_a_module_goes_the_same_way(built: Artifact, tmp_path: Path) -> None:
    """Its artifact answers as that of its file does."""
    module = network("joined")
    made = er.build(model=module, normalise="imagenet", input_size=SIZE, output=tmp_path / "module", backend="onnxruntime")
    assert made.manifest.model.name == "joined"
    pixels = list(image_batch(3, SIZE))
    with er.load(made, backend="onnxruntime") as one, er.load(built, backend="onnxruntime") as other:
        assert one.logits(pixels) == pytest.approx(other.logits(pixels), abs=1e-5)


@pytest.mark.parametrize("correction", ["none", "bias", "learned"])
def test_int8_answers_as_fp32(built: Artifact, images: Path, tmp_path: Path, correction: str) -> None:
    """Calibrated by each correction, on the CPU and in TensorRT's form."""
    overrides = er.RecipeOverrides(correction=correction, images=16, method="max")
    int8 = er.quantize(built, calibration=images, output=tmp_path / "int8", overrides=overrides, backend="onnxruntime")
    pixels = list(image_batch(8, SIZE, seed=2))
    with er.load(built, backend="onnxruntime") as fp32:
        wanted = fp32.logits(pixels)
    for variant in ("native", "simulated"):
        with er.load(int8, backend="onnxruntime", variant=variant) as model:
            found = model.logits(pixels)
        assert np.square(found - wanted).mean() < 0.02 * wanted.var()


def test_images_must_be_named_for_int8(file: Path, tmp_path: Path) -> None:
    """Nobody but the user knows on which images the network was trained."""
    with pytest.raises(er.CalibrationError, match="needs images"):
        er.build(onnx=file, normalise="imagenet", precision="int8", output=tmp_path / "int8", backend="onnxruntime")


def test_the_normalisation_is_not_guessed(file: Path, tmp_path: Path) -> None:
    """Nor the size of a module's images, and contradictions are refused."""
    module = network("joined")
    for given, match in (
        ({"onnx": file}, "nothing says how the images"),
        ({"model": module, "input_size": SIZE}, "nothing says how the images"),
        ({"model": module, "normalise": "imagenet"}, "how large"),
        ({"onnx": file, "normalise": "imagenet", "mean": (0.5, 0.5, 0.5)}, "stands for a mean"),
        ({"onnx": file, "normalise": "caffe"}, "no normalisation is called"),
        ({"onnx": file, "normalise": "unit", "classes": 7}, f"{CLASSES} classes, not 7"),
        ({"onnx": file, "normalise": "unit", "depth": 18}, "its own weights and shape"),
        ({"onnx": file, "normalise": "unit", "model": module}, "one network"),
        ({"onnx": file, "normalise": "unit", "input_size": 32}, "16 pixels, not 32"),
        ({"onnx": file, "normalise": "unit", "labels": ["a", "b"]}, "2 labels for 5 classes"),
    ):
        with pytest.raises(er.ConfigError, match=match) as error:
            er.build(**given, output=tmp_path / "no", backend="onnxruntime")
        assert error.value.hint
    assert not (tmp_path / "no").exists()


class _Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = network("joined")

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.inner(images)
        return logits, logits


def _hooked() -> nn.Module:
    module = network("joined")
    module.small.register_forward_hook(lambda part, given, out: out * 2)  # type: ignore[union-attr]
    return module


@pytest.mark.parametrize(
    ("module", "match"),
    [
        (_hooked, "hooks at small"),
        (_Pair, "returns a tuple"),
        (lambda: network("joined").double(), "float64"),
        (lambda: nn.Linear(3, 2), "fails on images"),
        (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), "no weights"),
        (lambda: nn.Conv2d(3, 4, 3), "not \\(N, classes\\)|for one image"),
    ],
)
def test_modules_that_are_refused(module: object, match: str, tmp_path: Path) -> None:
    """With what is wrong and what to do."""
    assert callable(module)
    with pytest.raises(er.WeightsError, match=match) as error:
        er.build(model=module(), normalise="unit", input_size=SIZE, output=tmp_path / "no", backend="onnxruntime")
    assert error.value.hint


def test_training_mode_is_said_and_left_as_it_was(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The export is that of evaluation mode: Dropout passes everything on."""
    module = network("plain").train()
    made = er.build(model=module, normalise="unit", input_size=SIZE, output=tmp_path / "made", backend="onnxruntime")
    assert module.training
    assert "training mode" in caplog.text
    assert made.manifest.export_max_abs < 1e-4


def test_probabilities_that_cannot_be_undone_are_refused(tmp_path: Path) -> None:
    """Where a softmax is not the last node, a second one would flatten every probability."""

    class Halved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network("plain")

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            twice: torch.Tensor = torch.softmax(self.inner(images), 1) * 0.5 + torch.softmax(self.inner(images), 1) * 0.5
            return twice

    path = tmp_path / "halved.onnx"
    path.write_bytes(exported(Halved()))
    with pytest.raises(er.WeightsError, match="probabilities already"):
        er.build(onnx=path, normalise="unit", output=tmp_path / "no", backend="onnxruntime")
