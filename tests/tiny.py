"""How the tests build the smallest network of the CIFAR family. Does not know about fixtures."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.records import BatchProfile, ModelSpec, Precision, Preprocess, QuantRecipe
from edge_resnet.pipelines.build import BuildOptions, build

#: The node that ``build_kept`` keeps in high precision.
KEPT = "layer2.0.conv2"


def tiny_options(precision: Precision, output: Path, images: Path) -> BuildOptions:
    """How the tests build the smallest network of the family; INT8 is calibrated on ``images``."""
    return BuildOptions(
        model=ModelSpec(family="cifar", depth=8, shortcut="A", classes=10, input_size=32),
        preprocess=Preprocess(resize=32, crop=32),
        precision=precision,
        weights="random",
        output=output,
        calibration_data=str(images) if precision == "int8" else None,
        recipe=QuantRecipe(images=32) if precision == "int8" else None,
        allow_random=True,
    )


def as_trained(artifact: Artifact, folder: Path) -> Path:
    """A copy whose manifest says that its random weights were trained: its accuracy may be measured."""
    shutil.copytree(artifact.folder, folder)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["model"]["weights"] = f"sha256:{'0' * 64}"
    path.write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def build_kept(output: Path, pixels: Path) -> Artifact:
    """An INT8 artifact for batches up to 4, with corrected biases, an exact input, and one node in high precision."""
    recipe = QuantRecipe(images=32, correction="bias", exact_input=True, keep_high_precision=(KEPT,))
    return build(replace(tiny_options("int8", output, pixels), recipe=recipe, batch=BatchProfile(1, 2, 4)))
