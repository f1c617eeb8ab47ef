"""Measures the tables in calibration/tables: the ranges of public checkpoints on named images, without any correction.

    python benchmarks/measure_tables.py --data DATA [--only resnet20-cifar] [-o calibration/tables]

DATA holds weights/ and images as the tests use them. Run it again if the recipes' method or the placement of Q/DQ changes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
from PIL import Image

from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.compiler.graph.qdq import measured_tensors
from edge_resnet.core.records import ModelSpec, Preprocess, default_spec
from edge_resnet.images.imageset import ImageSet, balanced_sample, batches, from_arrays, open_images
from edge_resnet.network import build_network, load_weights
from edge_resnet.network.export import Deployable, export
from edge_resnet.quantization.calibrate import CALIBRATION_BATCH, calibrate
from edge_resnet.quantization.recipes import load_recipe, recipe_for

TABLES = Path(__file__).resolve().parent.parent / "calibration" / "tables"


@dataclass(frozen=True)
class Case:
    """A checkpoint below ``weights/``, the set of images, and how many of them are drawn."""

    spec: ModelSpec
    preprocess: Preprocess
    weights: str
    source: Callable[[Path], ImageSet]
    images: int


def main() -> None:
    """Write a JSON file per network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", choices=[case.spec.name for case in CASES], action="append")
    parser.add_argument("-o", "--output", type=Path, default=TABLES)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        if arguments.only is None or case.spec.name in arguments.only:
            path = arguments.output / f"{case.spec.name}.json"
            path.write_text(json.dumps(measure(case, arguments.data), indent=2) + "\n", encoding="utf-8")
            print(path)


def measure(case: Case, data: Path) -> dict[str, object]:
    """One table and what it was measured on, as it is written."""
    source = case.source(data)
    images = source.subset(balanced_sample(source, case.images, seed=0))
    network = build_network(case.spec)
    weights = load_weights(network, case.spec, str(data / "weights" / case.weights))
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.onnx"
        export(Deployable(network, case.preprocess).eval(), case.spec.input_size, model)
        table = _table(case, model, images)
    return {
        "name": case.spec.name,
        "weights": weights,
        "images": f"{table.images} of {images.name}, seed 0",
        "tools": {package: version(package) for package in ("onnx", "onnxruntime", "pillow", "torch")},
        "table": asdict(table),
    }


def _table(case: Case, model: Path, images: ImageSet) -> CalibrationTable:
    recipe = load_recipe(recipe_for(case.spec.family)).recipe
    plain = replace(recipe, images=len(images), correction="none", exact_input=False, stem_share=0.0)
    preprocessed = (batch.images for batch in batches(images, case.preprocess, CALIBRATION_BATCH))
    return calibrate(model, measured_tensors(onnx.load(model)), preprocessed, plain)


def _cifar(data: Path) -> ImageSet:
    sheet = np.asarray(Image.open(data / "cifar10" / "train_00.webp").convert("RGB"))
    tiles = sheet.reshape(25, 32, 40, 32, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3)
    name = "the first 1,000 training images of CIFAR-10"
    return from_arrays(name, np.ascontiguousarray(tiles), np.arange(len(tiles)) % 10)


def _imagenet(data: Path) -> ImageSet:
    return replace(open_images(data / "imagenet" / "sample500.csv"), name="a sample of 500 images of ImageNet")


def _cifar_case(depth: int, weights: str) -> Case:
    spec = default_spec("cifar", depth)
    return Case(spec, Preprocess(32, 32), f"cifar10/{weights}", _cifar, 512)


def _imagenet_case(depth: int, weights: str) -> Case:
    return Case(ModelSpec("imagenet", depth), Preprocess(), f"imagenet/{weights}", _imagenet, 256)


CASES = (
    _cifar_case(20, "resnet20-12fca82f.th"),
    _cifar_case(32, "resnet32-d509ac18.th"),
    _imagenet_case(18, "resnet18_small_blocks_bnstats.safetensors"),
    _imagenet_case(50, "resnet50_large_blocks_bnstats.safetensors"),
)


if __name__ == "__main__":
    main()
