"""``edge-resnet train --qat ARTIFACT``. Knows the words and what is told; the work is edge_resnet.quantization.qat's."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edge_resnet.cli.progress import train_bar

if TYPE_CHECKING:
    from edge_resnet.artifact.folder import Artifact
    from edge_resnet.pipelines.finetune import FineTuned, QatOptions

__all__ = ["QatArguments", "fine_tune"]


@dataclass(frozen=True)
class QatArguments:
    """What was typed after ``--qat``; None where the user did not say and fine-tuning has a default of its own."""

    data: str
    val_data: str | None = None
    epochs: float | None = None
    batch: int | None = None
    rate: float | None = None
    augment: str | None = None
    seed: int = 0
    max_steps: int | None = None
    max_drop: float | None = None
    distil: float | None = None
    allow_random: bool = False


def fine_tune(artifact: Path, output: Path, words: QatArguments, *, force: bool = False, json_output: bool = False) -> None:
    """Fine-tune, tell what came of it, and end with exit code 3 where the budget is missed."""
    from edge_resnet.artifact.folder import open_artifact
    from edge_resnet.pipelines import finetune

    opened = open_artifact(artifact)
    options = _options(words, opened)
    with train_bar(options.training.epochs) as progress:
        tuned = finetune.fine_tune(opened, options, output, force=force, progress=progress)
    if json_output:
        typer.echo(json.dumps(_record(tuned)))
    else:
        for line in _lines(tuned):
            typer.echo(line)
    if tuned.missed is not None:
        raise tuned.missed


def _options(words: QatArguments, artifact: Artifact) -> QatOptions:
    from edge_resnet.pipelines.finetune import DEFAULTS, QatOptions
    from edge_resnet.quantization.recipes import load_recipe, recipe_for

    family = artifact.manifest.model.family
    usual = "shift" if words.data == "digits" else family  # mirrored digits are no digits
    typed = {"epochs": words.epochs, "batch": words.batch, "rate": words.rate, "max_steps": words.max_steps}
    given: dict[str, Any] = {name: value for name, value in typed.items() if value is not None}
    training = replace(DEFAULTS, **{**given, "seed": words.seed, "augment": words.augment or usual})
    share = {} if words.distil is None else {"distil": words.distil}
    return QatOptions(
        data=words.data,
        recipe=load_recipe(recipe_for(family)).recipe,
        validation=words.val_data,
        training=training,
        max_drop=words.max_drop,
        allow_random=words.allow_random,
        **share,
    )


def _record(tuned: FineTuned) -> dict[str, Any]:
    """What --json prints."""
    seen = tuned.judged
    top1 = None if seen is None else {"fp32": seen.fp32_top1, "int8_before": seen.before_top1, "int8": seen.int8_top1}
    return {
        "artifact": str(tuned.artifact.folder),
        "qat": asdict(tuned.artifact.calibration())["qat"],
        "images": None if seen is None else len(seen.labels),
        "top1": top1,
        "budget_holds": None if seen is None or not _asked(tuned) else tuned.missed is None,
        "records": [asdict(record) for record in tuned.result.records],
        "stopped": tuned.result.stopped,
    }


def _asked(tuned: FineTuned) -> bool:
    return tuned.missed is not None or tuned.artifact.manifest.budget is not None


def _lines(tuned: FineTuned) -> list[str]:
    last, manifest = tuned.result.records[-1], tuned.artifact.manifest
    lines = [
        f"fine-tuned {tuned.artifact.folder}: {manifest.model.name} int8, {last.step} steps in {tuned.result.seconds:.0f} s",
        f"INT8: {manifest.calibration}",
    ]
    if tuned.result.stopped is not None:
        lines.append(f"stopped: {tuned.result.stopped}")
    seen, budget = tuned.judged, manifest.budget
    if seen is not None:
        tops = f"FP32 {seen.fp32_top1:.2f} %, INT8 {seen.before_top1:.2f} % before and {seen.int8_top1:.2f} % after"
        lines.append(f"top-1 on {len(seen.labels)} images: {tops}")
    if budget is not None:
        low, high = budget.drop_ci95
        lines.append(f"budget {budget.max_drop:g} holds: drop {budget.drop:.2f} points (95 % interval {low:.2f} to {high:.2f})")
    return [*lines, f"next: edge-resnet eval {tuned.artifact.folder} --simulate-int8 --data IMAGES"]
