"""What networks answer to every image of a set: kept image by image, so that two can be compared on each. Opens no backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_resnet.core.records import Preprocess, Progress
from edge_resnet.core.statistics import Difference, difference, wilson_interval
from edge_resnet.images.imageset import ImageSet, batches
from edge_resnet.runtime.backend import Backend
from edge_resnet.runtime.postprocess import check_finite, softmax

__all__ = ["Accuracy", "Answers", "accuracy_of", "answer", "paired"]

#: Pictures per call: large enough to fill the cores, small enough for any device's memory.
BATCH = 8


@dataclass(frozen=True)
class Answers:
    """``best``: a class per image of the set, -1 where it cannot be read. ``probability``: of that class, in [0, 1]. ``five``:
    the five best hold the label, ``1`` or ``0`` an image, empty without labels."""

    best: tuple[int, ...]
    probability: tuple[float, ...]
    five: str


@dataclass(frozen=True)
class Accuracy:
    """Shares in percent. ``ci95``: Wilson's interval of ``top1``. ``data``: what the images are called; ``data_digest``: sha256
    over them, empty where it is not known. ``right``: a ``1`` or ``0`` per image, in the set's order, empty where it is not
    known: two of them with the same ``data_digest`` are compared image by image."""

    images: int
    top1: float
    top5: float
    ci95: tuple[float, float]
    data: str
    data_digest: str = ""
    right: str = ""
    skipped: int = 0


def answer(
    networks: Sequence[Backend],
    images: ImageSet,
    spec: Preprocess,
    *,
    progress: Progress | None = None,
    skipped: list[str] | None = None,
) -> tuple[Answers, ...]:
    """Let every network classify every image; each is decoded once. The place of one that cannot be read goes to ``skipped``.

    Raises DataError where too many cannot be read, and BackendError where a logit is not a finite number.
    """
    found = [_Answered(images) for _ in networks]
    done = 0
    for batch in batches(images, spec, BATCH, skipped=skipped):
        if progress is not None:
            progress("evaluate", done, len(images))
        labels = None if images.labels is None else np.array([images.labels[index] for index in batch.indices])
        for network, one in zip(networks, found, strict=True):
            one.add(batch.indices, network.infer(batch.images), labels)
        done += len(batch.images)
    if progress is not None:
        progress("evaluate", len(images), len(images))
    return tuple(one.all() for one in found)


def accuracy_of(answers: Answers, images: ImageSet, digest: str) -> Accuracy | None:
    """Top-1 and top-5 over the images that could be read; None without labels."""
    if images.labels is None:
        return None
    read = [index for index, best in enumerate(answers.best) if best >= 0]
    right = "".join("01"[answers.best[index] == images.labels[index]] for index in read)
    hits, five = right.count("1"), sum(answers.five[index] == "1" for index in read)
    low, high = wilson_interval(hits, len(read))
    return Accuracy(
        images=len(read),
        top1=100 * hits / len(read),
        top5=100 * five / len(read),
        ci95=(100 * low, 100 * high),
        data=images.name,
        data_digest=digest,
        right=right,
        skipped=len(images) - len(read),
    )


def paired(one: Accuracy | None, other: Accuracy | None) -> Difference | None:
    """By how many points ``other`` is below ``one``, image by image; None where they are not of the same images."""
    if (
        one is None
        or other is None
        or not one.right
        or one.data_digest != other.data_digest
        or len(one.right) != len(other.right)
    ):
        return None
    only_one = sum(a == "1" and b == "0" for a, b in zip(one.right, other.right, strict=True))
    only_other = sum(a == "0" and b == "1" for a, b in zip(one.right, other.right, strict=True))
    return difference(only_one, only_other, len(one.right))


class _Answered:
    """One network's answers so far."""

    def __init__(self, images: ImageSet) -> None:
        self._labelled = images.labels is not None
        self._best = np.full(len(images), -1)
        self._probability = np.zeros(len(images))
        self._five = np.zeros(len(images), bool)

    def add(
        self,
        indices: np.ndarray[tuple[int], np.dtype[np.int64]],
        logits: np.ndarray[tuple[int, int], np.dtype[np.float32]],
        labels: np.ndarray[tuple[int], np.dtype[np.int64]] | None,
    ) -> None:
        """One batch: places in the set (n,), logits (n, classes), labels (n,)."""
        check_finite(logits)
        ordered = np.argsort(-logits, axis=1, kind="stable")[:, :5]
        best = ordered[:, :1]
        self._best[indices] = best[:, 0]
        self._probability[indices] = np.take_along_axis(softmax(logits), best, axis=1)[:, 0]
        if labels is not None:
            self._five[indices] = (ordered == labels[:, None]).any(axis=1)

    def all(self) -> Answers:
        """All of them."""
        five = "".join("01"[hit] for hit in self._five.tolist()) if self._labelled else ""
        return Answers(tuple(self._best.tolist()), tuple(self._probability.round(4).tolist()), five)
