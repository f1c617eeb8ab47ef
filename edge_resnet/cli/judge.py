"""``edge-resnet calibrate ARTIFACT``: pictures judged, or INT8 made with them, and how that is told. The work is other rooms'."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edge_resnet.cli.int8 import Words, named_recipe, tell_int8
from edge_resnet.cli.progress import progress_bars
from edge_resnet.core.errors import ConfigError
from edge_resnet.pipelines.engines import ARTIFACTS

if TYPE_CHECKING:
    from edge_resnet.artifact.folder import Artifact
    from edge_resnet.core.records import QuantRecipe
    from edge_resnet.images.imageset import ImageSet
    from edge_resnet.quantization.int8 import Int8Options
    from edge_resnet.quantization.methods import SweepRow

__all__ = ["Request", "make", "report", "sweep"]


@dataclass(frozen=True)
class Request:
    """What the user said: the artifact's folder, the pictures, the recipe and the words that replace its values, and the
    budget."""

    artifact: Path | None
    data: str | None
    recipe: str | None
    words: Words
    validation: str | None = None
    max_drop: float | None = None
    allow_random: bool = False


def sweep(request: Request, *, json_output: bool) -> None:
    """Print how every method agrees with FP32 on pictures held out."""
    from edge_resnet.quantization.methods import best
    from edge_resnet.quantization.pipeline import sweep_artifact

    artifact, options, sample = _opened(request)
    with progress_bars() as progress:
        rows = sweep_artifact(artifact, sample, options.recipe, progress=progress)
    if json_output:
        chosen = rows.index(best(rows))
        typer.echo(json.dumps({"artifact": str(artifact.folder), "best": chosen, "rows": [asdict(row) for row in rows]}))
        return
    typer.echo(f"{len(sample)} pictures of {sample.name}, {rows[0].images} of them held out; TensorRT's INT8, nothing corrected")
    typer.echo(f"{'method':<20}{'agreement':>10}   {'95 % interval':<17}{'logit error':>12}")
    for row in rows:
        _tell_row(row, chosen=row is best(rows))


def report(request: Request, *, json_output: bool) -> None:
    """Print coverage and convergence of the ranges."""
    from edge_resnet.quantization.coverage import render
    from edge_resnet.quantization.pipeline import report_artifact

    artifact, options, sample = _opened(request)
    with progress_bars() as progress:
        found = report_artifact(artifact, sample, options.recipe, progress=progress)
    if json_output:
        typer.echo(json.dumps({"artifact": str(artifact.folder), **asdict(found.report), "warnings": found.warnings}))
        return
    typer.echo(render(found.report))
    for line in found.warnings:
        typer.echo(f"warning: {line}", err=True)


def make(request: Request, output: Path, *, force: bool, json_output: bool) -> None:
    """Make an INT8 artifact of another's FP32 graph."""
    from edge_resnet.pipelines.requantize import requantize

    artifact, options = _artifact(request)
    with progress_bars() as progress:
        made = requantize(artifact, options, output, force=force, progress=progress)
    if json_output:
        typer.echo(json.dumps({"artifact": str(made.folder), **asdict(made.manifest)}))
        return
    typer.echo(f"made {made.folder}: {made.manifest.model.name} int8")
    tell_int8(made)
    typer.echo(f"next: edge-resnet eval {made.folder} --data LABELLED --simulate-int8")


def _opened(request: Request) -> tuple[Artifact, Int8Options, ImageSet]:
    from edge_resnet.quantization.int8 import draw_sample

    artifact, options = _artifact(request)
    return artifact, options, draw_sample(options)


def _artifact(request: Request) -> tuple[Artifact, Int8Options]:
    """The artifact and what INT8 of it is made with."""
    from edge_resnet.artifact.folder import newest_artifact, open_artifact
    from edge_resnet.quantization.int8 import Int8Options

    artifact = open_artifact(request.artifact or newest_artifact(ARTIFACTS))
    data, recipe = _recipe(request, artifact)
    return artifact, Int8Options(data, recipe, request.validation, request.max_drop, request.allow_random)


def _recipe(request: Request, artifact: Artifact) -> tuple[str, QuantRecipe]:
    """The pictures and the recipe."""
    named = named_recipe(request.recipe, artifact.manifest.model.family, request.words)
    data = request.data or named.data
    if data is None:
        raise ConfigError(
            f"recipe {named.name} names no pictures", hint="--calib-data FOLDER; calibrate --from-camera collects them"
        )
    return data, named.recipe


def _tell_row(row: SweepRow, *, chosen: bool) -> None:
    method = f"percentile {row.recipe.percentile:g}" if row.recipe.method == "percentile" else row.recipe.method
    interval = f"{row.ci95[0]:.2f} to {row.ci95[1]:.2f}"
    typer.echo(f"{method:<20}{row.agreement:>10.2f}   {interval:<17}{row.error:>12.5f}{'   chosen by auto' if chosen else ''}")
