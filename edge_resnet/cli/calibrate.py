"""``edge-resnet calibrate``: collect calibration images, assess them, make an INT8 artifact with them, or find a threshold.

Knows the options, which of them go together, and how results are printed; the work is done by other wings.
"""

from __future__ import annotations

import json
from collections.abc import Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_resnet.cli import options
from edge_resnet.cli.int8 import print_int8
from edge_resnet.cli.progress import progress_bars
from edge_resnet.cli.threshold import ThresholdRequest, calibrate_threshold
from edge_resnet.core.errors import INTERRUPTED, ConfigError, SourceError
from edge_resnet.core.text import printable

if TYPE_CHECKING:
    from edge_resnet.artifact.folder import Artifact
    from edge_resnet.images.calibration import CalibrationImages
    from edge_resnet.quantization.int8 import Int8Options
    from edge_resnet.quantization.methods import SweepRow
    from edge_resnet.quantization.recipes import RecipeOverrides
    from edge_resnet.streaming.collect import SnapshotResult

__all__ = ["calibrate"]


#: Parameters for collecting images; all others are for calibrating.
_COLLECTING = frozenset({"from_camera", "source", "count", "every", "min_change", "seed", "output", "json_output"})
_ONLY_COLLECTING = _COLLECTING - {"seed", "output", "json_output"}
#: What an artifact can be used for, and the parameters that have no meaning then.
_GATES = frozenset({"val_data", "max_drop", "force"})
#: Parameters that --threshold takes, and those of them that nothing else takes.
_THRESHOLD = frozenset({"artifact", "threshold", "val_data", "backend", "simulate_int8", "json_output"})
_ONLY_THRESHOLD = frozenset({"backend", "simulate_int8"})
_WITHOUT = {
    "sweep": _GATES | {"calib_method", "correct", "device"},
    "calib_report": _GATES | {"correct", "device"},
    "output": frozenset[str](),
}

_COLLECT = "Collecting images"
_ASSESS = "Assessing images instead of making an artifact"
_OUTPUT = "Output"
_UNKNOWN = "Threshold for unknown"

NewestArtifact = Annotated[Path | None, typer.Argument(help="Artifact folder (default: the newest under artifacts/).")]
FromCamera = Annotated[int | None, typer.Option(min=0, help="Collect from the camera with this index.", rich_help_panel=_COLLECT)]
Source = Annotated[
    str | None, typer.Option(help="Collect from a stream, a video, images or synthetic://.", rich_help_panel=_COLLECT)
]
Count = Annotated[int | None, typer.Option(help="Images to have in the folder (default: 256).", rich_help_panel=_COLLECT)]
Every = Annotated[float | None, typer.Option(help="Seconds between images of a camera (default: 1).", rich_help_panel=_COLLECT)]
MinChange = Annotated[
    float | None,
    typer.Option(help="Minimum difference to all other images, in grey levels (default: 2).", rich_help_panel=_COLLECT),
]
SweepFlag = Annotated[bool, typer.Option("--sweep", help="Compare all calibration methods with FP32.", rich_help_panel=_ASSESS)]
ReportFlag = Annotated[bool, typer.Option("--calib-report", help="Show whether the images suffice.", rich_help_panel=_ASSESS)]
Threshold = Annotated[
    str | None,
    typer.Option(
        metavar="PERCENT",
        help="Find on --val-data below which probability an answer is unknown, so that at most PERCENT of the others are wrong, "
        "and store it in the artifact; off removes it.",
        rich_help_panel=_UNKNOWN,
    ),
]
Backend = Annotated[
    str | None, typer.Option(help="Classify with auto, tensorrt, openvino, onnxruntime, …", rich_help_panel=_UNKNOWN)
]
Simulate = Annotated[
    bool, typer.Option("--simulate-int8", help="Simulate TensorRT's INT8 on this machine.", rich_help_panel=_UNKNOWN)
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder of the new artifact, or of the images.", rich_help_panel=_OUTPUT)
]
Json = Annotated[bool, typer.Option("--json", help="Print only JSON on stdout.", rich_help_panel=_OUTPUT)]


def calibrate(
    context: typer.Context,
    artifact: NewestArtifact = None,
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
    device: options.Device = None,
    val_data: options.ValData = None,
    max_drop: options.MaxDrop = None,
    allow_random: options.AllowRandom = False,
    sweep: SweepFlag = False,
    calib_report: ReportFlag = False,
    threshold: Threshold = None,
    backend: Backend = None,
    simulate_int8: Simulate = False,
    output: Output = None,
    force: options.Force = False,
    json_output: Json = False,
) -> None:
    """Collect calibration images, assess them, make an INT8 artifact of any other, or find when to answer unknown.

    edge-resnet calibrate --from-camera 0 -o images/

    edge-resnet calibrate artifacts/resnet50-fp32 --calib-data images/ --sweep

    edge-resnet calibrate artifacts/resnet50-fp32 --calib-data images/ -o artifacts/resnet50-mine

    edge-resnet calibrate artifacts/resnet50-mine --threshold 1 --val-data labelled/
    """
    if threshold is not None:
        _refuse(context.params.keys() - _THRESHOLD, context, "has no meaning with --threshold", "leave it out")
        calibrate_threshold(ThresholdRequest(artifact, threshold, val_data, backend or "auto", simulate_int8, json_output))
        return
    _refuse(_ONLY_THRESHOLD, context, "is for --threshold", "add --threshold PERCENT, or leave it out")
    from edge_resnet.quantization.recipes import RecipeOverrides

    uri = _one_source(from_camera, source)
    if uri is not None:
        reason = "cannot be combined with collecting images"
        _refuse(context.params.keys() - _COLLECTING, context, reason, "collect first, then use --calib-data")
        _collect(_Collection(uri, output, count, every, min_change, seed), json_output=json_output)
        return
    _refuse(_ONLY_COLLECTING, context, "is for collecting images", "--from-camera 0 or --source URI collects them")
    _check_options(context)
    overrides = RecipeOverrides(calib_method, calib_images, percentile, seed, correct)
    request = _Request(artifact, calib_data, calib_recipe, overrides, val_data, max_drop, allow_random, device or "auto")
    if sweep:
        _sweep(request, json_output=json_output)
    elif calib_report:
        _report(request, json_output=json_output)
    elif output is not None:
        _make(request, output, force=force, json_output=json_output)


def _one_source(from_camera: int | None, source: str | None) -> str | None:
    """The URI to collect from, None if neither option is given. Raises ConfigError if both are."""
    if from_camera is not None and source is not None:
        raise ConfigError("--from-camera and --source exclude each other", hint="choose one; a second run adds to the folder")
    return source if from_camera is None else f"camera:{from_camera}"


def _check_options(context: typer.Context) -> None:
    """Raise ConfigError unless one thing is requested, with images to do it on, and no option that has no meaning for it."""
    requested = [name for name in _WITHOUT if context.params[name]]
    if not requested:
        raise ConfigError(
            "calibrate needs to know what to make", hint="-o artifacts/NAME, --sweep, --calib-report or --threshold"
        )
    if len(requested) > 1:
        pair = f"{_option(requested[0])} and {_option(requested[1])}"
        raise ConfigError(f"{pair} exclude each other", hint="run them one after another")
    _refuse(_WITHOUT[requested[0]], context, f"has no meaning with {_option(requested[0])}", "leave it out")
    if context.params["calib_data"] is None and context.params["calib_recipe"] is None:
        # build may assume the images of the family's recipe; only the user knows what an artifact's camera will see.
        hint = "--calib-data FOLDER, or a --calib-recipe that names a set"
        raise ConfigError("there are no images to calibrate on", hint=hint)


def _refuse(names: Set[str], context: typer.Context, reason: str, hint: str) -> None:
    for name, value in context.params.items():
        if name in names and value is not None and value is not False:
            raise ConfigError(f"{_option(name)} {reason}", hint=hint)


def _option(name: str) -> str:
    """A parameter as the user writes it."""
    return {"artifact": "an artifact", "json_output": "--json"}.get(name, f"--{name.replace('_', '-')}")


@dataclass(frozen=True)
class _Collection:
    """What to collect images from and into which folder, and the values of SnapshotOptions, None for its defaults."""

    uri: str
    folder: Path | None
    count: int | None
    every_s: float | None
    min_change: float | None
    seed: int | None


def _collect(collection: _Collection, *, json_output: bool) -> None:
    """Collect images and print the result. An interruption keeps the images and ends with exit code 130."""
    from edge_resnet.streaming.collect import SnapshotOptions, collect_snapshots
    from edge_resnet.streaming.sources import open_source, public_uri

    folder = collection.folder
    if folder is None:
        raise ConfigError("the images need a folder", hint="-o images/")
    values = {name: getattr(collection, name) for name in ("count", "every_s", "min_change", "seed")}
    given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    wanted = SnapshotOptions(**given)
    with open_source(collection.uri) as source:
        if collection.every_s is not None and not source.live:
            raise ConfigError(
                "--every is for cameras: a file has no clock", hint="leave it out, frames are drawn from the whole file"
            )
        with progress_bars() as progress:
            result = collect_snapshots(source, folder, wanted, progress=progress)
    _print_collected(folder, result, wanted.count, json_output=json_output)
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)
    if result.total == 0:
        raise SourceError(
            f"{public_uri(collection.uri)} gave no usable image", hint="is there light, and is the cap off the lens?"
        )


def _print_collected(folder: Path, result: SnapshotResult, count: int, *, json_output: bool) -> None:
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
    typer.echo(f"{folder}: {result.total} images, {result.saved} of them new, in {result.seconds:.1f} s; skipped: {skipped}")
    if result.total < count:
        typer.echo(f"fewer than the {count} asked for: run it again, also from another source, to add more")
    if result.total:
        typer.echo(f"next: edge-resnet calibrate ARTIFACT --calib-data {folder} -o artifacts/NAME")


@dataclass(frozen=True)
class _Request:
    """The user's arguments: the artifact's folder, the images, the recipe with its overrides, and the budget."""

    artifact: Path | None
    data: str | None
    recipe: str | None
    overrides: RecipeOverrides
    validation: str | None = None
    max_drop: float | None = None
    allow_random: bool = False
    device: str = "auto"


@dataclass(frozen=True)
class _Job:
    """The opened artifact, and how INT8 of it is made."""

    artifact: Artifact
    options: Int8Options

    def open_images(self) -> CalibrationImages:
        """The images to calibrate on."""
        from edge_resnet.quantization.int8 import open_calibration

        return open_calibration(self.options, self.artifact.manifest.preprocess)


def _sweep(request: _Request, *, json_output: bool) -> None:
    """Print how well every method agrees with FP32 on held-out images."""
    from edge_resnet.quantization.methods import best
    from edge_resnet.quantization.pipeline import sweep_artifact

    job = _open(request)
    with job.open_images() as images, progress_bars() as progress:
        rows = sweep_artifact(job.artifact, images, job.options.recipe, progress=progress)
    chosen = best(rows)
    if json_output:
        listed = [asdict(row) for row in rows]
        typer.echo(json.dumps({"artifact": str(job.artifact.folder), "best": rows.index(chosen), "rows": listed}))
        return
    typer.echo(f"{len(images)} images of {images.name}, {rows[0].images} of them held out; TensorRT's INT8, nothing corrected")
    typer.echo(f"{'method':<20}{'agreement':>10}   {'95 % interval':<17}{'logit error':>12}")
    for row in rows:
        _print_row(row, chosen=row is chosen)


def _report(request: _Request, *, json_output: bool) -> None:
    """Print coverage and convergence of the ranges."""
    from edge_resnet.quantization.coverage import render
    from edge_resnet.quantization.pipeline import report_artifact

    job = _open(request)
    with job.open_images() as images, progress_bars() as progress:
        report = report_artifact(job.artifact, images, job.options.recipe, progress=progress)
    if json_output:
        record = {"artifact": str(job.artifact.folder), **asdict(report.coverage), "warnings": report.warnings}
        typer.echo(json.dumps(record))
        return
    typer.echo(printable(render(report.coverage), lines=True))
    for line in report.warnings:
        typer.echo(printable(f"warning: {line}"), err=True)


def _make(request: _Request, output: Path, *, force: bool, json_output: bool) -> None:
    """Make an INT8 artifact from another artifact's FP32 graph."""
    from edge_resnet import api

    job = _open(request)
    with progress_bars() as progress:
        made = api.quantize(
            job.artifact, calibration=job.options.data, output=output, recipe=request.recipe, overrides=request.overrides,
            validation=request.validation, max_drop=request.max_drop, allow_random=request.allow_random, force=force,
            progress=progress,
        )  # fmt: skip
    if json_output:
        typer.echo(json.dumps({"artifact": str(made.folder), **asdict(made.manifest)}))
        return
    typer.echo(f"made {made.folder}: {made.manifest.model.name} int8")
    print_int8(made)
    typer.echo(f"next: edge-resnet eval {made.folder} --data LABELLED --simulate-int8")


def _open(request: _Request) -> _Job:
    """Open the artifact, and combine the recipe with the user's values."""
    from edge_resnet.artifact.folder import newest_artifact, open_artifact
    from edge_resnet.pipelines.engines import ARTIFACTS
    from edge_resnet.quantization.int8 import Int8Options

    artifact = open_artifact(request.artifact or newest_artifact(ARTIFACTS))
    from edge_resnet.quantization.recipes import overridden_recipe

    named = overridden_recipe(request.recipe, artifact.manifest.model.family, request.overrides)
    data = request.data or named.data
    if data is None:
        raise ConfigError(
            f"recipe {named.name} names no images", hint="--calib-data FOLDER; calibrate --from-camera collects them"
        )
    made = Int8Options(data, named.recipe, request.validation, request.max_drop, request.allow_random, request.device)
    return _Job(artifact, made)


def _print_row(row: SweepRow, *, chosen: bool) -> None:
    method = f"percentile {row.recipe.percentile:g}" if row.recipe.method == "percentile" else row.recipe.method
    interval = f"{row.ci95[0]:.2f} to {row.ci95[1]:.2f}"
    typer.echo(f"{method:<20}{row.agreement:>10.2f}   {interval:<17}{row.error:>12.5f}{'   chosen by auto' if chosen else ''}")
