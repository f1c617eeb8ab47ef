"""``edge-resnet paper``: the options, and how a result is printed. The experiments are in edge_resnet.studies.paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edge_resnet.cli.progress import progress_bars
from edge_resnet.core.errors import INTERRUPTED, ConfigError
from edge_resnet.core.records import IMAGENET_MEAN, IMAGENET_STD
from edge_resnet.core.records import Family as FamilyName
from edge_resnet.core.records import Shortcut as ShortcutName

if TYPE_CHECKING:
    from edge_resnet.network.training import TrainOptions
    from edge_resnet.studies.paper import ExperimentResult
    from edge_resnet.studies.paper.result import Table

__all__ = ["paper"]

_IMAGES, _WEIGHTS, _TRAINING = "Images", "Given networks", "Training"
_SCHEDULES = Literal["one-cycle", "paper-cifar", "paper-imagenet", "cosine", "constant"]


def paper(
    experiment: Annotated[
        Literal["degradation", "shortcuts", "depth", "responses", "complexity", "tencrop", "multiscale", "ensemble"],
        typer.Argument(help="The experiment; the first three train."),
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder (default: paper/EXPERIMENT).")] = None,
    family: Annotated[FamilyName | None, typer.Option(help="cifar or imagenet (default: as in the paper).")] = None,
    depths: Annotated[str, typer.Option(help="Layers, for example 20,56 (default: the paper's).")] = "",
    shortcut: Annotated[ShortcutName | None, typer.Option(help="Shortcut option (default: the paper's).")] = None,
    data: Annotated[str, typer.Option(help="Folder of class folders, CSV, .npz, or a name.", rich_help_panel=_IMAGES)] = "",
    test_data: Annotated[
        str, typer.Option(help="Test images, given like --data (a name has both).", rich_help_panel=_IMAGES)
    ] = "",
    images: Annotated[int | None, typer.Option(help="Number of images to train on.", rich_help_panel=_IMAGES)] = None,
    test_images: Annotated[int | None, typer.Option(help="Number of images to test on.", rich_help_panel=_IMAGES)] = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes.", rich_help_panel=_IMAGES)] = None,
    input_size: Annotated[int | None, typer.Option(help="Side of the input in pixels.", rich_help_panel=_IMAGES)] = None,
    mean: Annotated[
        tuple[float, float, float], typer.Option(metavar="R,G,B", help="Per channel, RGB, in 0..1.", rich_help_panel=_IMAGES)
    ] = IMAGENET_MEAN,
    std: Annotated[
        tuple[float, float, float], typer.Option(metavar="R,G,B", help="Per channel, RGB, in 0..1.", rich_help_panel=_IMAGES)
    ] = IMAGENET_STD,
    weights: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="A network and its weights; repeatable.", rich_help_panel=_WEIGHTS),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", help="Use the networks that an experiment trained.", rich_help_panel=_WEIGHTS),
    ] = None,
    scales: Annotated[str, typer.Option(help="multiscale: short sides in pixels.", rich_help_panel=_WEIGHTS)] = "",
    flips: Annotated[bool, typer.Option(help="multiscale: use mirror images too.", rich_help_panel=_WEIGHTS)] = True,
    held_out: Annotated[
        float, typer.Option(help="ensemble: share of images to choose weights on.", rich_help_panel=_WEIGHTS)
    ] = 0.5,
    epochs: Annotated[float | None, typer.Option(help="Epochs (default: 164, imagenet 120).", rich_help_panel=_TRAINING)] = None,
    batch: Annotated[int | None, typer.Option(help="Batch size (default: 128, imagenet 256).", rich_help_panel=_TRAINING)] = None,
    rate: Annotated[float | None, typer.Option(help="Highest learning rate (default: 0.1).", rich_help_panel=_TRAINING)] = None,
    schedule: Annotated[
        _SCHEDULES | None, typer.Option(help="Learning rate schedule, scaled to the epochs.", rich_help_panel=_TRAINING)
    ] = None,
    precision: Annotated[
        Literal["auto", "fp32", "bf16"] | None, typer.Option(help="Arithmetic (default: fp32).", rich_help_panel=_TRAINING)
    ] = None,
    augment: Annotated[
        Literal["none", "shift", "cifar", "imagenet", "scales"] | None,
        typer.Option(help="Augmentation (default: the paper's).", rich_help_panel=_TRAINING),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, order, augmentation and samples.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the experiment in the folder.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the experiment in the folder.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print only JSON to stdout.")] = False,
) -> None:
    """Run an experiment of He et al. 2015 and compare its numbers with the paper's, on a page, as charts and as JSON.

    The defaults are the paper's and take days of training: choose depths, images and epochs. The page lists all differences from
    the paper. Ctrl-C ends the experiment with the results so far, and --resume continues it.

    edge-resnet paper complexity

    edge-resnet paper degradation --data cifar10 --depths 20,56 --epochs 10

    edge-resnet paper responses --from paper/degradation --data cifar10

    edge-resnet paper tencrop --weights 50=default --data val/

    edge-resnet paper ensemble --weights 18=r18.pth --weights 50=r50.pth --data val.csv --family imagenet
    """
    from edge_resnet.studies.paper import TRAINING, ExperimentRequest, run_experiment
    from edge_resnet.studies.paper.output import to_json

    chosen: FamilyName = family or ("imagenet" if experiment in ("tencrop", "multiscale") else "cifar")
    given = {"epochs": epochs, "batch": batch, "rate": rate, "schedule": schedule, "precision": precision, "augment": augment}
    wanted = {name: value for name, value in given.items() if value is not None}
    if wanted and experiment not in TRAINING:
        raise ConfigError(
            f"{experiment} trains nothing: --{next(iter(wanted))} is for the experiments that train", hint=", ".join(TRAINING)
        )
    request = ExperimentRequest(
        experiment=experiment, output=output or Path("paper") / experiment, family=chosen, depths=_numbers("--depths", depths),
        shortcut=shortcut, data=data, test_data=test_data, images=images, test_images=test_images, classes=classes,
        input_size=input_size, mean=mean, std=std, weights=tuple(weights or ()), source=source,
        scales=_numbers("--scales", scales), flips=flips, held_out=held_out, seed=seed,
        training=_training(chosen, wanted) if experiment in TRAINING else None,
    )  # fmt: skip
    with progress_bars() as progress:
        result, page = run_experiment(request, resume=resume, force=force, progress=progress)
    if json_output:
        typer.echo(to_json(result))
    else:
        _print_result(result, page)
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)


def _training(family: FamilyName, wanted: Mapping[str, object]) -> TrainOptions:
    """The paper's recipe with the options that the user chose."""
    from edge_resnet.studies.paper.scale import paper_options

    return replace(paper_options(family), **wanted)  # type: ignore[arg-type]


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise ConfigError(f"{option} takes whole numbers separated by commas, not {text}", hint=f"{option} 20,56") from error


def _print_result(result: ExperimentResult, page: Path) -> None:
    typer.echo(result.title + (" (incomplete: interrupted)" if result.interrupted else ""))
    for table in result.tables:
        typer.echo("")
        _print_table(table)
    typer.echo("")
    for sentence in result.verdicts:
        typer.echo(sentence)
    for item in result.differences:
        typer.echo(f"differs from the paper: {item.what}: {item.here} (the paper: {item.paper})")
    typer.echo(f"the page is at {page}")


def _print_table(table: Table) -> None:
    """Print a table in eighty columns, whatever the width of the terminal; long headers and cells are wrapped."""
    from rich.console import Console
    from rich.table import Table as TextTable
    from rich.text import Text

    drawn = TextTable(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for index, column in enumerate(table.columns):
        drawn.add_column(column.title, justify="right" if column.numeric else "left", no_wrap=index == 0, overflow="fold")
    for row in table.rows:
        drawn.add_row(*(Text(column.text(cell)) for column, cell in zip(table.columns, row, strict=True)))
    console = Console(width=80, color_system=None)
    with console.capture() as captured:
        console.print(drawn)
    for line in captured.get().splitlines():
        typer.echo(line.rstrip())
