"""Disjoint sets of images for calibration and for evaluation. Does not know about networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_resnet.artifact.schema import ForeignSpec
from edge_resnet.core.errors import DataError
from edge_resnet.core.records import QuantRecipe
from edge_resnet.images.datasets import open_data
from edge_resnet.images.imageset import ImageSet, balanced_sample, check_class_names, check_labels, require_several
from edge_resnet.studies.sweep.plan import SweepRequest, Target

__all__ = ["ImageSplit", "hold_out", "open_split", "shared_images"]

#: The calibration set is at most this many images and one such part of the set: calibration gains little from more than 128.
_MAX_HELD_OUT, _PART = 128, 3
#: A set with fewer images is not split.
_MIN_IMAGES = 24


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """The images to evaluate and to calibrate on, None if there are none, and a line for the report about each."""

    evaluation: ImageSet | None
    calibration: ImageSet | None
    evaluation_note: str
    calibration_note: str


def hold_out(images: ImageSet, recipe: QuantRecipe) -> ImageSplit:
    """Split a set: a third of it, but at most 128 images or the recipe's number, is drawn for calibration with the recipe's seed.

    The split is the same on every machine and for all networks. Raises DataError if there are too few images.
    """
    if len(images) < _MIN_IMAGES:
        raise DataError(
            f"{len(images)} images are too few to calibrate on some and evaluate on the others",
            hint="--calib-data takes separate images for INT8",
        )
    count = min(_MAX_HELD_OUT, recipe.images, len(images) // _PART)
    chosen = set(balanced_sample(images, count, recipe.seed))
    evaluation = images.subset(index for index in range(len(images)) if index not in chosen)
    calibration = images.subset(sorted(chosen))
    return ImageSplit(
        evaluation,
        calibration,
        f"{len(evaluation)} of the {len(images)} images of {images.name}{_without_labels(images)}",
        f"the other {len(calibration)} images of {images.name}, drawn with seed {recipe.seed}; none of them is evaluated",
    )


def shared_images(one: ImageSet, other: ImageSet) -> int:
    """The number of images of ``one`` that are also in ``other``, byte for byte."""
    known = {other.source.digest(index) for index in range(len(other))}
    return sum(one.source.digest(index) in known for index in range(len(one)))


def open_split(request: SweepRequest, targets: Sequence[Target]) -> ImageSplit:
    """Open the images to evaluate and to calibrate on. They are disjoint, unless the user gives overlapping sets.

    Raises DataError if a set cannot be opened, its labels do not fit a network, or it has too few images.
    """
    calibrates = any(target.network is not None and target.precision == "int8" for target in targets)
    evaluation = None
    if request.data is not None and targets:
        evaluation = open_data(request.data, split="test", label_names=_label_names(targets))
        for target in targets:
            check_labels(evaluation, target.model.classes)
            if target.given is not None:
                check_class_names(evaluation, target.given.labels)
    if not calibrates:
        return ImageSplit(evaluation, None, _evaluation_note(evaluation), "")
    if request.calibration_data is None:
        if evaluation is None:
            return ImageSplit(None, None, _evaluation_note(None), "none: INT8 cannot be built without images")
        return hold_out(evaluation, request.recipe)
    given = open_data(request.calibration_data, split="train")
    require_several(given)
    sample = given.subset(balanced_sample(given, request.recipe.images, request.recipe.seed))
    note = f"{len(sample)} images of {given.name}, drawn with seed {request.recipe.seed}"
    shared = 0 if evaluation is None else shared_images(sample, evaluation)
    if shared:
        note += f"; {shared} of them are also used for evaluation, which favours INT8"
    return ImageSplit(evaluation, sample, _evaluation_note(evaluation), note)


def _evaluation_note(evaluation: ImageSet | None) -> str:
    if evaluation is None:
        return "Accuracy was not measured: no images were given"
    return f"{len(evaluation)} images of {evaluation.name}{_without_labels(evaluation)}"


def _without_labels(images: ImageSet) -> str:
    if images.labels is not None:
        return ""
    return ", which have no labels: accuracy was not measured, only how many predictions change"


def _label_names(targets: Sequence[Target]) -> tuple[str, ...] | None:
    """Class names to match class folders with: the labels of the first artifact, else the family's names."""
    given = next((target.given for target in targets if target.given is not None), None)
    if given is not None:
        return given.labels
    try:
        from edge_resnet.network import class_names
    except ImportError:  # the build reports what is missing
        return None
    model = targets[0].model
    return None if isinstance(model, ForeignSpec) else class_names(model)
