"""pretrained.py: the shipped checkpoint is complete, small, and matches its record."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter

from edge_resnet.artifact.folder import Artifact
from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.core.errors import CalibrationError, WeightsError
from edge_resnet.core.records import ModelSpec, Preprocess, QuantRecipe
from edge_resnet.images.imageset import ImageSet, from_arrays
from edge_resnet.measurement.accuracy import evaluate
from edge_resnet.network import build_network, load_weights, shipped_checkpoint
from edge_resnet.network.pretrained import Checkpoint
from edge_resnet.pipelines.build import BuildOptions, build, has_own_ranges
from edge_resnet.pipelines.engines import prepare_engine
from edge_resnet.quantization.int8 import add_shipped_int8

SPEC = ModelSpec("cifar", 20, "A", classes=10, input_size=32)
SQUARE = Preprocess(32, 32)


@pytest.fixture(scope="module")
def shipped() -> Checkpoint:
    found = shipped_checkpoint(SPEC)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """INT8 of the shipped weights, built without images; compiled for the CPU and for the simulation of TensorRT's INT8."""
    made = build(_options(tmp_path_factory.mktemp("shipped") / "int8"))
    for variant in ("native", "simulated"):
        prepare_engine(made, "onnxruntime", variant)
    return made


def _options(output: Path) -> BuildOptions:
    return BuildOptions(model=SPEC, preprocess=SQUARE, precision="int8", weights="default", output=output)


def _test_images(real_data: Path, sheets: int) -> ImageSet:
    paths = sorted((real_data / "cifar10").glob("test_[0-9]*.webp"))[:sheets]
    if len(paths) < sheets:
        pytest.skip(f"no CIFAR-10 sheets in {real_data}")
    tiles = [np.asarray(Image.open(path)).reshape(25, 32, 40, 32, 3).transpose(0, 2, 1, 3, 4) for path in paths]
    images = np.concatenate([tile.reshape(-1, 32, 32, 3) for tile in tiles])
    return from_arrays("cifar10-test", images, np.arange(len(images)) % 10)


def test_the_weights_are_small_and_the_ones_recorded(shipped: Checkpoint) -> None:
    """Below 1.2 MB, of the hash in the record, finite, and for the network in the record."""
    content = shipped.weights()
    assert len(content) < 1_200_000
    network = build_network(SPEC)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert load_weights(network, SPEC, "default") == shipped.model.weights
    assert not torch.equal(network.state_dict()["conv1.weight"], before["conv1.weight"])


@pytest.mark.parametrize(
    "other",
    [replace(SPEC, depth=32), replace(SPEC, shortcut="B"), replace(SPEC, plain=True), replace(SPEC, classes=100), ModelSpec()],
    ids=str,
)
def test_other_networks_have_none(other: ModelSpec) -> None:
    """The checkpoint is not loaded into a network with another depth, shortcut or head."""
    assert shipped_checkpoint(other) is None
    assert not has_own_ranges(other, SQUARE, "default")


def test_damaged_weights_are_refused(shipped: Checkpoint, tmp_path: Path) -> None:
    """A file with another hash is not loaded."""
    with resources.as_file(shipped.folder) as folder:
        copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    content = bytearray((copy / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "weights.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=r"CIFAR10_V2 .* is damaged"):
        replace(shipped, folder=copy).weights()


def test_the_log_is_the_one_of_the_record(shipped: Checkpoint) -> None:
    """The last line of the training's log has the accuracy in the record, and its options have a seed."""
    rows = list(csv.DictReader((shipped.folder / "log.csv").read_text(encoding="utf-8").splitlines()))
    assert 100 - float(rows[-1]["test_error"]) == pytest.approx(shipped.top1)
    assert isinstance(json.loads((shipped.folder / "result.json").read_text(encoding="utf-8"))["options"]["seed"], int)


def test_its_accuracy_is_at_least_90_percent(shipped: Checkpoint) -> None:
    """On the 10,000 test images."""
    assert shipped.top1 >= 90.0
    assert shipped.images == "10,000 test images of CIFAR-10"


def test_int8_needs_no_images(shipped: Checkpoint, artifact: Artifact) -> None:
    """A build without images uses the shipped ranges for the graph that it exports."""
    table = TypeAdapter(CalibrationTable).validate_json((shipped.folder / "calibration.json").read_text(encoding="utf-8"))
    assert dict(artifact.calibration().amax) == dict(table.amax)
    assert artifact.manifest.calibration == f"{table.images} images of {shipped.calibrated_on}, as shipped"
    assert artifact.manifest.model.weights == shipped.model.weights
    assert artifact.manifest.recipe == table.recipe


@pytest.mark.parametrize("weights", ["random", "own.safetensors"])
def test_other_weights_have_no_ranges(weights: str) -> None:
    """The shipped ranges are for the shipped weights only."""
    assert has_own_ranges(SPEC, SQUARE, "default")
    assert not has_own_ranges(SPEC, SQUARE, weights)
    assert not has_own_ranges(SPEC, replace(SQUARE, mean=(0.5, 0.5, 0.5)), "default")


def test_a_recipe_still_needs_images(tmp_path: Path) -> None:
    """Another recipe requires a calibration set."""
    with pytest.raises(CalibrationError, match="needs images"):
        build(replace(_options(tmp_path / "a"), recipe=QuantRecipe(method="max")))
    assert not (tmp_path / "a").exists()


def test_another_graph_is_refused(shipped: Checkpoint, artifact: Artifact, tmp_path: Path) -> None:
    """Ranges in which a tensor of the graph is missing are not used."""
    with resources.as_file(shipped.folder) as folder:
        copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    table = json.loads((copy / "calibration.json").read_text(encoding="utf-8"))
    table["amax"].pop("layer1.0.relu")
    (copy / "calibration.json").write_text(json.dumps(table), encoding="utf-8")
    shutil.copyfile(artifact.model_path, tmp_path / "model.onnx")
    with pytest.raises(CalibrationError, match=r"have none for the tensor layer1\.0\.relu"):
        add_shipped_int8(tmp_path, replace(shipped, folder=copy))


def test_a_thousand_test_images(real_data: Path, artifact: Artifact) -> None:
    """On the first thousand test images INT8 has 88 % accuracy and agrees with FP32 on 98 %."""
    found = evaluate(artifact, _test_images(real_data, 1), backend="onnxruntime")
    assert found.top1 >= 88
    assert found.agreement >= 98


@pytest.mark.slow
def test_all_test_images(real_data: Path, shipped: Checkpoint, artifact: Artifact) -> None:
    """On all test images FP32 has the recorded accuracy, and INT8 in TensorRT's form agrees on 99 %."""
    found = evaluate(artifact, _test_images(real_data, 10), backend="onnxruntime", simulate=True)
    assert found.fp32_top1 == pytest.approx(shipped.top1, abs=0.05)
    assert found.agreement >= 99
