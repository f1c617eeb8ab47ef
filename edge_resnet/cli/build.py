"""``edge-resnet build``. Knows the options and their defaults; the work is edge_resnet.build's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_resnet.cli.progress import progress_bars
from edge_resnet.errors import ConfigError, DataError
from edge_resnet.spec import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    BatchProfile,
    CalibMethod,
    Family,
    ModelSpec,
    Precision,
    Preprocess,
    QuantRecipe,
    Shortcut,
)

if TYPE_CHECKING:
    from edge_resnet.artifact import Artifact

__all__ = ["build"]

_NETWORK = "Network"
_INT8 = "Calibration"
_OUTPUT = "Output"


def build(
    depth: Annotated[
        int, typer.Option(help="Layers: 18, 34, 50, 101, 152, or 6n+2 with --family cifar.", rich_help_panel=_NETWORK)
    ] = 50,
    family: Annotated[Family, typer.Option(help="ImageNet's networks or CIFAR's.", rich_help_panel=_NETWORK)] = "imagenet",
    weights: Annotated[
        str,
        typer.Option(
            help="default (torchvision's V1), random, or a .pth, .pt, .th, .safetensors file.", rich_help_panel=_NETWORK
        ),
    ] = "default",
    shortcut: Annotated[
        Shortcut, typer.Option(help="A zero-padded, B projection where shapes change, C projections.", rich_help_panel=_NETWORK)
    ] = "B",
    plain: Annotated[bool, typer.Option("--plain", help="The twin without shortcuts.", rich_help_panel=_NETWORK)] = False,
    classes: Annotated[
        int | None, typer.Option(help="Width of the head (default: 1000, or 10 for cifar).", rich_help_panel=_NETWORK)
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="A text file with a class name per line.", rich_help_panel=_NETWORK)] = None,
    input_size: Annotated[
        int | None,
        typer.Option(help="Side of the square input in pixels (default: 224, or 32 for cifar).", rich_help_panel=_NETWORK),
    ] = None,
    mean: Annotated[
        tuple[float, float, float], typer.Option(help="Per channel, RGB, in 0..1.", rich_help_panel=_NETWORK)
    ] = IMAGENET_MEAN,
    std: Annotated[
        tuple[float, float, float], typer.Option(help="Per channel, RGB, in 0..1.", rich_help_panel=_NETWORK)
    ] = IMAGENET_STD,
    int8: Annotated[bool, typer.Option("--int8", help="Calibrated INT8.")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Half precision where the device has it.")] = False,
    fp32: Annotated[bool, typer.Option("--fp32", help="Full precision (the default).")] = False,
    calib_data: Annotated[
        str | None,
        typer.Option(help="Folder, CSV, .npz, or digits, cifar10, imagenette (default: the recipe's).", rich_help_panel=_INT8),
    ] = None,
    calib_images: Annotated[int | None, typer.Option(help="How many of them (default: 512).", rich_help_panel=_INT8)] = None,
    calib_method: Annotated[
        CalibMethod | None, typer.Option(help="How a range is read off the values (default: percentile).", rich_help_panel=_INT8)
    ] = None,
    percentile: Annotated[
        float | None, typer.Option(help="Share of the values inside the range, percent (default: 99.999).", rich_help_panel=_INT8)
    ] = None,
    seed: Annotated[int, typer.Option(help="Which of the images are drawn.", rich_help_panel=_INT8)] = 0,
    allow_random: Annotated[
        bool, typer.Option("--allow-random", help="Calibrate random weights, or on noise.", rich_help_panel=_INT8)
    ] = False,
    backend: Annotated[str, typer.Option(help="auto or onnxruntime.", rich_help_panel=_OUTPUT)] = "auto",
    batch: Annotated[str, typer.Option(help="Batch size, or smallest,usual,largest.", rich_help_panel=_OUTPUT)] = "1",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder (default: artifacts/NAME).", rich_help_panel=_OUTPUT)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an artifact that is there.", rich_help_panel=_OUTPUT)] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.", rich_help_panel=_OUTPUT)] = False,
) -> None:
    """Make an artifact: weights, verified ONNX, INT8 ranges, and an engine for this machine.

    edge-resnet build --depth 50 --int8

    edge-resnet build --depth 18 --int8 --calib-data photos/ --calib-images 256 -o artifacts/r18

    edge-resnet build --family cifar --depth 20 --shortcut A --weights resnet20.th --fp32
    """
    precision = _precision(int8=int8, fp16=fp16, fp32=fp32)
    names = None if labels is None else _read_labels(labels)
    size = input_size or (224 if family == "imagenet" else 32)
    count = classes or (len(names) if names else 1000 if family == "imagenet" else 10)
    spec = ModelSpec(family, depth, shortcut, plain, count, size)
    resize = size if family == "cifar" else round(size * 256 / 224)
    preprocess = Preprocess(resize=resize, crop=size, mean=mean, std=std)
    data, recipe = _recipe(family, calib_data, calib_images, calib_method, percentile, seed)
    target = output or Path("artifacts") / f"{spec.name}-{precision}"
    profile = _batch_profile(batch)

    from edge_resnet.build import BuildOptions
    from edge_resnet.build import build as build_artifact

    options = BuildOptions(
        model=spec,
        preprocess=preprocess,
        precision=precision,
        weights=weights,
        output=target,
        labels=names,
        calibration_data=data if precision == "int8" else None,
        recipe=recipe if precision == "int8" else None,
        batch=profile,
        backend=backend,
        force=force,
        allow_random=allow_random,
    )
    with progress_bars() as progress:
        artifact = build_artifact(options, progress=progress)
    _report(artifact, json_output=json_output)


def _precision(*, int8: bool, fp16: bool, fp32: bool) -> Precision:
    if int8 + fp16 + fp32 > 1:
        raise ConfigError("--int8, --fp16 and --fp32 exclude each other", hint="choose one")
    return "int8" if int8 else "fp16" if fp16 else "fp32"


def _read_labels(path: Path) -> tuple[str, ...]:
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"labels cannot be read from {path}: {error}", hint="a UTF-8 text file with a class name per line"
        ) from error
    if len(names) < 2:
        raise DataError(f"{path} names {len(names)} classes", hint="a UTF-8 text file with a class name per line")
    return names


def _recipe(
    family: Family, data: str | None, images: int | None, method: CalibMethod | None, percentile: float | None, seed: int
) -> tuple[str, QuantRecipe]:
    """The family's recipe with the user's words in place of its own."""
    from edge_resnet.recipes import load_recipe

    named = load_recipe(family)
    base = named.recipe
    if percentile is not None and method == "max":
        raise ConfigError("--percentile has no meaning with --calib-method max", hint="leave one of them out")
    recipe = QuantRecipe(
        method=method or base.method,
        images=base.images if images is None else images,
        seed=seed,
        percentile=base.percentile if percentile is None else percentile,
    )
    return data or named.data, recipe


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
    typer.echo(f"next: edge-resnet run {artifact.folder} --source IMAGE_OR_VIDEO")
