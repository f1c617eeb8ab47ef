"""Two accuracies beside each other: image by image where both were measured on the same ones, else by their intervals."""

from __future__ import annotations

from edge_resnet.answers import Accuracy, paired
from edge_resnet.compare.record import Delta, overlap, verdict
from edge_resnet.evaluate import Evaluation

__all__ = ["evaluations", "other_notes", "top1", "unpaired"]

_NOTED = ("model", "images", "data", "backend", "precision", "simulated")
_UNPAIRED = "top-1 is not compared image by image: "


def top1(name: str, old: Accuracy, new: Accuracy, tolerance: float) -> Delta:
    """The change in points. Two intervals of 500 images are 7 points wide and overlap; on the same images far less is told."""
    change, difference = new.top1 - old.top1, paired(old, new)
    apart = not overlap(old.ci95, new.ci95)
    between = None
    if difference is not None:
        low, high = difference.ci95  # of old minus new
        between = (-high, -low)
        apart = difference.told_apart
    judged = verdict(change, tolerance, apart=apart, higher_is_better=True)
    return Delta(name, "%", old.top1, new.top1, old.ci95, new.ci95, change, judged, between)


def evaluations(old: Evaluation, new: Evaluation, tolerance: float) -> list[Delta]:
    """Top-1, which is judged; top-5 and the agreement with FP32, which are shown."""
    shown = (("top-5", old.top5, new.top5), ("agreement", old.agreement, new.agreement))
    return [
        top1("top-1", old.accuracy, new.accuracy, tolerance),
        *(Delta(name, "%", before, after, None, None, after - before, "same") for name, before, after in shown),
    ]


def other_notes(old: Evaluation, new: Evaluation) -> list[str]:
    """What else differs, and why the images are not paired where they are not."""
    notes = [
        f"{name} was {getattr(old, name)}, is {getattr(new, name)}" for name in _NOTED if getattr(old, name) != getattr(new, name)
    ]
    return [*notes, *unpaired(old.accuracy, new.accuracy)]


def unpaired(old: Accuracy, new: Accuracy) -> list[str]:
    """Why the two are not compared image by image; nothing where they are."""
    if not (old.right and new.right):
        return [f"{_UNPAIRED}eval --save keeps what that needs, --json does not"]
    if old.data_digest != new.data_digest:
        return [f"{_UNPAIRED}the images are others"]
    if len(old.right) != len(new.right):
        return [f"{_UNPAIRED}one could not read an image that the other read"]
    return []
