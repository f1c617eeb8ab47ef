"""``edge-resnet report``. Knows the options and how a sweep is told; ``sweep`` measures and ``report`` draws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_resnet.cli import options
from edge_resnet.cli.int8 import named_recipe
from edge_resnet.cli.progress import progress_bars
from edge_resnet.core.errors import INTERRUPTED, ConfigError
from edge_resnet.core.records import FAMILIES, Correction, Family, ModelSpec, Precision, Preprocess, Shortcut

if TYPE_CHECKING:
    from edge_resnet.measurement.report import Questions, Report
    from edge_resnet.studies.sweep import SweepRequest
    from edge_resnet.studies.sweep.plan import Network

__all__ = ["report"]

_SWEEP, _ASK = "What to measure", "Questions"
_DEPTHS = "Networks to build, for example 18,34,50,101,152."
_WEIGHTS = "Folder with a file of weights per depth, found by its name (default: torchvision's weights)."
_DATA = "Labelled images: folder of class folders, CSV, .npz, or a name (default: latency only)."
_CALIB = "Images for INT8 (default: a part of --data is held out for it)."
_CORRECT = "none, bias, or learned, which takes minutes a network."


def report(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[ARTIFACT|RESULT.json]...", help="Artifacts to measure, results to show beside them."),
    ] = None,
    depths: Annotated[str, typer.Option(help=_DEPTHS, rich_help_panel=_SWEEP)] = "",
    precisions: Annotated[str, typer.Option(help="Each of them: fp32, fp16, int8.", rich_help_panel=_SWEEP)] = "fp32,int8",
    backends: Annotated[str, typer.Option(help="auto, tensorrt, openvino, onnxruntime.", rich_help_panel=_SWEEP)] = "auto",
    batch: Annotated[str, typer.Option(help="1: image after image; more: offline.", rich_help_panel=_SWEEP)] = "1,8",
    data: Annotated[str | None, typer.Option(help=_DATA, rich_help_panel=_SWEEP)] = None,
    seconds: Annotated[float, typer.Option(help="Of each latency measurement at least.", rich_help_panel=_SWEEP)] = 5.0,
    family: options.Family = "imagenet",
    shortcut: options.Shortcut = None,
    classes: options.Classes = None,
    weights_dir: Annotated[Path | None, typer.Option(help=_WEIGHTS, rich_help_panel="Network")] = None,
    weights: Annotated[
        str, typer.Option(help="default or random, without --weights-dir.", rich_help_panel="Network")
    ] = "default",
    calib_data: Annotated[str | None, typer.Option(help=_CALIB, rich_help_panel="Calibration")] = None,
    calib_recipe: options.CalibRecipe = None,
    calib_images: options.CalibImages = None,
    calib_method: options.Method = None,
    correct: Annotated[Correction, typer.Option(help=_CORRECT, rich_help_panel="Calibration")] = "bias",
    seed: options.Seed = None,
    allow_random: options.AllowRandom = False,
    under_ms: Annotated[
        float | None, typer.Option(help="Which is the most accurate under so many ms?", rich_help_panel=_ASK)
    ] = None,
    within_points: Annotated[
        float | None, typer.Option(help="Which is the fastest within so many points of the best?", rich_help_panel=_ASK)
    ] = None,
    title: Annotated[str, typer.Option(help="Of the page.", rich_help_panel="Output")] = "Accuracy against latency",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder.", rich_help_panel="Output")] = Path("report"),
    resume: Annotated[bool, typer.Option(help="Go on with a report that is there.", rich_help_panel="Output")] = True,
    force: Annotated[bool, typer.Option("--force", help="Measure anew what is there.", rich_help_panel="Output")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.", rich_help_panel="Output")] = False,
) -> None:
    """Measure networks, precisions and backends on the same images, and draw accuracy against latency as a page.

    What is interrupted goes on where it ended. Result files, also other reports, are shown beside what is measured.

    edge-resnet report --depths 18,50 --data val/ -o report

    edge-resnet report --depths 18,34,50 --precisions fp32,int8 --weights-dir weights/ --data val/ --calib-data photos/

    edge-resnet report artifacts/resnet50-int8 artifacts/resnet50-fp32 --data val/ --under-ms 20

    edge-resnet report nano/report.json orin/report.json -o both
    """
    from edge_resnet.measurement.report import Questions, check_drawable
    from edge_resnet.studies.sweep import SweepRequest

    questions = Questions(_positive(under_ms, "--under-ms"), _positive(within_points, "--within-points"))
    named = named_recipe(calib_recipe, family, (calib_method, calib_images, None, seed, correct))
    chosen = _numbers(depths, "--depths")
    request = SweepRequest(
        networks=tuple(_network(depth, (family, shortcut, classes), weights_dir, weights) for depth in chosen),
        precisions=_precisions(precisions),
        artifacts=tuple(path for path in inputs or () if path.suffix.lower() != ".json"),
        results=tuple(path for path in inputs or () if path.suffix.lower() == ".json"),
        backends=tuple(_words(backends)),
        batches=_numbers(batch, "--batch"),
        data=data,
        calibration_data=calib_data,
        recipe=named.recipe,
        seconds=seconds,
        allow_random=allow_random,
        title=title,
        options=_said(seconds, named.recipe.method, correct) if chosen else {"Seconds a measurement": f"{seconds:g}"},
    )
    check_drawable()
    _run(request, questions, output, (resume, force, json_output))


def _run(request: SweepRequest, questions: Questions, output: Path, words: tuple[bool, bool, bool]) -> None:
    """Measure, write, tell. ``words``: --resume, --force and --json."""
    from edge_resnet.measurement.report import write_report
    from edge_resnet.studies.sweep import sweep
    from edge_resnet.studies.sweep.cells import claim

    resume, force, json_output = words
    cells = claim(output, resume=resume, force=force)
    # A line per cell says how much time is left; on a terminal bars below it say how the cell at hand goes.
    with progress_bars() as progress:
        found = sweep(request, output, cells, progress=progress, told=_tell)
    page = write_report(found, output, questions)
    if json_output:
        typer.echo(json.dumps(_as_json(found, page)))
    else:
        _report(found, questions, page)
    if found.interrupted:
        raise typer.Exit(INTERRUPTED)


def _network(depth: int, kind: tuple[Family, Shortcut | None, int | None], folder: Path | None, weights: str) -> Network:
    from edge_resnet.studies.sweep.plan import Network, find_weights

    family, shortcut, classes = kind
    defaults = FAMILIES[family]
    size = defaults.input_size
    model = ModelSpec(family, depth, shortcut or defaults.shortcut, False, classes or defaults.classes, size)
    path = None if folder is None else find_weights(folder, depth)
    chosen = weights if folder is None else None if path is None else str(path)
    return Network(model, Preprocess(defaults.short_side, size), chosen)


def _precisions(text: str) -> tuple[Precision, ...]:
    return tuple(dict.fromkeys(_words(text)))  # type: ignore[arg-type]  # the request refuses other words


def _words(text: str) -> list[str]:
    return [part.strip().lower() for part in text.split(",") if part.strip()]


def _numbers(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(part) for part in _words(text)))
    except ValueError as error:
        raise ConfigError(f"{option} takes whole numbers, not {text}", hint=f"for example {option} 18,50") from error


def _positive(value: float | None, option: str) -> float | None:
    if value is not None and not 0 < value < float("inf"):
        raise ConfigError(f"{option} takes a number above 0, not {value:g}", hint=f"{option} 20")
    return value


def _said(seconds: float, method: str, correct: str) -> dict[str, str]:
    """Options that a reader of the report must know."""
    learned = (
        ""
        if correct == "learned"
        else "; --correct learned, which build takes by default, is more accurate and takes minutes more"
    )
    return {"INT8": f"ranges by {method}, correction: {correct}{learned}", "Seconds a measurement": f"{seconds:g}"}


def _tell(name: str, how: str, seconds: float, left_s: float) -> None:
    left = f"; about {left_s / 60:.0f} min left" if left_s >= 90 else f"; about {left_s:.0f} s left"
    typer.echo(f"{name}: {how}{f' in {seconds:.0f} s' if how in ('made', 'measured') else ''}{left}", err=True)


def _as_json(found: Report, page: Path) -> dict[str, object]:
    from dataclasses import asdict

    from edge_resnet.measurement.report.table import records

    pairs = [{key: value for key, value in asdict(pair).items() if key not in ("flips", "classes")} for pair in found.pairs]
    holes = [asdict(hole) for hole in found.holes]
    return {"report": str(page), "rows": records(found), "pairs": pairs, "holes": holes, "interrupted": found.interrupted}


def _report(found: Report, questions: Questions, page: Path) -> None:
    from edge_resnet.measurement.report.advice import answer_lines, findings

    for line in (*answer_lines(found, questions.under_ms, questions.within_points), *findings(found)):
        typer.echo(line)
    for hole in found.holes:
        typer.echo(f"not measured: {hole.what}: {hole.reason}{f' ({hole.remedy})' if hole.remedy else ''}", err=True)
    if found.interrupted:
        typer.echo("interrupted: the same command goes on where this ended", err=True)
    typer.echo(f"the page is {page}")
