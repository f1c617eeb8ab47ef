"""``edge-resnet calibrate``. Knows the options, which of them go together, and how results are told; the work is other rooms'."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.cli import options
from edge_resnet.cli.collect import Count, Every, FromCamera, MinChange, Source, collect, one_source
from edge_resnet.errors import ConfigError
from edge_resnet.spec import Correction

__all__ = ["calibrate"]

_INT8, _TOLD = "Calibration", "What is told of the pictures, instead of an artifact"
_RECIPE = "imagenet, cifar10, digits, camera, or your .toml (default: the family's)."

#: What the options of each half are called in Python; the rest belongs to the other half.
_COLLECTING = frozenset({"from_camera", "source", "count", "every", "min_change", "seed", "output", "json_output"})
_FOR_COLLECTING_ONLY = _COLLECTING - {"seed", "output", "json_output"}

Newest = Annotated[Path | None, typer.Argument(help="Folder that build wrote (default: the newest under artifacts/).")]
Recipe = Annotated[str | None, typer.Option(help=_RECIPE, rich_help_panel=_INT8)]
Seed = Annotated[int | None, typer.Option(help="Which of the pictures or frames are drawn.", rich_help_panel=_INT8)]
Correct = Annotated[Correction | None, typer.Option(help="Corrected after (default: the recipe's).", rich_help_panel=_INT8)]
ValData = Annotated[str | None, typer.Option(help="Labelled images that --max-drop is measured on.", rich_help_panel=_INT8)]
MaxDrop = Annotated[
    float | None, typer.Option(help="Points of top-1 that may be lost; layers stay in FP16 for it.", rich_help_panel=_INT8)
]
Sweep = Annotated[bool, typer.Option("--sweep", help="How every method agrees with FP32.", rich_help_panel=_TOLD)]
Report = Annotated[
    bool, typer.Option("--calib-report", help="Whether the pictures suffice: coverage, convergence.", rich_help_panel=_TOLD)
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder for the artifact, or the pictures.", rich_help_panel="Output")
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
    calib_recipe: Recipe = None,
    calib_method: options.Method = None,
    calib_images: options.CalibImages = None,
    percentile: options.Percentile = None,
    seed: Seed = None,
    correct: Correct = None,
    val_data: ValData = None,
    max_drop: MaxDrop = None,
    allow_random: options.AllowRandom = False,
    sweep: Sweep = False,
    calib_report: Report = False,
    output: Output = None,
    force: options.Force = False,
    json_output: Json = False,
) -> None:
    """Collect calibration pictures from a camera, judge them, or make INT8 of any artifact with them.

    edge-resnet calibrate --from-camera 0 -o pictures/

    edge-resnet calibrate artifacts/resnet50-fp32 --calib-data pictures/ --sweep

    edge-resnet calibrate artifacts/resnet50-fp32 --calib-data pictures/ -o artifacts/resnet50-mine
    """
    uri = one_source(from_camera, source)
    if uri is not None:
        _refuse(context.params.keys() - _COLLECTING, context, "does not go with collecting", "collect first, then --calib-data")
        collect(uri, output, {"count": count, "every_s": every, "min_change": min_change, "seed": seed}, json_output=json_output)
        return
    _refuse(_FOR_COLLECTING_ONLY, context, "is for collecting pictures", "--from-camera 0 or --source URI collects them")
    _check_words(sweep=sweep, report=calib_report, output=output, force=force, judged_by=(val_data, max_drop))
    from edge_resnet.cli import judge
    from edge_resnet.quantization.recipes import RecipeChanges

    changes = RecipeChanges(calib_method, calib_images, percentile, seed, correct)
    request = judge.Request(artifact, calib_data, calib_recipe, changes, val_data, max_drop, allow_random)
    if sweep:
        judge.sweep(request, json_output=json_output)
    elif calib_report:
        judge.report(request, json_output=json_output)
    elif output is not None:
        judge.make(request, output, force=force, json_output=json_output)


def _check_words(*, sweep: bool, report: bool, output: Path | None, force: bool, judged_by: tuple[object, object]) -> None:
    """One thing is asked for, and nothing that belongs to another."""
    asked = [name for name, on in (("--sweep", sweep), ("--calib-report", report), ("-o", output is not None)) if on]
    if not asked:
        raise ConfigError("calibrate needs to know what to make", hint="-o artifacts/NAME, --sweep or --calib-report")
    if len(asked) > 1:
        raise ConfigError(f"{asked[0]} and {asked[1]} exclude each other", hint="run them one after another")
    if output is None and (force or any(word is not None for word in judged_by)):
        raise ConfigError(f"{asked[0]} writes and gates nothing", hint="--force, --val-data and --max-drop belong to -o")


def _refuse(names: Set[str], context: typer.Context, reason: str, hint: str) -> None:
    for name, value in context.params.items():
        if name in names and value is not None and value is not False:
            word = "an artifact" if name == "artifact" else f"--{name.replace('_', '-')}"
            raise ConfigError(f"{word} {reason}", hint=hint)
