"""``edge-resnet calibrate``. Knows the options, which of them go together, and how results are told; the work is other rooms'."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.cli import options
from edge_resnet.cli.collect import Count, Every, FromCamera, MinChange, Source, collect, one_source
from edge_resnet.core.errors import ConfigError

__all__ = ["calibrate"]

_TOLD = "What is told of the pictures, instead of an artifact"

#: What the options of each half are called in Python; the rest belongs to the other half.
_COLLECTING = frozenset({"from_camera", "source", "count", "every", "min_change", "seed", "output", "json_output"})
_FOR_COLLECTING_ONLY = _COLLECTING - {"seed", "output", "json_output"}
#: What an artifact can be asked for, and the options that this leaves without a meaning.
_GATES = frozenset({"val_data", "max_drop", "force"})
_WITHOUT = {"sweep": _GATES | {"calib_method", "correct"}, "calib_report": _GATES | {"correct"}, "output": frozenset[str]()}

Newest = Annotated[Path | None, typer.Argument(help="Folder that build wrote (default: the newest under artifacts/).")]
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
    _check_words(context)
    from edge_resnet.cli import judge

    words = (calib_method, calib_images, percentile, seed, correct)
    request = judge.Request(artifact, calib_data, calib_recipe, words, val_data, max_drop, allow_random)
    if sweep:
        judge.sweep(request, json_output=json_output)
    elif calib_report:
        judge.report(request, json_output=json_output)
    elif output is not None:
        judge.make(request, output, force=force, json_output=json_output)


def _check_words(context: typer.Context) -> None:
    """One thing is asked for, with pictures to do it on, and nothing that belongs to another."""
    asked = [name for name in _WITHOUT if context.params[name]]
    if not asked:
        raise ConfigError("calibrate needs to know what to make", hint="-o artifacts/NAME, --sweep or --calib-report")
    if len(asked) > 1:
        raise ConfigError(f"{_word(asked[0])} and {_word(asked[1])} exclude each other", hint="run them one after another")
    _refuse(_WITHOUT[asked[0]], context, f"means nothing with {_word(asked[0])}", "leave it out")
    if context.params["calib_data"] is None and context.params["calib_recipe"] is None:
        # build may guess by the family of a network it knows; what an artifact will see, only its user knows.
        hint = "--calib-data FOLDER, or a --calib-recipe that names some"
        raise ConfigError("there are no pictures to calibrate on", hint=hint)


def _refuse(names: Set[str], context: typer.Context, reason: str, hint: str) -> None:
    for name, value in context.params.items():
        if name in names and value is not None and value is not False:
            raise ConfigError(f"{_word(name)} {reason}", hint=hint)


def _word(name: str) -> str:
    """What the user wrote for a parameter."""
    return {"artifact": "an artifact", "json_output": "--json"}.get(name, f"--{name.replace('_', '-')}")
