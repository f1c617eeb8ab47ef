"""``edge-resnet calibrate``. Knows the options, which of them go together, and how results are told; the work is other rooms'."""

from __future__ import annotations

import json
from collections.abc import Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_resnet.cli import options
from edge_resnet.cli.int8 import RecipeOverrides, named_recipe, tell_int8
from edge_resnet.cli.progress import progress_bars
from edge_resnet.core.errors import INTERRUPTED, ConfigError, SourceError

if TYPE_CHECKING:
    from edge_resnet.artifact.folder import Artifact
    from edge_resnet.core.records import QuantRecipe
    from edge_resnet.images.imageset import ImageSet
    from edge_resnet.quantization.int8 import Int8Options
    from edge_resnet.quantization.methods import SweepRow
    from edge_resnet.streaming.collect import SnapshotResult

__all__ = ["calibrate"]


_PANEL = "Collecting images"


#: As every command that is interrupted: main() says so.


FromCamera = Annotated[int | None, typer.Option(min=0, help="Index of the camera to collect from.", rich_help_panel=_PANEL)]


Source = Annotated[
    str | None, typer.Option(help="Or a video, images or synthetic://, from all of which is drawn.", rich_help_panel=_PANEL)
]


Count = Annotated[int | None, typer.Option(help="Images the folder shall hold (default: 256).", rich_help_panel=_PANEL)]


Every = Annotated[float | None, typer.Option(help="Seconds between images of a camera (default: 1).", rich_help_panel=_PANEL)]


MinChange = Annotated[
    float | None,
    typer.Option(help="Least difference to every other image, in grey levels (default: 2).", rich_help_panel=_PANEL),
]


def _one_source(from_camera: int | None, source: str | None) -> str | None:
    """The URI to collect from; None where neither option is given. Raises ConfigError where both are."""
    if from_camera is not None and source is not None:
        raise ConfigError("--from-camera and --source exclude each other", hint="choose one; a second run goes on in the folder")
    return source if from_camera is None else f"camera:{from_camera}"


def _collect(uri: str, folder: Path | None, options: dict[str, float | None], *, json_output: bool) -> None:
    """Collect and tell. ``options``: the fields of SnapshotOptions, None where the user says nothing.

    Ends with 130 where it is interrupted, the images kept and told.
    """
    from edge_resnet.streaming.collect import SnapshotOptions, collect_snapshots
    from edge_resnet.streaming.sources import open_source, public_uri

    if folder is None:
        raise ConfigError("the images need a folder", hint="-o images/")
    given = {name: value for name, value in options.items() if value is not None}
    wanted = SnapshotOptions(**given)  # type: ignore[arg-type]  # each option has its field's type
    with open_source(uri) as source:
        if "every_s" in given and not source.live:
            raise ConfigError("--every is for cameras: a file has no clock", hint="leave it out, frames of all of it are drawn")
        with progress_bars() as progress:
            result = collect_snapshots(source, folder, wanted, progress=progress)
    _tell(folder, result, wanted.count, json_output=json_output)
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)
    if result.total == 0:
        raise SourceError(f"{public_uri(uri)} gave no image worth keeping", hint="is there light, and no cap on the lens?")


def _tell(folder: Path, result: SnapshotResult, count: int, *, json_output: bool) -> None:
    if json_output:
        typer.echo(json.dumps({"folder": str(folder), **asdict(result)}))
        return
    reasons = {
        "like another": result.skipped_similar,
        "black": result.skipped_dark,
        "overexposed": result.skipped_bright,
        "of one colour": result.skipped_flat,
    }
    skipped = ", ".join(f"{number} {reason}" for reason, number in reasons.items() if number) or "none"
    typer.echo(f"{folder}: {result.total} images, {result.saved} of them new, in {result.seconds:.1f} s; passed over: {skipped}")
    if result.total < count:
        typer.echo(f"fewer than the {count} asked for: another run, also of another source, goes on")
    if result.total:
        typer.echo(f"next: edge-resnet calibrate ARTIFACT --calib-data {folder} -o artifacts/NAME")


_TOLD = "What is told of the images, instead of an artifact"

#: What the options of each half are called in Python; the rest belongs to the other half.
_COLLECTING = frozenset({"from_camera", "source", "count", "every", "min_change", "seed", "output", "json_output"})
_FOR_COLLECTING_ONLY = _COLLECTING - {"seed", "output", "json_output"}
#: What an artifact can be asked for, and the options that this leaves without a meaning.
_GATES = frozenset({"val_data", "max_drop", "force"})
_WITHOUT = {"sweep": _GATES | {"calib_method", "correct"}, "calib_report": _GATES | {"correct"}, "output": frozenset[str]()}

Newest = Annotated[Path | None, typer.Argument(help="Folder that build wrote (default: the newest under artifacts/).")]
Sweep = Annotated[bool, typer.Option("--sweep", help="How every method agrees with FP32.", rich_help_panel=_TOLD)]
Report = Annotated[
    bool, typer.Option("--calib-report", help="Whether the images suffice: coverage, convergence.", rich_help_panel=_TOLD)
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder for the artifact, or the images.", rich_help_panel="Output")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.", rich_help_panel="Output")]


def calibrate(
    context: typer.Context,
    artifact: Newest = None,
    from_camera: FromCamera = None,
    source: Source = None,
    count: Count = None,
    every: Every = None,
    min_change: MinChange = None,
    calib_data: options.CalibData = None,
    calib_recipe: options.CalibRecipe = None,
    calib_method: options.Method = None,
    calib_images: options.CalibImages = None,
    percentile: options.Percentile = None,
    seed: options.Seed = None,
    correct: options.Correct = None,
    val_data: options.ValData = None,
    max_drop: options.MaxDrop = None,
    allow_random: options.AllowRandom = False,
    sweep: Sweep = False,
    calib_report: Report = False,
    output: Output = None,
    force: options.Force = False,
    json_output: Json = False,
) -> None:
    """Collect calibration images from a camera, judge them, or make INT8 of any artifact with them.

    edge-resnet calibrate --from-camera 0 -o images/

    edge-resnet calibrate artifacts/resnet50-fp32 --calib-data images/ --sweep

    edge-resnet calibrate artifacts/resnet50-fp32 --calib-data images/ -o artifacts/resnet50-mine
    """
    uri = _one_source(from_camera, source)
    if uri is not None:
        _refuse(context.params.keys() - _COLLECTING, context, "does not go with collecting", "collect first, then --calib-data")
        _collect(uri, output, {"count": count, "every_s": every, "min_change": min_change, "seed": seed}, json_output=json_output)
        return
    _refuse(_FOR_COLLECTING_ONLY, context, "is for collecting images", "--from-camera 0 or --source URI collects them")
    _check_words(context)
    words = (calib_method, calib_images, percentile, seed, correct)
    request = _Request(artifact, calib_data, calib_recipe, words, val_data, max_drop, allow_random)
    if sweep:
        _sweep(request, json_output=json_output)
    elif calib_report:
        _report(request, json_output=json_output)
    elif output is not None:
        _make(request, output, force=force, json_output=json_output)


def _check_words(context: typer.Context) -> None:
    """One thing is asked for, with images to do it on, and nothing that belongs to another."""
    asked = [name for name in _WITHOUT if context.params[name]]
    if not asked:
        raise ConfigError("calibrate needs to know what to make", hint="-o artifacts/NAME, --sweep or --calib-report")
    if len(asked) > 1:
        raise ConfigError(f"{_word(asked[0])} and {_word(asked[1])} exclude each other", hint="run them one after another")
    _refuse(_WITHOUT[asked[0]], context, f"means nothing with {_word(asked[0])}", "leave it out")
    if context.params["calib_data"] is None and context.params["calib_recipe"] is None:
        # build may guess by the family of a network it knows; what an artifact will see, only its user knows.
        hint = "--calib-data FOLDER, or a --calib-recipe that names some"
        raise ConfigError("there are no images to calibrate on", hint=hint)


def _refuse(names: Set[str], context: typer.Context, reason: str, hint: str) -> None:
    for name, value in context.params.items():
        if name in names and value is not None and value is not False:
            raise ConfigError(f"{_word(name)} {reason}", hint=hint)


def _word(name: str) -> str:
    """What the user wrote for a parameter."""
    return {"artifact": "an artifact", "json_output": "--json"}.get(name, f"--{name.replace('_', '-')}")


@dataclass(frozen=True)
class _Request:
    """What the user said: the artifact's folder, the images, the recipe and the words that replace its values, and the
    budget."""

    artifact: Path | None
    data: str | None
    recipe: str | None
    words: RecipeOverrides
    validation: str | None = None
    max_drop: float | None = None
    allow_random: bool = False


def _sweep(request: _Request, *, json_output: bool) -> None:
    """Print how every method agrees with FP32 on images held out."""
    from edge_resnet.quantization.methods import best
    from edge_resnet.quantization.pipeline import sweep_artifact

    artifact, options, sample = _opened(request)
    with progress_bars() as progress:
        rows = sweep_artifact(artifact, sample, options.recipe, progress=progress)
    if json_output:
        chosen = rows.index(best(rows))
        typer.echo(json.dumps({"artifact": str(artifact.folder), "best": chosen, "rows": [asdict(row) for row in rows]}))
        return
    typer.echo(f"{len(sample)} images of {sample.name}, {rows[0].images} of them held out; TensorRT's INT8, nothing corrected")
    typer.echo(f"{'method':<20}{'agreement':>10}   {'95 % interval':<17}{'logit error':>12}")
    for row in rows:
        _tell_row(row, chosen=row is best(rows))


def _report(request: _Request, *, json_output: bool) -> None:
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


def _make(request: _Request, output: Path, *, force: bool, json_output: bool) -> None:
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


def _opened(request: _Request) -> tuple[Artifact, Int8Options, ImageSet]:
    from edge_resnet.quantization.int8 import draw_sample

    artifact, options = _artifact(request)
    return artifact, options, draw_sample(options)


def _artifact(request: _Request) -> tuple[Artifact, Int8Options]:
    """The artifact and what INT8 of it is made with."""
    from edge_resnet.artifact.folder import newest_artifact, open_artifact
    from edge_resnet.pipelines.engines import ARTIFACTS
    from edge_resnet.quantization.int8 import Int8Options

    artifact = open_artifact(request.artifact or newest_artifact(ARTIFACTS))
    data, recipe = _recipe(request, artifact)
    return artifact, Int8Options(data, recipe, request.validation, request.max_drop, request.allow_random)


def _recipe(request: _Request, artifact: Artifact) -> tuple[str, QuantRecipe]:
    """The images and the recipe."""
    named = named_recipe(request.recipe, artifact.manifest.model.family, request.words)
    data = request.data or named.data
    if data is None:
        raise ConfigError(
            f"recipe {named.name} names no images", hint="--calib-data FOLDER; calibrate --from-camera collects them"
        )
    return data, named.recipe


def _tell_row(row: SweepRow, *, chosen: bool) -> None:
    method = f"percentile {row.recipe.percentile:g}" if row.recipe.method == "percentile" else row.recipe.method
    interval = f"{row.ci95[0]:.2f} to {row.ci95[1]:.2f}"
    typer.echo(f"{method:<20}{row.agreement:>10.2f}   {interval:<17}{row.error:>12.5f}{'   chosen by auto' if chosen else ''}")
