"""What build and calibrate share: printing how an artifact was calibrated, its budget and its warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from edge_resnet.core.text import printable

if TYPE_CHECKING:
    from edge_resnet.artifact.folder import Artifact

__all__ = ["print_int8"]

#: Layers of the ranking that are printed; the manifest has them all.
_SHOWN = 8


def print_int8(artifact: Artifact) -> None:
    """Print how an artifact was calibrated and what its budget cost, and each warning on stderr; nothing unless it is INT8."""
    manifest = artifact.manifest
    if manifest.recipe is None:
        return
    recipe = manifest.recipe
    typer.echo(printable(f"INT8: {manifest.calibration}, method {recipe.method}, correction {recipe.correction}"))
    if recipe.keep_high_precision:
        typer.echo(printable(f"in high precision: {', '.join(recipe.keep_high_precision)}"))
    for line in manifest.warnings:
        typer.echo(printable(f"warning: {line}"), err=True)
    budget = manifest.budget
    if budget is None:
        return
    low, high = budget.drop_ci95
    accuracies = f"FP32 {budget.fp32_top1:.2f} %, INT8 {budget.int8_top1:.2f} %, drop {budget.drop:.2f} points"
    certainty = f"95 % interval {low:.2f} to {high:.2f}, McNemar p = {budget.mcnemar_p:.2g}"
    typer.echo(f"budget of {budget.max_drop:g} points met on {budget.images} images: {accuracies} ({certainty})")
    if not budget.kept:
        typer.echo("no layer had to be kept in FP16 for it")
        return
    typer.echo(f"kept in FP16: {', '.join(budget.kept)}; damage of each layer alone (squared error of the logits / their power):")
    for name, damage in budget.ranking[:_SHOWN]:
        typer.echo(f"  {damage:10.2e}  {name}")
