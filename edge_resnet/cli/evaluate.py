"""``edge-resnet eval``. Knows the options and how a result is printed; the measuring is edge_resnet.measurement.accuracy's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_resnet.cli.progress import progress_bars
from edge_resnet.core.errors import ConfigError

if TYPE_CHECKING:
    from edge_resnet.measurement.accuracy import Evaluation

__all__ = ["evaluate"]

#: The p-value below which two networks count as told apart.
_SIGNIFICANT = 0.05


def evaluate(
    artifact: Annotated[
        Path | None, typer.Argument(help="Folder that build wrote (default: the newest under artifacts/).")
    ] = None,
    data: Annotated[str, typer.Option(help="Folder of class folders, CSV, .npz, or digits, cifar10, imagenette.")] = "",
    backend: Annotated[str, typer.Option(help="auto, tensorrt, openvino or onnxruntime.")] = "auto",
    simulate_int8: Annotated[bool, typer.Option("--simulate-int8", help="TensorRT's INT8, computed on this machine.")] = False,
    allow_random: Annotated[bool, typer.Option("--allow-random", help="Measure a network that was never trained.")] = False,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep the result as JSON, image by image, for compare.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.")] = False,
) -> None:
    """Measure top-1, top-5 and the agreement with FP32 on labelled images.

    edge-resnet eval artifacts/resnet50-int8 --data val/

    edge-resnet eval --data val.csv --simulate-int8 --json

    edge-resnet eval --data val/ --save new.json && edge-resnet compare old.json new.json
    """
    if not data:
        raise ConfigError("eval needs labelled images", hint="--data takes a folder of class folders, a CSV, an .npz or a name")
    from edge_resnet.core.files import check_free

    if save is not None:
        check_free(save, force=force)
    from edge_resnet.pipelines.engines import open_with_engine

    with progress_bars() as progress:
        opened = open_with_engine(artifact, backend, "simulated" if simulate_int8 else "native", progress=progress)
    if opened.manifest.model.weights == "random" and not allow_random:
        raise ConfigError(f"{opened.folder} has random weights: its accuracy says nothing", hint="--allow-random to measure it")

    from dataclasses import replace

    from edge_resnet.images.datasets import open_data
    from edge_resnet.measurement.accuracy import evaluate as measure
    from edge_resnet.measurement.accuracy import to_json, write_evaluation

    images = open_data(data, split="test", label_names=opened.labels)
    with progress_bars() as progress:
        result = measure(opened, images, backend=backend, simulate=simulate_int8, keep=save is not None, progress=progress)
    if save is not None:
        write_evaluation(save, result)
    if json_output:
        typer.echo(to_json(replace(result, right="")))
    else:
        _report(result)


def _report(result: Evaluation) -> None:
    how = f"{result.precision}{' simulated' if result.simulated else ''} on {result.backend}"
    typer.echo(f"{result.images} images, {how}, {result.seconds:.1f} s")
    typer.echo(f"top-1      {result.top1:6.2f} %   (95 % interval {result.ci95[0]:.2f} to {result.ci95[1]:.2f})")
    typer.echo(f"top-5      {result.top5:6.2f} %")
    typer.echo(f"FP32 top-1 {result.fp32_top1:6.2f} %   on the same images; the best class agrees on {result.agreement:.2f} %")
    if result.drop_ci95[0] < result.drop_ci95[1]:
        typer.echo(_comparison(result))
    if result.skipped:
        typer.echo(f"skipped    {len(result.skipped)} that cannot be read, the first {result.skipped[0]}")


def _comparison(result: Evaluation) -> str:
    """FP32 beside this in words: by how much they differ, and whether that can be told from chance."""
    name = f"FP32 on {result.backend}" if result.precision == "fp32" else result.precision.upper()
    drop, (low, high) = result.fp32_top1 - result.top1, result.drop_ci95
    where = "level with"
    if drop > 0:
        where = f"{drop:.2f} points below"
    elif drop < 0:
        where, low, high = f"{-drop:.2f} points above", -high, -low
    told = "told apart" if result.mcnemar_p < _SIGNIFICANT else "not told apart"
    spread = f"95 % interval {low:.2f} to {high:.2f}, McNemar p = {result.mcnemar_p:.2g}"
    return f"{name} is {where} FP32 ({spread}): {told} on {result.images} images"
