"""``edge-resnet train``: the options, and the command to run next. The training is in edge_resnet.network.training."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edge_resnet.cli import options
from edge_resnet.cli.progress import train_bar
from edge_resnet.core.errors import INTERRUPTED, ConfigError
from edge_resnet.core.records import FAMILIES

if TYPE_CHECKING:
    from edge_resnet.network.training.job import JobResult

__all__ = ["train"]

_DATA, _SPEED, _SGD, _KEPT = "Images", "Speed", "Training", "Output"
_QAT = "Quantization-aware fine-tuning"

#: Options that are only for --qat.
_QAT_ONLY = frozenset({"max_drop", "distil", "allow_random"})

ScheduleName = Literal["one-cycle", "paper-cifar", "paper-imagenet", "cosine", "constant"]
AugmentName = Literal["none", "shift", "cifar", "imagenet", "scales"]
_DATA_HELP = "digits, cifar10, a folder with train/ and val/, a folder with *train.npz and *test.npz, or the training set alone."
_QAT_HELP = "Fine-tune this artifact with simulated INT8 rounding (defaults: rate 0.005, 3 epochs, batch 64)."
_WEIGHTS_HELP = "random, default, v1, v2, FILE, FILE#NAME or hf://…; the head is new if its number of classes differs."
_FREEZE_HELP = "Keep this stage and all before it unchanged: stem, layer1, layer2, layer3, layer4."


def train(
    context: typer.Context,
    data: Annotated[str, typer.Option(help=_DATA_HELP, rich_help_panel=_DATA)],
    val_data: Annotated[str | None, typer.Option(help="The test set, if it is not in --data.", rich_help_panel=_DATA)] = None,
    augment: Annotated[
        AugmentName | None,
        typer.Option(help="Augmentation (default: that of the family; shift for digits).", rich_help_panel=_DATA),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that decode large images.", rich_help_panel=_DATA)] = 2,
    depth: options.Depth = 50,
    family: options.Family = "imagenet",
    shortcut: options.Shortcut = None,
    plain: options.Plain = False,
    classes: Annotated[
        int | None, typer.Option(help="Number of classes (default: as in the images).", rich_help_panel="Network")
    ] = None,
    weights: Annotated[str, typer.Option(help=_WEIGHTS_HELP, rich_help_panel="Network")] = "random",
    freeze: Annotated[str | None, typer.Option(metavar="STAGE", help=_FREEZE_HELP, rich_help_panel="Network")] = None,
    input_size: options.InputSize = None,
    mean: options.WeightsMean = None,
    std: options.WeightsStd = None,
    epochs: Annotated[float, typer.Option(help="Passes over the images.", rich_help_panel=_SGD)] = 30,
    batch: Annotated[int, typer.Option(help="Images per step, over all processes.", rich_help_panel=_SGD)] = 128,
    rate: Annotated[float, typer.Option(help="The highest learning rate.", rich_help_panel=_SGD)] = 0.1,
    schedule: Annotated[ScheduleName, typer.Option(help="Learning rate schedule.", rich_help_panel=_SGD)] = "one-cycle",
    warm_up: Annotated[
        float | None,
        typer.Option(
            metavar="RATE", help="Rate until the training error is below 80 % (0.01 for 110 layers).", rich_help_panel=_SGD
        ),
    ] = None,
    momentum: Annotated[float, typer.Option(help="Momentum of SGD.", rich_help_panel=_SGD)] = 0.9,
    nesterov: Annotated[
        bool,
        typer.Option("--nesterov/--no-nesterov", help="Nesterov momentum; the paper's is plain.", rich_help_panel=_SGD),
    ] = True,
    weight_decay: Annotated[float, typer.Option(help="Weight decay; the paper's is 1e-4.", rich_help_panel=_SGD)] = 1e-4,
    decay_norms: Annotated[
        bool, typer.Option(help="Apply weight decay to biases and batch norms too.", rich_help_panel=_SGD)
    ] = True,
    label_smoothing: Annotated[
        float, typer.Option(help="Share of each label spread over all classes.", rich_help_panel=_SGD)
    ] = 0.0,
    ema: Annotated[
        float | None, typer.Option(help="Average the weights with this decay per step, for example 0.999.", rich_help_panel=_SGD)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and augmentation.", rich_help_panel=_SGD)] = 0,
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        typer.Option(help="Arithmetic; auto is bf16 if the processor supports it.", rich_help_panel=_SPEED),
    ] = "auto",
    channels_last: Annotated[bool, typer.Option(help="Use the channels-last memory format.", rich_help_panel=_SPEED)] = True,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Use only bit-reproducible kernels.", rich_help_panel=_SPEED)
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.", rich_help_panel=_SPEED)] = "auto",
    sync_bn: Annotated[
        bool, typer.Option("--sync-bn", help="Batch norms use the images of all GPUs (torchrun).", rich_help_panel=_SPEED)
    ] = False,
    max_steps: Annotated[int | None, typer.Option(help="Stop after this many steps.", rich_help_panel=_SGD)] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after this many tests without improvement.", rich_help_panel=_SGD)
    ] = None,
    test_every: Annotated[int, typer.Option(help="Epochs between tests.", rich_help_panel=_SGD)] = 1,
    keep: Annotated[
        Literal["last", "best"], typer.Option(help="Weights of the last epoch, or of the best test.", rich_help_panel=_KEPT)
    ] = "last",
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard event files beside log.csv.", rich_help_panel=_KEPT)
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Output folder (default: runs/NAME).", rich_help_panel=_KEPT)
    ] = None,
    qat: Annotated[Path | None, typer.Option(metavar="ARTIFACT", help=_QAT_HELP, rich_help_panel=_QAT)] = None,
    max_drop: Annotated[  # noqa: ARG001 - these three are read from the context, which knows whether they were given
        float | None, typer.Option(help="Maximum loss of top-1 in points; exit code 3 if exceeded.", rich_help_panel=_QAT)
    ] = None,
    distil: Annotated[  # noqa: ARG001
        float | None, typer.Option(help="Share of the loss against FP32's predictions (default: 0.5).", rich_help_panel=_QAT)
    ] = None,
    allow_random: Annotated[  # noqa: ARG001
        bool, typer.Option("--allow-random", help="Accept noise images and random weights.", rich_help_panel=_QAT)
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted training.", rich_help_panel=_KEPT)] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing training.", rich_help_panel=_KEPT)] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print result.json to stdout.", rich_help_panel=_KEPT)] = False,
) -> None:
    """Train a network, and print the build command for its weights.

    edge-resnet train --family cifar --depth 20 --data cifar10 --rate 0.2 --weight-decay 5e-4 -o runs/r20

    edge-resnet train --depth 18 --weights default --freeze layer2 --data images/ --epochs 10 --rate 0.01

    edge-resnet train --qat artifacts/mine --data train/ --val-data val/ --max-drop 1 -o artifacts/mine-qat

    torchrun --nproc-per-node 2 -m edge_resnet train --depth 50 --data imagenet/ --schedule paper-imagenet --epochs 90
    """
    if qat is not None:
        _fine_tune(context, qat)
        return
    _refuse(context, _QAT_ONLY, "is only for --qat ARTIFACT", "leave it out, or give an INT8 artifact with --qat")
    from edge_resnet import api
    from edge_resnet.network.training import TrainOptions
    from edge_resnet.network.training.job import NetworkChoice
    from edge_resnet.network.training.options import usual_augmentation

    train_options = TrainOptions(
        epochs=epochs, batch=batch, rate=rate, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov and momentum > 0,
        decay_norms=decay_norms, schedule=schedule, warm_up=warm_up, label_smoothing=label_smoothing, ema=ema,
        precision=precision, channels_last=channels_last, augment=augment or usual_augmentation(family, data), seed=seed,
        deterministic=deterministic, max_steps=max_steps, test_every=test_every, patience=patience, keep=keep,
        workers=workers, sync_bn=sync_bn, tensorboard=tensorboard, device=device,
    )  # fmt: skip
    option = shortcut or FAMILIES[family].shortcut
    network = NetworkChoice(family, depth, option, plain, classes, input_size, mean, std, weights, freeze)
    with train_bar(epochs) as progress:
        try:
            done = api.train(
                network, data, validation=val_data, options=train_options, output=output, resume=resume, force=force,
                progress=progress,
            )  # fmt: skip
        except KeyboardInterrupt:
            typer.echo("interrupted: add --resume to the same command to continue after the last complete epoch", err=True)
            raise typer.Exit(INTERRUPTED) from None
    _print_result(done, json_output=json_output)
    if done.result.diverged:
        raise ConfigError(done.result.stopped or "", hint="a lower --rate, or --warm-up 0.01 for a deep network")


def _fine_tune(context: typer.Context, artifact: Path) -> None:
    """Pass on only the options that were given: the others have different defaults in fine-tuning."""
    from edge_resnet.cli.qat import QatArguments, fine_tune

    given = {name: value for name, value in context.params.items() if _was_given(context, name)}
    shared = {"output", "force", "json_output", "qat"}
    known = {field.name for field in fields(QatArguments)}
    _refuse(
        context, frozenset(given) - known - shared, "cannot be used with --qat", "leave it out: the artifact defines the network"
    )
    arguments = QatArguments(**{name: value for name, value in given.items() if name in known})
    output = context.params["output"] or Path("artifacts") / f"{artifact.resolve().name}-qat"
    fine_tune(artifact, output, arguments, force=context.params["force"], json_output=context.params["json_output"])


def _refuse(context: typer.Context, names: frozenset[str], why: str, hint: str) -> None:
    for name in sorted(names):
        if _was_given(context, name):
            raise ConfigError(f"--{name.replace('_', '-')} {why}", hint=hint)


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _print_result(done: JobResult, *, json_output: bool) -> None:
    if os.environ.get("RANK", "0") != "0":  # under torchrun only one process prints
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
