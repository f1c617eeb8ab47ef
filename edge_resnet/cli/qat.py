"""``edge-resnet train --qat ARTIFACT``. Knows the arguments and how the result is printed; the work is done by the pipeline."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edge_resnet.cli.progress import train_bar

if TYPE_CHECKING:
    from edge_resnet.artifact.folder import Artifact
    from edge_resnet.network.training.options import TrainOptions
    from edge_resnet.pipelines.finetune import FineTuned

__all__ = ["QatArguments", "fine_tune"]


@dataclass(frozen=True)
class QatArguments:
    """The arguments of ``train --qat``; None for an option that is not given and has a default of its own in fine-tuning."""

    data: str
    val_data: str | None = None
    epochs: float | None = None
    batch: int | None = None
    rate: float | None = None
    augment: str | None = None
    seed: int = 0
    max_steps: int | None = None
    max_drop: float | None = None
    distil: float = 0.5
    allow_random: bool = False


def fine_tune(artifact: Path, output: Path, arguments: QatArguments, *, force: bool = False, json_output: bool = False) -> None:
    """Fine-tune and print the result. Raises BudgetError (exit code 3) if the budget is missed."""
    from edge_resnet import api
    from edge_resnet.artifact.folder import open_artifact

    opened = open_artifact(artifact)
    training = _training(arguments, opened)
    with train_bar(training.epochs) as progress:
        tuned = api.finetune(
            opened, arguments.data, output=output, validation=arguments.val_data, training=training,
            distil=arguments.distil, max_drop=arguments.max_drop, allow_random=arguments.allow_random, force=force,
            progress=progress,
        )  # fmt: skip
    if json_output:
        typer.echo(json.dumps(_record(tuned)))
    else:
        for line in _lines(tuned):
            typer.echo(line)
    if tuned.missed is not None:
        raise tuned.missed


def _training(arguments: QatArguments, artifact: Artifact) -> TrainOptions:
    from edge_resnet.artifact.schema import nearest_family
    from edge_resnet.network.training.options import usual_augmentation
    from edge_resnet.pipelines.finetune import DEFAULTS

    augment = arguments.augment or usual_augmentation(nearest_family(artifact.manifest.model), arguments.data)
    values = {name: getattr(arguments, name) for name in ("epochs", "batch", "rate", "max_steps")}
    given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    return replace(DEFAULTS, **{**given, "seed": arguments.seed, "augment": augment})


def _record(tuned: FineTuned) -> dict[str, Any]:
    """The record that --json prints."""
    accuracy, top1 = tuned.accuracy, None
    if accuracy is not None:
        top1 = {"fp32": accuracy.fp32_top1, "int8_before": accuracy.before_top1, "int8": accuracy.int8_top1}
    return {
        "artifact": str(tuned.artifact.folder),
        "qat": asdict(tuned.artifact.calibration())["qat"],
        "images": None if accuracy is None else len(accuracy.labels),
        "top1": top1,
        "budget_holds": None if accuracy is None or not _has_budget(tuned) else tuned.missed is None,
        "records": [asdict(record) for record in tuned.result.records],
        "stopped": tuned.result.stopped,
    }


def _has_budget(tuned: FineTuned) -> bool:
    return tuned.missed is not None or tuned.artifact.manifest.budget is not None


def _lines(tuned: FineTuned) -> list[str]:
    last, manifest = tuned.result.records[-1], tuned.artifact.manifest
    lines = [
        f"fine-tuned {tuned.artifact.folder}: {manifest.model.name} int8, {last.step} steps in {tuned.result.seconds:.0f} s",
        f"INT8: {manifest.calibration}",
    ]
    if tuned.result.stopped is not None:
        lines.append(f"stopped: {tuned.result.stopped}")
    accuracy, budget = tuned.accuracy, manifest.budget
    if accuracy is not None:
        int8 = f"INT8 {accuracy.before_top1:.2f} % before and {accuracy.int8_top1:.2f} % after"
        lines.append(f"top-1 on {len(accuracy.labels)} images: FP32 {accuracy.fp32_top1:.2f} %, {int8}")
    if budget is not None:
        low, high = budget.drop_ci95
        lines.append(
            f"budget of {budget.max_drop:g} points met: drop {budget.drop:.2f} points (95 % interval {low:.2f} to {high:.2f})"
        )
    return [*lines, f"next: edge-resnet eval {tuned.artifact.folder} --simulate-int8 --data IMAGES"]
