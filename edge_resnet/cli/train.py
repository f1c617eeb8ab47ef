"""``edge-resnet train``. Knows the options and what to type next; the work is edge_resnet.network.training's."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edge_resnet.cli import options
from edge_resnet.cli.progress import train_bar
from edge_resnet.core.errors import INTERRUPTED, ConfigError
from edge_resnet.core.records import FAMILIES, IMAGENET_MEAN, IMAGENET_STD, Family

if TYPE_CHECKING:
    from edge_resnet.network.training.job import JobResult

__all__ = ["train"]

_DATA, _SPEED, _SGD, _KEPT = "Images", "Speed", "Training", "What is kept"
_QAT = "Quantization-aware fine-tuning"

_QAT_ONLY = frozenset({"max_drop", "distil", "allow_random"})

ScheduleName = Literal["one-cycle", "paper-cifar", "paper-imagenet", "cosine", "constant"]
AugmentName = Literal["none", "shift", "cifar", "imagenet", "scales"]
_ANY_DATA = "digits, cifar10, a folder with train/ and val/, a folder with *train.npz and *test.npz, or the training part alone."
_ANY_QAT = "Fine-tune this artifact with INT8's rounding in it; rate 0.005, 3 epochs, batch 64."
_ANY_WEIGHTS = "random, default (torchvision's V1), or a file; a head of another width is made anew."
_ANY_FREEZE = "Keep this stage and all before it: stem, layer1, layer2, layer3, layer4."


def train(
    context: typer.Context,
    data: Annotated[str, typer.Option(help=_ANY_DATA, rich_help_panel=_DATA)],
    val_data: Annotated[str | None, typer.Option(help="The test part, where it lies elsewhere.", rich_help_panel=_DATA)] = None,
    augment: Annotated[
        AugmentName | None,
        typer.Option(help="Default: cifar or imagenet by the family; shift for digits.", rich_help_panel=_DATA),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that decode large images.", rich_help_panel=_DATA)] = 2,
    depth: options.Depth = 50,
    family: options.Family = "imagenet",
    shortcut: options.Shortcut = None,
    plain: options.Plain = False,
    classes: Annotated[
        int | None, typer.Option(help="Width of the head (default: as many as the images have).", rich_help_panel="Network")
    ] = None,
    weights: Annotated[str, typer.Option(help=_ANY_WEIGHTS, rich_help_panel="Network")] = "random",
    freeze: Annotated[str | None, typer.Option(metavar="STAGE", help=_ANY_FREEZE, rich_help_panel="Network")] = None,
    input_size: options.InputSize = None,
    mean: options.PerChannel = IMAGENET_MEAN,
    std: options.PerChannel = IMAGENET_STD,
    epochs: Annotated[float, typer.Option(help="Passes over the images.", rich_help_panel=_SGD)] = 30,
    batch: Annotated[int, typer.Option(help="Images a step, over all processes.", rich_help_panel=_SGD)] = 128,
    rate: Annotated[float, typer.Option(help="The highest learning rate.", rich_help_panel=_SGD)] = 0.1,
    schedule: Annotated[ScheduleName, typer.Option(help="How the rate changes.", rich_help_panel=_SGD)] = "one-cycle",
    warm_up: Annotated[
        float | None,
        typer.Option(metavar="RATE", help="Rate until the training error is below 80 % (0.01 at 110).", rich_help_panel=_SGD),
    ] = None,
    momentum: Annotated[float, typer.Option(help="Of SGD.", rich_help_panel=_SGD)] = 0.9,
    nesterov: Annotated[
        bool,
        typer.Option("--nesterov/--no-nesterov", help="Momentum in Nesterov's form; the paper's is plain.", rich_help_panel=_SGD),
    ] = True,
    weight_decay: Annotated[float, typer.Option(help="The paper's is 1e-4.", rich_help_panel=_SGD)] = 1e-4,
    decay_norms: Annotated[bool, typer.Option(help="Decay biases and batch norms too.", rich_help_panel=_SGD)] = True,
    label_smoothing: Annotated[float, typer.Option(help="Share of a label given to all.", rich_help_panel=_SGD)] = 0.0,
    ema: Annotated[
        float | None, typer.Option(help="Average the weights, with this decay a step (0.999).", rich_help_panel=_SGD)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of weights, order and augmentation.", rich_help_panel=_SGD)] = 0,
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], typer.Option(help="auto: bf16 where it is fast.", rich_help_panel=_SPEED)
    ] = "auto",
    channels_last: Annotated[bool, typer.Option(help="Memory format.", rich_help_panel=_SPEED)] = True,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Only kernels that repeat to the bit.", rich_help_panel=_SPEED)
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.", rich_help_panel=_SPEED)] = "auto",
    sync_bn: Annotated[
        bool, typer.Option("--sync-bn", help="Batch norms see all GPUs' images (torchrun).", rich_help_panel=_SPEED)
    ] = False,
    max_steps: Annotated[int | None, typer.Option(help="Stop there.", rich_help_panel=_SGD)] = None,
    patience: Annotated[int | None, typer.Option(help="Stop after so many tests without a better one.")] = None,
    test_every: Annotated[int, typer.Option(help="Epochs between tests.", rich_help_panel=_KEPT)] = 1,
    keep: Annotated[
        Literal["last", "best"], typer.Option(help="Weights of the last epoch, or of the best test.", rich_help_panel=_KEPT)
    ] = "last",
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Event files beside log.csv.", rich_help_panel=_KEPT)
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder (default: runs/NAME).", rich_help_panel=_KEPT)
    ] = None,
    qat: Annotated[Path | None, typer.Option(metavar="ARTIFACT", help=_ANY_QAT, rich_help_panel=_QAT)] = None,
    max_drop: Annotated[  # noqa: ARG001 - these three are read from the context, where they are known to be typed
        float | None, typer.Option(help="Points of top-1 that INT8 may lose; else exit code 3.", rich_help_panel=_QAT)
    ] = None,
    distil: Annotated[  # noqa: ARG001
        float | None, typer.Option(help="Share of the loss that follows FP32 (default: 0.5).", rich_help_panel=_QAT)
    ] = None,
    allow_random: Annotated[  # noqa: ARG001
        bool, typer.Option("--allow-random", help="Noise and random weights too.", rich_help_panel=_QAT)
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where it stopped.", rich_help_panel=_KEPT)] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a training.", rich_help_panel=_KEPT)] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print result.json.", rich_help_panel=_KEPT)] = False,
) -> None:
    """Train a network; its weights go straight into build.

    edge-resnet train --family cifar --depth 20 --data cifar10 --rate 0.2 --weight-decay 5e-4 -o runs/r20

    edge-resnet train --depth 18 --weights default --freeze layer2 --data images/ --epochs 10 --rate 0.01

    edge-resnet train --qat artifacts/mine --data train/ --val-data val/ --max-drop 1 -o artifacts/mine-qat

    torchrun --nproc-per-node 2 -m edge_resnet train --depth 50 --data imagenet/ --schedule paper-imagenet --epochs 90
    """
    if qat is not None:
        _fine_tune(context, qat)
        return
    _refuse(context, _QAT_ONLY, "belongs to --qat ARTIFACT", "leave it out, or name an INT8 artifact")
    from edge_resnet.network.training import TrainOptions
    from edge_resnet.network.training.job import NetworkChoice, TrainJob, run_job

    wanted = TrainOptions(
        epochs=epochs, batch=batch, rate=rate, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov and momentum > 0,
        decay_norms=decay_norms, schedule=schedule, warm_up=warm_up, label_smoothing=label_smoothing, ema=ema,
        precision=precision, channels_last=channels_last, augment=augment or _augmentation(family, data), seed=seed,
        deterministic=deterministic, max_steps=max_steps, test_every=test_every, patience=patience, keep=keep,
        workers=workers, sync_bn=sync_bn, tensorboard=tensorboard, device=device,
    )  # fmt: skip
    option = shortcut or FAMILIES[family].shortcut
    words = NetworkChoice(family, depth, option, plain, classes, input_size, mean, std, weights, freeze)
    job = TrainJob(words, data, val_data, wanted, output, resume, force)
    with train_bar(epochs) as progress:
        try:
            done = run_job(job, progress=progress)
        except KeyboardInterrupt:
            typer.echo("the last whole epoch, where there was one, is kept: --resume with the same words goes on", err=True)
            raise typer.Exit(INTERRUPTED) from None
    _report(done, json_output=json_output)
    if done.result.diverged:
        raise ConfigError(done.result.stopped or "", hint="a lower --rate, or --warm-up 0.01 for a deep network")


def _fine_tune(context: typer.Context, artifact: Path) -> None:
    """Hand on what was typed; the rest has defaults of its own there."""
    from edge_resnet.cli.qat import QatArguments, fine_tune

    typed = {name: value for name, value in context.params.items() if _was_typed(context, name)}
    shared = {"output", "force", "json_output", "qat"}
    known = {field.name for field in fields(QatArguments)}
    _refuse(context, frozenset(typed) - known - shared, "means nothing with --qat", "the artifact says which network it is")
    words = QatArguments(**{name: value for name, value in typed.items() if name in known})
    output = context.params["output"] or Path("artifacts") / f"{artifact.resolve().name}-qat"
    fine_tune(artifact, output, words, force=context.params["force"], json_output=context.params["json_output"])


def _refuse(context: typer.Context, names: frozenset[str], why: str, hint: str) -> None:
    for name in sorted(names):
        if _was_typed(context, name):
            raise ConfigError(f"--{name.replace('_', '-')} {why}", hint=hint)


def _was_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _augmentation(family: Family, data: str) -> AugmentName:
    """The family's own; mirrored digits are no digits."""
    return "shift" if data == "digits" else family


def _report(done: JobResult, *, json_output: bool) -> None:
    if os.environ.get("RANK", "0") != "0":  # under torchrun one process speaks
        return
    if json_output:
        typer.echo((done.folder / "result.json").read_text(encoding="utf-8"), nl=False)
    else:
        last = done.result.records[-1]
        tested = "" if last.test_error is None else f", top-1 {100 - last.test_error:.2f} % on the test images"
        typer.echo(f"trained {done.folder}: {done.model.name}, {last.epoch} epochs in {done.result.seconds:.0f} s{tested}")
        if done.result.stopped and not done.result.diverged:
            typer.echo(f"stopped: {done.result.stopped}")
        typer.echo(f"next: {done.build}")
