"""How the tests build the smallest network of the CIFAR family. Does not know about fixtures."""

from __future__ import annotations

from pathlib import Path

from edge_resnet.core.records import ModelSpec, Precision, Preprocess, QuantRecipe
from edge_resnet.pipelines.build import BuildOptions


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
