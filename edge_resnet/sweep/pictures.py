"""Opens the images of a sweep: those that accuracy is measured on, and others to calibrate INT8 on. Knows no network's file."""

from __future__ import annotations

from collections.abc import Sequence

from edge_resnet.images.datasets import open_data
from edge_resnet.images.imageset import ImageSet, balanced_sample, check_labels, require_several
from edge_resnet.sweep.plan import Target
from edge_resnet.sweep.request import SweepRequest
from edge_resnet.sweep.split import Pictures, hold_out, shared_images

__all__ = ["open_pictures"]


def open_pictures(request: SweepRequest, targets: Sequence[Target]) -> Pictures:
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
        return Pictures(evaluation, None, _said(evaluation), "")
    if request.calibration_data is None:
        if evaluation is None:
            return Pictures(None, None, _said(None), "none: INT8 cannot be made without pictures")
        return hold_out(evaluation, request.recipe)
    given = open_data(request.calibration_data, split="train")
    require_several(given)
    sample = balanced_sample(given, request.recipe.images, request.recipe.seed)
    said = f"{len(sample)} images of {given.name}, drawn with seed {request.recipe.seed}"
    shared = 0 if evaluation is None else shared_images(sample, evaluation)
    if shared:
        said += f"; {shared} of them are evaluated too, which flatters INT8"
    return Pictures(evaluation, sample, _said(evaluation), said)


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
