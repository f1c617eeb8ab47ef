"""Images for calibration and for evaluation that have nothing in common. Knows no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_resnet.core.errors import DataError
from edge_resnet.core.records import QuantRecipe
from edge_resnet.images.datasets import open_data
from edge_resnet.images.imageset import ImageSet, balanced_sample, check_labels, require_several
from edge_resnet.studies.sweep.plan import SweepRequest, Target

__all__ = ["ImageSplit", "hold_out", "open_split", "shared_images"]

#: Held out of the evaluation at most, and as a part of it: calibration needs 128 images, and more gain little.
_HELD_OUT, _PART = 128, 3
#: Fewer images than this are not worth splitting.
_MIN = 24


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """``evaluation``, ``calibration``: None where there are none; ``evaluation_said``, ``calibration_said``: a line on each for
    people."""

    evaluation: ImageSet | None
    calibration: ImageSet | None
    evaluation_said: str
    calibration_said: str


def hold_out(images: ImageSet, recipe: QuantRecipe) -> ImageSplit:
    """Split a set: a third of it, 128 images or the recipe's number at most, for calibration, drawn by the recipe's seed.

    The same images on every machine, whatever is measured. Raises DataError where there are too few to split.
    """
    if len(images) < _MIN:
        raise DataError(
            f"{len(images)} images are too few to calibrate on some and measure on others",
            hint="--calib-data takes images of their own for INT8",
        )
    count = min(_HELD_OUT, recipe.images, len(images) // _PART)
    chosen = set(balanced_sample(images, count, recipe.seed))
    evaluation = images.subset(index for index in range(len(images)) if index not in chosen)
    calibration = images.subset(sorted(chosen))
    unlabelled = "" if images.labels is not None else ", which have no labels: accuracy was not measured, only what changes"
    return ImageSplit(
        evaluation,
        calibration,
        f"{len(evaluation)} of the {len(images)} images of {images.name}{unlabelled}",
        f"the other {len(calibration)} images of {images.name}, drawn with seed {recipe.seed}: none of them is evaluated",
    )


def shared_images(one: ImageSet, other: ImageSet) -> int:
    """How many images of ``one`` are in ``other`` too, byte for byte."""
    known = {other.source.digest(index) for index in range(len(other))}
    return sum(one.source.digest(index) in known for index in range(len(one)))


def open_split(request: SweepRequest, targets: Sequence[Target]) -> ImageSplit:
    """The two sets, with nothing in common unless the user gave both, which is then said.

    Raises DataError where a set cannot be opened, its labels are another network's, or there are too few images.
    """
    calibrates = any(target.network is not None and target.precision == "int8" for target in targets)
    evaluation = None
    if request.data is not None and targets:
        evaluation = open_data(request.data, split="test", label_names=_label_names(targets))
        for target in targets:
            check_labels(evaluation, target.model.classes)
    if not calibrates:
        return ImageSplit(evaluation, None, _said(evaluation), "")
    if request.calibration_data is None:
        if evaluation is None:
            return ImageSplit(None, None, _said(None), "none: INT8 cannot be made without images")
        return hold_out(evaluation, request.recipe)
    given = open_data(request.calibration_data, split="train")
    require_several(given)
    sample = given.subset(balanced_sample(given, request.recipe.images, request.recipe.seed))
    said = f"{len(sample)} images of {given.name}, drawn with seed {request.recipe.seed}"
    shared = 0 if evaluation is None else shared_images(sample, evaluation)
    if shared:
        said += f"; {shared} of them are evaluated too, which flatters INT8"
    return ImageSplit(evaluation, sample, _said(evaluation), said)


def _said(evaluation: ImageSet | None) -> str:
    if evaluation is None:
        return "Accuracy was not measured: no images were given"
    labels = "" if evaluation.labels is not None else ", which have no labels: accuracy was not measured, only what changes"
    return f"{len(evaluation)} images of {evaluation.name}{labels}"


def _label_names(targets: Sequence[Target]) -> tuple[str, ...] | None:
    """What the classes are called, to match folders with: the first artifact's labels, else the family's own names."""
    given = next((target.given for target in targets if target.given is not None), None)
    if given is not None:
        return given.labels
    try:
        from edge_resnet.network import class_names
    except ImportError:  # the build will say what is missing
        return None
    return class_names(targets[0].model)
