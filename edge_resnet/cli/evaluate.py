"""``edge-resnet eval``: parses the options and prints the result. Measuring is done in measurement.accuracy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_resnet.cli.opened import open_announced
from edge_resnet.cli.progress import progress_bars
from edge_resnet.core.errors import ConfigError
from edge_resnet.core.text import printable

if TYPE_CHECKING:
    from edge_resnet.measurement.accuracy import Evaluation

__all__ = ["evaluate"]


def evaluate(
    artifact: Annotated[Path | None, typer.Argument(help="Artifact folder (default: the newest one under artifacts/).")] = None,
    data: Annotated[str, typer.Option(help="Folder of class folders, CSV, .npz, or digits, cifar10, imagenette.")] = "",
    backend: Annotated[str, typer.Option(help="auto, tensorrt, tensorrt-rtx, openvino or onnxruntime.")] = "auto",
    simulate_int8: Annotated[bool, typer.Option("--simulate-int8", help="Simulate TensorRT's INT8 on this machine.")] = False,
    allow_random: Annotated[bool, typer.Option("--allow-random", help="Measure a network that was never trained.")] = False,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the result as JSON, with the results per image, for compare.")
    ] = None,
    details: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write a page: confused classes with images, accuracy per class, reliability, thresholds."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE, and what is in DIR.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.")] = False,
) -> None:
    """Measure top-1, top-5 and the agreement with FP32 on labelled images.

    edge-resnet eval artifacts/resnet50-int8 --data val/

    edge-resnet eval --data val.csv --simulate-int8 --json

    edge-resnet eval --data val/ --details page/

    edge-resnet eval --data val/ --save new.json && edge-resnet compare old.json new.json
    """
    if not data:
        raise ConfigError("eval needs labelled images", hint="--data takes a folder of class folders, a CSV, an .npz or a name")
    from edge_resnet.core.files import check_free

    if save is not None:
        check_free(save, force=force)
    if details is not None:
        from edge_resnet.measurement.details import check_details

        check_details(details, force=force)
    from edge_resnet import api
    from edge_resnet.measurement.accuracy import to_json, write_evaluation

    opened = open_announced(artifact, backend, "simulated" if simulate_int8 else "native")
    with progress_bars() as progress:
        result = api.evaluate(
            opened, data, backend=backend, simulate_int8=simulate_int8,
            per_image=save is not None, details=details, allow_random=allow_random, progress=progress,
        )  # fmt: skip
    if json_output:
        typer.echo(to_json(replace(result, right="")))
    else:
        for line in _lines(result):
            typer.echo(printable(line))
    if save is not None:  # last: a file that cannot be written must not take the result with it
        write_evaluation(save, result, force=force)
    if details is not None:
        typer.echo(printable(f"details: {details / 'details.html'}"), err=True)


def _lines(result: Evaluation) -> list[str]:
    """The result, about 80 columns wide; the comparison with FP32 is a sentence."""
    low, high = result.ci95
    precision = f"{result.precision}{' simulated' if result.simulated else ''}"
    lines = [
        f"{result.images} images, {precision} on {result.backend}, {result.seconds:.1f} s",
        f"top-1      {result.top1:6.2f} %   (95 % interval {low:.2f} to {high:.2f})",
        f"top-5      {result.top5:6.2f} %",
        f"FP32 top-1 {result.fp32_top1:6.2f} %   on the same images; both predict the same class for {result.agreement:.2f} %",
    ]
    if result.drop_ci95[0] < result.drop_ci95[1]:
        lines.append(_comparison(result))
    if result.skipped:
        lines.append(f"skipped    {len(result.skipped)} images that cannot be read, the first: {result.skipped[0]}")
    return lines


def _comparison(result: Evaluation) -> str:
    """How far the artifact is from FP32, and whether the difference is significant."""
    name = f"FP32 on {result.backend}" if result.precision == "fp32" else result.precision.upper()
    drop, (low, high) = result.fp32_top1 - result.top1, result.drop_ci95
    where = "level with"
    if drop > 0:
        where = f"{drop:.2f} points below"
    elif drop < 0:
        where, low, high = f"{-drop:.2f} points above", -high, -low
    verdict = "significant" if result.significant else "no significant difference"
    interval = f"95 % interval {low:.2f} to {high:.2f}, McNemar p = {result.mcnemar_p:.2g}"
    return f"{name} is {where} FP32 ({interval}): {verdict} on {result.images} images"
