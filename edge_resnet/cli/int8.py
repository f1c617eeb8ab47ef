"""What build and calibrate share: the recipe with the user's words in it, and how INT8's budget and warnings are told."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import typer

from edge_resnet.core.records import CalibMethod, Correction, Family

if TYPE_CHECKING:
    from edge_resnet.artifact.folder import Artifact
    from edge_resnet.quantization.recipes import NamedRecipe

__all__ = ["RecipeOverrides", "named_recipe", "tell_int8"]

#: --calib-method, --calib-images, --percentile, --seed and --correct, None where not given.
RecipeOverrides: TypeAlias = tuple[CalibMethod | None, int | None, float | None, int | None, Correction | None]
#: Rows of the ranking shown; the manifest has them all.
_SHOWN = 8


def named_recipe(name: str | None, family: Family, words: RecipeOverrides) -> NamedRecipe:
    """The recipe of that name or file, else the family's, with the user's words in place of its own values."""
    from edge_resnet.quantization.recipes import RecipeChanges, changed, load_recipe, recipe_for

    named = load_recipe(name or recipe_for(family))
    return replace(named, recipe=changed(named.recipe, RecipeChanges(*words)))


def tell_int8(artifact: Artifact) -> None:
    """What was calibrated, whether the budget holds and what it cost, and each warning on stderr."""
    manifest = artifact.manifest
    if manifest.recipe is None:
        return
    typer.echo(f"INT8: {manifest.calibration}, method {manifest.recipe.method}, correction {manifest.recipe.correction}")
    for line in manifest.warnings:
        typer.echo(f"warning: {line}", err=True)
    budget = manifest.budget
    if budget is None:
        return
    low, high = budget.drop_ci95
    accuracies = f"FP32 {budget.fp32_top1:.2f} %, INT8 {budget.int8_top1:.2f} %, drop {budget.drop:.2f} points"
    certainty = f"95 % interval {low:.2f} to {high:.2f}, McNemar p = {budget.mcnemar_p:.2g}"
    typer.echo(f"budget {budget.max_drop:g} holds on {budget.images} images: {accuracies} ({certainty})")
    if not budget.kept:
        typer.echo("every layer is INT8")
        return
    typer.echo(f"in FP16 for it: {', '.join(budget.kept)}; damage of each layer alone (error of the logits / their power):")
    for name, damage in budget.ranking[:_SHOWN]:
        typer.echo(f"  {damage:10.2e}  {name}")
