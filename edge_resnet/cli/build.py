"""``edge-resnet build``. Knows the options and their defaults; the work is done by edge_resnet.pipelines.build."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edge_resnet.cli import options
from edge_resnet.cli.int8 import named_recipe, print_int8
from edge_resnet.cli.progress import progress_bars
from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.core.records import (
    FAMILIES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    BatchProfile,
    Family,
    ModelSpec,
    Precision,
    Preprocess,
)

if TYPE_CHECKING:
    from edge_resnet.artifact.folder import Artifact

__all__ = ["build"]


def build(
    depth: options.Depth = 50,
    family: options.Family = "imagenet",
    weights: options.Weights = "default",
    shortcut: options.Shortcut = None,
    plain: options.Plain = False,
    classes: options.Classes = None,
    labels: options.Labels = None,
    input_size: options.InputSize = None,
    mean: options.PerChannel = IMAGENET_MEAN,
    std: options.PerChannel = IMAGENET_STD,
    int8: options.Int8 = False,
    fp16: options.Fp16 = False,
    fp32: options.Fp32 = False,
    calib_data: options.CalibData = None,
    calib_recipe: options.CalibRecipe = None,
    calib_images: options.CalibImages = None,
    calib_method: options.Method = None,
    percentile: options.Percentile = None,
    seed: options.Seed = None,
    correct: options.Correct = None,
    max_drop: options.MaxDrop = None,
    val_data: options.ValData = None,
    allow_random: options.AllowRandom = False,
    backend: options.Backend = "auto",
    batch: options.Batch = "1",
    workspace: options.Workspace = None,
    output: options.Output = None,
    force: options.Force = False,
    json_output: options.Json = False,
) -> None:
    """Make an artifact: weights, verified ONNX, INT8 ranges, and an engine for this machine.

    edge-resnet build --depth 50 --int8

    edge-resnet build --depth 18 --int8 --calib-data photos/ --calib-images 256 -o artifacts/r18

    edge-resnet build --depth 50 --int8 --calib-data photos/ --max-drop 0.5 --val-data val/

    edge-resnet build --family cifar --depth 20 --int8

    edge-resnet build --family cifar --depth 32 --weights resnet32.th --fp32
    """
    precision = _precision(int8=int8, fp16=fp16, fp32=fp32)
    names = None if labels is None else _read_labels(labels)
    size = _default_size(family) if input_size is None else input_size
    spec = ModelSpec(family, depth, shortcut or FAMILY_SHORTCUT[family], plain, _width(family, classes, names), size)
    from edge_resnet.artifact.enginecache import EngineTuning
    from edge_resnet.pipelines import build as pipeline
    from edge_resnet.quantization.recipes import RecipeOverrides

    overrides = RecipeOverrides(calib_method, calib_images, percentile, seed, correct)
    named = named_recipe(calib_recipe, family, overrides)
    preprocess = Preprocess(_short_side(family, size), size, mean=mean, std=std)
    given = overrides != RecipeOverrides() or any(value is not None for value in (calib_data, calib_recipe, max_drop))
    calibrated = precision == "int8" and (given or not pipeline.has_own_ranges(spec, preprocess, weights))
    wanted = pipeline.BuildOptions(
        model=spec,
        preprocess=preprocess,
        precision=precision,
        weights=weights,
        output=output or Path("artifacts") / f"{spec.name}-{precision}",
        labels=names,
        calibration_data=(calib_data or named.data) if calibrated else None,
        recipe=named.recipe if calibrated else None,
        validation_data=val_data,
        max_drop=max_drop,
        batch=_batch_profile(batch),
        backend=backend,
        tuning=None if workspace is None else EngineTuning(workspace),
        force=force,
        allow_random=allow_random,
    )
    with progress_bars() as progress:
        artifact = pipeline.build(wanted, progress=progress)
    _report(artifact, json_output=json_output)


def _default_size(family: Family) -> int:
    return 224 if family == "imagenet" else 32


def _short_side(family: Family, size: int) -> int:
    """ImageNet's crop is 224 of 256 pixels; a CIFAR image is not cropped."""
    return size if family == "cifar" else round(size * 256 / 224)


def _width(family: Family, classes: int | None, names: tuple[str, ...] | None) -> int:
    """The width of the head: ``classes``, else one per label, else the family's own."""
    if classes is not None:
        return classes
    return len(names) if names else FAMILIES[family].classes


def _precision(*, int8: bool, fp16: bool, fp32: bool) -> Precision:
    if int8 + fp16 + fp32 > 1:
        raise ConfigError("--int8, --fp16 and --fp32 exclude each other", hint="choose one")
    return "int8" if int8 else "fp16" if fp16 else "fp32"


def _read_labels(path: Path) -> tuple[str, ...]:
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"labels cannot be read from {path}: {error}", hint="--labels takes a UTF-8 text file with a class name per line"
        ) from error
    if len(names) < 2:
        raise DataError(f"{path} names {len(names)} classes, at least 2 are needed", hint="--labels takes a class name per line")
    return names


def _batch_profile(text: str) -> BatchProfile:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(
            f"--batch takes one size or three, not {text}", hint="for example --batch 8 or --batch 1,8,32"
        ) from error
    if len(sizes) == 1:
        return BatchProfile(1, sizes[0], sizes[0])
    if len(sizes) != 3:
        raise ConfigError(f"--batch takes one size or three, not {text}", hint="for example --batch 8 or --batch 1,8,32")
    return BatchProfile(*sizes)


def _report(artifact: Artifact, *, json_output: bool) -> None:
    if json_output:
        from dataclasses import asdict

        typer.echo(json.dumps({"artifact": str(artifact.folder), **asdict(artifact.manifest)}))
        return
    size_mib = sum(entry.size for entry in artifact.manifest.files.values()) / 2**20
    typer.echo(f"built {artifact.folder}: {artifact.manifest.model.name} {artifact.manifest.precision}, {size_mib:.1f} MiB")
    print_int8(artifact)
    typer.echo(f"next: edge-resnet run {artifact.folder} --source IMAGE_OR_VIDEO")
