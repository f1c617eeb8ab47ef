"""``edge-resnet build``. Knows the options and their defaults; the work is done by edge_resnet.pipelines.build."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from edge_resnet.artifact.card import described
from edge_resnet.cli import options
from edge_resnet.cli.int8 import print_int8
from edge_resnet.cli.progress import progress_bars
from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import Correction, Precision
from edge_resnet.core.text import printable

if TYPE_CHECKING:
    from edge_resnet.artifact.folder import Artifact

__all__ = ["build"]

_GIVEN_UP = "quick: weights are rounded to the nearest and nothing is learned; without --quick INT8 agrees with FP32 more often"


def build(
    depth: options.WeightsDepth = None,
    family: options.WeightsFamily = None,
    model: options.Model = None,
    onnx: options.Onnx = None,
    weights: options.Weights = "default",
    shortcut: options.Shortcut = None,
    plain: options.Plain = False,
    classes: options.Classes = None,
    labels: options.Labels = None,
    input_size: options.InputSize = None,
    resize: options.Resize = None,
    interpolation: options.Interpolation = None,
    normalise: options.Normalise = None,
    mean: options.WeightsMean = None,
    std: options.WeightsStd = None,
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
    quick: options.Quick = False,
    device: options.Device = None,
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

    edge-resnet build --depth 50 --int8 --quick

    edge-resnet build --weights hf://timm/resnet18.a1_in1k --int8

    edge-resnet build --model resnext50_32x4d --weights v2

    edge-resnet build --onnx squeezenet.onnx --normalise imagenet --int8 --calib-data photos/

    edge-resnet build --family cifar --depth 20 --int8

    edge-resnet build --family cifar --depth 32 --weights resnet32.th --fp32
    """
    precision = _precision(int8=int8, fp16=fp16, fp32=fp32)
    from edge_resnet.images.labelfile import read_labels

    names = None if labels is None else read_labels(labels)
    from edge_resnet import api
    from edge_resnet.artifact.enginecache import EngineTuning
    from edge_resnet.quantization.recipes import RecipeOverrides

    if device is not None and precision != "int8":
        raise ConfigError("--device is where INT8 learns", hint="add --int8, or leave --device out")
    correct = _correction(correct, quick=quick, precision=precision)
    overrides = RecipeOverrides(calib_method, calib_images, percentile, seed, correct)
    with progress_bars() as progress:
        artifact = api.build(
            output=output, depth=depth, model=model, onnx=onnx, normalise=normalise, family=family,
            shortcut=shortcut, plain=plain, classes=classes,
            input_size=input_size, resize=resize, interpolation=interpolation, mean=mean, std=std,
            weights=weights, labels=names, precision=precision, calibration=calib_data, recipe=calib_recipe,
            overrides=None if overrides == RecipeOverrides() else overrides,
            validation=val_data, max_drop=max_drop, batch=_batch_sizes(batch), backend=backend,
            tuning=None if workspace is None else EngineTuning(workspace), allow_random=allow_random, force=force,
            device=device or "auto", progress=progress,
        )  # fmt: skip
    if quick:
        typer.echo(_GIVEN_UP, err=True)
    _report(artifact, json_output=json_output)


def _correction(correct: Correction | None, *, quick: bool, precision: Precision) -> Correction | None:
    if not quick:
        return correct
    if precision != "int8":
        raise ConfigError("--quick is about INT8", hint="add --int8, or leave --quick out")
    if correct is not None:
        raise ConfigError("--quick stands for --correct bias", hint="leave one of them out")
    return "bias"


def _precision(*, int8: bool, fp16: bool, fp32: bool) -> Precision:
    if int8 + fp16 + fp32 > 1:
        raise ConfigError("--int8, --fp16 and --fp32 exclude each other", hint="choose one")
    return "int8" if int8 else "fp16" if fp16 else "fp32"


def _batch_sizes(text: str) -> int | tuple[int, int, int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(
            f"--batch takes one size or three, not {text}", hint="for example --batch 8 or --batch 1,8,32"
        ) from error
    if len(sizes) == 1:
        return sizes[0]
    if len(sizes) != 3:
        raise ConfigError(f"--batch takes one size or three, not {text}", hint="for example --batch 8 or --batch 1,8,32")
    return sizes[0], sizes[1], sizes[2]


def _report(artifact: Artifact, *, json_output: bool) -> None:
    if json_output:
        from dataclasses import asdict

        typer.echo(json.dumps({"artifact": str(artifact.folder), **asdict(artifact.manifest)}))
        return
    size_mib = sum(entry.size for entry in artifact.manifest.files.values()) / 2**20
    if artifact.manifest.origin is not None:
        typer.echo(f"weights {artifact.manifest.origin.address}; images: {described(artifact.manifest)}")
    for change in getattr(artifact.manifest.model, "changes", ()):
        typer.echo(printable(f"changed: {change}"))
    typer.echo(f"built {artifact.folder}: {artifact.manifest.model.name} {artifact.manifest.precision}, {size_mib:.1f} MiB")
    print_int8(artifact)
    typer.echo(f"next: edge-resnet run {artifact.folder} --source IMAGE_OR_VIDEO")
