"""``edge-resnet report``: the options, and the lines about progress and results. ``sweep`` measures, ``report`` draws."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_resnet.cli import options
from edge_resnet.cli.progress import progress_bars
from edge_resnet.core.errors import INTERRUPTED, ConfigError
from edge_resnet.core.records import (
    Correction,
    Family,
    Precision,
    Shortcut,
    default_spec,
)
from edge_resnet.core.text import printable

if TYPE_CHECKING:
    from edge_resnet.measurement.report import Questions, Report
    from edge_resnet.studies.sweep import CellOutcome, SweepRequest
    from edge_resnet.studies.sweep.plan import Network

__all__ = ["report"]

_SWEEP, _ASK = "What to measure", "Questions"
_DEPTHS = "Depths of the networks to build, for example 18,34,50,101,152."
_WEIGHTS = "Folder with a weights file per depth, found by its name (default: torchvision's weights)."
_DATA = "Labelled images: folder of class folders, CSV, .npz, or a name (default: latency only)."
_CALIB = "Calibration images for INT8 (default: a part of --data is held out)."
_CORRECT = "none, bias, or learned, which takes minutes per network."


@dataclass(frozen=True)
class _Output:
    """Where the report goes, what to do with one that is there, and whether to print JSON."""

    folder: Path
    resume: bool
    force: bool
    json: bool


@dataclass(frozen=True)
class _NetworkOptions:
    """The options for all networks to build."""

    family: Family
    shortcut: Shortcut | None
    classes: int | None
    weights_dir: Path | None
    weights: str


def report(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[ARTIFACT|RESULT.json]...", help="Artifacts to measure, and result files to show beside them."),
    ] = None,
    depths: Annotated[str, typer.Option(help=_DEPTHS, rich_help_panel=_SWEEP)] = "",
    precisions: Annotated[str, typer.Option(help="One or more of fp32, fp16, int8.", rich_help_panel=_SWEEP)] = "fp32,int8",
    backends: Annotated[
        str, typer.Option(help="One or more of auto, tensorrt, tensorrt-rtx, openvino, onnxruntime.", rich_help_panel=_SWEEP)
    ] = "auto",
    batch: Annotated[str, typer.Option(help="1: single-stream; larger: offline.", rich_help_panel=_SWEEP)] = "1,8",
    data: Annotated[str | None, typer.Option(help=_DATA, rich_help_panel=_SWEEP)] = None,
    seconds: Annotated[float, typer.Option(help="Minimum duration of each latency measurement.", rich_help_panel=_SWEEP)] = 5.0,
    family: options.Family = "imagenet",
    shortcut: options.Shortcut = None,
    classes: options.Classes = None,
    weights_dir: Annotated[Path | None, typer.Option(help=_WEIGHTS, rich_help_panel="Network")] = None,
    weights: Annotated[
        str, typer.Option(help="default, v1, v2 or random, without --weights-dir.", rich_help_panel="Network")
    ] = "default",
    calib_data: Annotated[str | None, typer.Option(help=_CALIB, rich_help_panel="Calibration")] = None,
    calib_recipe: options.CalibRecipe = None,
    calib_images: options.CalibImages = None,
    calib_method: options.Method = None,
    correct: Annotated[Correction, typer.Option(help=_CORRECT, rich_help_panel="Calibration")] = "bias",
    seed: options.Seed = None,
    allow_random: options.AllowRandom = False,
    under_ms: Annotated[
        float | None, typer.Option(help="Find the most accurate network within this latency.", rich_help_panel=_ASK)
    ] = None,
    within_points: Annotated[
        float | None, typer.Option(help="Find the fastest network within so many points of the best.", rich_help_panel=_ASK)
    ] = None,
    title: Annotated[str, typer.Option(help="Title of the page.", rich_help_panel="Output")] = "Accuracy against latency",
    output: Annotated[Path, typer.Option("--output", "-o", help="Output folder.", rich_help_panel="Output")] = Path("report"),
    resume: Annotated[bool, typer.Option(help="Resume an existing report.", rich_help_panel="Output")] = True,
    force: Annotated[bool, typer.Option("--force", help="Measure an existing report again.", rich_help_panel="Output")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print only JSON to stdout.", rich_help_panel="Output")] = False,
) -> None:
    """Measure networks, precisions and backends on the same images, and write a page of accuracy against latency.

    An interrupted run is resumed by the same command. Result files, including other reports, are shown beside the measurements.

    edge-resnet report --depths 18,50 --data val/ -o report

    edge-resnet report --depths 18,34,50 --precisions fp32,int8 --weights-dir weights/ --data val/ --calib-data photos/

    edge-resnet report artifacts/resnet50-int8 artifacts/resnet50-fp32 --data val/ --under-ms 20

    edge-resnet report nano/report.json orin/report.json -o both
    """
    from edge_resnet.measurement.report import Questions
    from edge_resnet.quantization.recipes import RecipeOverrides, overridden_recipe
    from edge_resnet.studies.sweep import SweepRequest

    questions = Questions(_positive(under_ms, "--under-ms"), _positive(within_points, "--within-points"))
    overrides = RecipeOverrides(method=calib_method, images=calib_images, seed=seed, correction=correct)
    named = overridden_recipe(calib_recipe, family, overrides)
    chosen = _numbers(depths, "--depths")
    network_options = _NetworkOptions(family, shortcut, classes, weights_dir, weights)
    request = SweepRequest(
        networks=tuple(_network(depth, network_options) for depth in chosen),
        precisions=_precisions(precisions),
        artifacts=tuple(path for path in inputs or () if path.suffix.lower() != ".json"),
        results=tuple(path for path in inputs or () if path.suffix.lower() == ".json"),
        backends=tuple(_parts(backends)),
        batches=_numbers(batch, "--batch"),
        data=data,
        calibration_data=calib_data,
        recipe=named.recipe,
        seconds=seconds,
        allow_random=allow_random,
        title=title,
        options=_shown_options(seconds, named.recipe.method, correct) if chosen else {"Seconds a measurement": f"{seconds:g}"},
    )
    _run(request, questions, _Output(output, resume, force, json_output))


def _run(request: SweepRequest, questions: Questions, output: _Output) -> None:
    """Measure, write the report, and print the results."""
    from edge_resnet import api
    from edge_resnet.measurement.report import PAGE

    # A line per cell reports the remaining time; on a terminal, bars below show the progress of the current cell.
    with progress_bars() as progress:
        found = api.report(
            request, output.folder, questions=questions, resume=output.resume, force=output.force, observer=_print_cell,
            progress=progress,
        )  # fmt: skip
    page = output.folder / PAGE
    if output.json:
        typer.echo(json.dumps(_as_json(found, page)))
    else:
        _print_report(found, questions, page)
    if found.interrupted:
        raise typer.Exit(INTERRUPTED)


def _network(depth: int, chosen: _NetworkOptions) -> Network:
    from edge_resnet.studies.sweep.plan import Network, find_weights

    family = chosen.family
    model = default_spec(family, depth, shortcut=chosen.shortcut, classes=chosen.classes)
    weights: str | None = chosen.weights
    if chosen.weights_dir is not None:
        path = find_weights(chosen.weights_dir, depth)
        weights = None if path is None else str(path)
    return Network(model, None, weights)


def _precisions(text: str) -> tuple[Precision, ...]:
    return tuple(dict.fromkeys(_parts(text)))  # type: ignore[arg-type]  # the request refuses other names


def _parts(text: str) -> list[str]:
    return [part.strip().lower() for part in text.split(",") if part.strip()]


def _numbers(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(part) for part in _parts(text)))
    except ValueError as error:
        raise ConfigError(f"{option} takes whole numbers, not {text}", hint=f"for example {option} 18,50") from error


def _positive(value: float | None, option: str) -> float | None:
    if value is not None and not 0 < value < float("inf"):
        raise ConfigError(f"{option} takes a number above 0, not {value:g}", hint=f"{option} 20")
    return value


def _shown_options(seconds: float, method: str, correct: str) -> dict[str, str]:
    """The options that the report shows."""
    advice = "; --correct learned, the default of build, is more accurate and takes minutes longer"
    ranges = f"ranges by {method}, correction: {correct}{'' if correct == 'learned' else advice}"
    return {"INT8": ranges, "Seconds a measurement": f"{seconds:g}"}


def _print_cell(cell: CellOutcome) -> None:
    left = f"about {cell.left_s / 60:.0f} min left" if cell.left_s >= 90 else f"about {cell.left_s:.0f} s left"
    duration = f" in {cell.seconds:.0f} s" if cell.outcome in ("made", "measured") else ""
    typer.echo(printable(f"{cell.name}: {cell.outcome}{duration}; {left}"), err=True)


def _as_json(found: Report, page: Path) -> dict[str, object]:
    from dataclasses import asdict

    from edge_resnet.measurement.report.table import records

    pairs = [{key: value for key, value in asdict(pair).items() if key not in ("flips", "classes")} for pair in found.pairs]
    missing = [asdict(one) for one in found.holes]
    return {"report": str(page), "rows": records(found), "pairs": pairs, "holes": missing, "interrupted": found.interrupted}


def _print_report(found: Report, questions: Questions, page: Path) -> None:
    from edge_resnet.measurement.report.advice import answer_lines, findings

    for line in (*answer_lines(found, questions.under_ms, questions.within_points), *findings(found)):
        typer.echo(printable(line))
    for one in found.holes:
        typer.echo(printable(f"not measured: {one.what}: {one.reason}{f' ({one.remedy})' if one.remedy else ''}"), err=True)
    if found.interrupted:
        typer.echo("interrupted: run the same command again to continue", err=True)
    typer.echo(f"the page is {page}")
