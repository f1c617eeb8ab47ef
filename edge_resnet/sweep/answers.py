"""What a network answers to every image of a set: kept image by image, so that two networks can be compared on each.

Knows no metric but the count of right answers.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from edge_resnet.artifact import Artifact
from edge_resnet.backends import open_backend
from edge_resnet.errors import BackendError
from edge_resnet.imageset import ImageSet, batches
from edge_resnet.postprocess import softmax
from edge_resnet.report.record import Accuracy
from edge_resnet.spec import Progress
from edge_resnet.statistics import wilson_interval

__all__ = ["Answers", "accuracy_of", "answer", "from_cell", "to_cell"]

#: Pictures per call, as edge-resnet eval takes them.
BATCH = 8


@dataclass(frozen=True)
class Answers:
    """``best``: a class per image of the set, -1 where it cannot be read. ``probability``: of that class, in [0, 1]. ``five``:
    the five best hold the label, ``1`` or ``0`` an image, empty without labels. ``seconds``: that it took."""

    best: tuple[int, ...]
    probability: tuple[float, ...]
    five: str
    seconds: float


def answer(artifact: Artifact, images: ImageSet, backend: str, *, progress: Progress | None = None) -> Answers:
    """Classify every image. Raises what opening and running the backend raises, and DataError where images cannot be read."""
    best, probability = [-1] * len(images), [0.0] * len(images)
    five = ["0"] * len(images)
    started, done = time.monotonic(), 0
    with open_backend(artifact, backend) as network:
        for batch in batches(images, artifact.manifest.preprocess, BATCH):
            if progress is not None:
                progress("evaluate", done, len(images))
            logits = network.infer(batch.images)
            if not np.isfinite(logits).all():
                raise BackendError("the network's answer is not a number (NaN or infinity)", hint="FP16 overflows so")
            ordered = np.argsort(-logits, axis=1, kind="stable")
            shares = softmax(logits)
            for row, index in enumerate(batch.indices.tolist()):
                best[index] = int(ordered[row, 0])
                probability[index] = round(float(shares[row, ordered[row, 0]]), 4)
                five[index] = "01"[batch.labels is not None and int(batch.labels[row]) in ordered[row, :5]]
            done += len(batch.images)
    if progress is not None:
        progress("evaluate", len(images), len(images))
    told = "" if images.labels is None else "".join(five)
    return Answers(tuple(best), tuple(probability), told, time.monotonic() - started)


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


def to_cell(answers: Answers) -> Any:
    """As a cell keeps it."""
    return asdict(answers)


def from_cell(content: Any) -> Answers:
    """Back from a cell."""
    result: Answers = TypeAdapter(Answers).validate_python(content)
    return result
