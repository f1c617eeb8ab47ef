"""``edge-resnet calibrate --threshold``: finds temperature and threshold, stores them, and prints them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edge_resnet.cli.opened import open_announced
from edge_resnet.cli.progress import progress_bars
from edge_resnet.core.errors import ConfigError
from edge_resnet.core.text import printable

if TYPE_CHECKING:
    from edge_resnet.artifact.schema import ConfidenceRule

__all__ = ["ThresholdRequest", "calibrate_threshold"]


@dataclass(frozen=True)
class ThresholdRequest:
    """The user's arguments. ``text``: percent of wrong answers, or ``off``; the others are those of the same names."""

    artifact: Path | None
    text: str
    val_data: str | None
    backend: str
    simulate_int8: bool
    json_output: bool


def calibrate_threshold(request: ThresholdRequest) -> None:
    """Store the threshold for that share of wrong answers in the artifact, or remove it with ``off``.

    Raises ConfigError for another text and without labelled images, and what finding and writing raise.
    """
    if request.text != "off" and request.val_data is None:
        raise ConfigError(
            "--threshold needs labelled images that the network was not trained on",
            hint="--val-data takes a folder of class folders, a CSV, an .npz or a name",
        )
    max_wrong = None if request.text == "off" else _percent(request.text)
    opened = open_announced(request.artifact, request.backend, "simulated" if request.simulate_int8 else "native")
    from edge_resnet.images.datasets import open_labelled
    from edge_resnet.images.labelfile import named_classes
    from edge_resnet.pipelines.confidence import add_confidence, remove_confidence

    if max_wrong is None or request.val_data is None:
        made = remove_confidence(opened)
    else:
        classes, names = opened.manifest.model.classes, named_classes(opened.labels)
        images = open_labelled(request.val_data, split="test", classes=classes, label_names=names)
        with progress_bars() as progress:
            made = add_confidence(
                opened, images, max_wrong, backend=request.backend, simulate=request.simulate_int8, progress=progress
            )
    rule = made.manifest.confidence
    if request.json_output:
        typer.echo(json.dumps({"artifact": str(made.folder), "confidence": None if rule is None else asdict(rule)}))
        return
    for line in _lines(rule):
        typer.echo(printable(line))


def _percent(text: str) -> float:
    try:
        return float(text.removesuffix("%"))
    except ValueError as error:
        hint = "--threshold 1 lets at most 1 % wrong answers through; --threshold off removes the threshold"
        raise ConfigError(f"--threshold takes a share in percent or off, not {text}", hint=hint) from error


def _lines(rule: ConfidenceRule | None) -> list[str]:
    """The rule and what it rests on, about 80 columns wide."""
    if rule is None:
        return ["the artifact has no threshold: no answer is unknown unless run --min-confidence says so"]
    computed = {"int8-cpu": "INT8 of CPUs", "int8-tensorrt": "INT8 of TensorRT"}.get(rule.computation, rule.computation.upper())
    held = "no part of the images gave a threshold for the others"
    if rule.held_out_answered:
        share = 100 * rule.held_out_wrong / rule.held_out_answered
        held = f"{rule.held_out_wrong} of {rule.held_out_answered} answers wrong ({share:.2f} %), in five parts"
    answered, share = rule.answered, 100 * rule.wrong / rule.answered
    unknown = f"{answered} answers ({100 * answered / rule.images:.1f} %), {rule.images - answered} unknown"
    return [
        f"{rule.images} labelled images, {computed} on {rule.backend}",
        f"temperature  {rule.temperature:.3f}   ECE {rule.ece_before:.2f} points at 1, {rule.ece_after:.2f} here (held out)",
        f"threshold    {rule.threshold:.4f}  {unknown}",
        f"wrong        {rule.wrong} of {answered} answers: {share:.2f} %, 95 % bound {rule.wrong_bound:.2f} %",
        f"held out     {held}",
        "stored in the artifact: run uses it; run --min-confidence overrides it",
    ]
