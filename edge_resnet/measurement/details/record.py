"""The record of ``eval --details``: accuracy per class, confusion, reliability, and wrong answers by threshold. Draws nothing."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edge_resnet.artifact.folder import Artifact
from edge_resnet.artifact.schema import Computation
from edge_resnet.core.statistics import wilson_interval
from edge_resnet.images.imageset import ImageSet, require_labels
from edge_resnet.measurement.accuracy import Evaluation
from edge_resnet.measurement.reliability import Reliability, reliability
from edge_resnet.runtime.answers import AnswerRule, computation_of
from edge_resnet.runtime.backend import Logits
from edge_resnet.runtime.postprocess import softmax

__all__ = [
    "KIND",
    "SCHEMA",
    "ClassAccuracy",
    "ConfusedPair",
    "Details",
    "DetailsCollector",
    "Example",
    "ThresholdRow",
    "details_json",
]

#: Version of the file format.
SCHEMA = 1
KIND: Literal["edge-resnet eval details"] = "edge-resnet eval details"
#: Thresholds that are tabulated beside the artifact's own.
_THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
#: Confused pairs that are kept, and examples of each: the most confident, which no threshold finds.
_PAIRS, _EXAMPLES = 12, 6


@dataclass(frozen=True)
class ClassAccuracy:
    """``images`` of the class, ``right`` of them classified as it: ``accuracy`` in percent with Wilson's interval ``ci95``, both
    None without images. ``predicted``: how many images are classified as it, and ``precision``: the share of these that is."""

    class_index: int
    label: str
    images: int
    right: int
    accuracy: float | None
    ci95: tuple[float, float] | None
    predicted: int
    precision: float | None


@dataclass(frozen=True)
class Example:
    """An image of a pair: its ``index`` in the set, ``where`` it is stored, and the ``probability`` of the wrong answer."""

    index: int
    where: str
    probability: float


@dataclass(frozen=True)
class ConfusedPair:
    """``count`` images of class ``true`` that are classified as ``predicted``, ``share`` percent of that class. ``reverse``: how
    many are the other way round. ``examples``: the most confident."""

    true: int
    predicted: int
    true_label: str
    predicted_label: str
    count: int
    share: float
    reverse: int
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class ThresholdRow:
    """``answered`` images have at least the probability ``threshold``, ``coverage`` percent of all; ``wrong`` of them are wrong,
    ``wrong_share`` percent with Wilson's interval ``ci95``; None where nothing is answered. ``own``: the artifact's threshold."""

    threshold: float
    answered: int
    coverage: float
    wrong: int
    wrong_share: float | None
    ci95: tuple[float, float] | None
    own: bool


@dataclass(frozen=True)
class Details:
    """What ``details.json`` holds; shares in percent.

    ``confusion``: [true class, predicted class, images] for each pair that occurs, right answers included. ``pairs``: the most
    frequent confusions. ``reliability``: of the probabilities as a run gives them; ``untempered``: at temperature 1, None where
    the artifact has no temperature. ``thresholds``: wrong answers by threshold. ``missing``: classes without an image.
    """

    schema_version: int
    kind: Literal["edge-resnet eval details"]
    model: str
    artifact_digest: str
    computation: Computation
    backend: str
    data: str
    images: int
    top1: float
    ci95: tuple[float, float]
    classes: tuple[ClassAccuracy, ...]
    missing: tuple[str, ...]
    confusion: tuple[tuple[int, int, int], ...]
    pairs: tuple[ConfusedPair, ...]
    reliability: Reliability
    untempered: Reliability | None
    thresholds: tuple[ThresholdRow, ...]


class DetailsCollector:
    """Takes an evaluation's logits as its ``tap``, of which it keeps the best class and its probability."""

    def __init__(self, artifact: Artifact, images: ImageSet) -> None:
        self._artifact, self._images = artifact, images
        self._labels = np.array(require_labels(images), np.int64)
        confidence = artifact.manifest.confidence
        self._rule = AnswerRule() if confidence is None else AnswerRule(confidence.temperature, confidence.threshold)
        self._best = np.full(len(images), -1, np.int64)
        self._probability, self._untempered = np.zeros(len(images)), np.zeros(len(images))

    def __call__(self, indices: npt.NDArray[np.int64], logits: Logits) -> None:
        """Take a batch: indices into the set (n,), logits (n, classes)."""
        self._best[indices] = logits.argmax(axis=1)
        self._untempered[indices] = softmax(logits).max(axis=1)
        self._probability[indices] = softmax(self._rule.scaled(logits)).max(axis=1)

    def details(self, result: Evaluation) -> Details:
        """The details of the evaluation that tapped into this; images that cannot be read do not count."""
        read = self._best >= 0
        right = (self._best == self._labels)[read]
        classes = self._classes(read)
        tempered = reliability(self._probability[read], right, self._rule.temperature)
        cells = Counter(zip(self._labels[read].tolist(), self._best[read].tolist(), strict=True))
        return Details(
            schema_version=SCHEMA,
            kind=KIND,
            model=result.model,
            artifact_digest=result.artifact_digest,
            computation=computation_of(self._artifact, result.backend, "simulated" if result.simulated else "native"),
            backend=result.backend,
            data=result.data,
            images=result.images,
            top1=result.top1,
            ci95=result.ci95,
            classes=classes,
            missing=tuple(entry.label for entry in classes if entry.images == 0),
            confusion=tuple((true, said, count) for (true, said), count in sorted(cells.items())),
            pairs=self._pairs(cells),
            reliability=tempered,
            untempered=None if self._artifact.manifest.confidence is None else reliability(self._untempered[read], right),
            thresholds=self._thresholds(read, right),
        )

    def _classes(self, read: npt.NDArray[np.bool_]) -> tuple[ClassAccuracy, ...]:
        count = len(self._artifact.labels)
        labels, best = self._labels[read], self._best[read]
        images, predicted = np.bincount(labels, minlength=count), np.bincount(best, minlength=count)
        right = np.bincount(labels[labels == best], minlength=count)
        found = []
        for index, label in enumerate(self._artifact.labels):
            n, hits, said = int(images[index]), int(right[index]), int(predicted[index])
            accuracy, precision = 100 * hits / n if n else None, 100 * hits / said if said else None
            interval = _wilson(hits, n) if n else None
            found.append(ClassAccuracy(index, label, n, hits, accuracy, interval, said, precision))
        return tuple(found)

    def _pairs(self, cells: Counter[tuple[int, int]]) -> tuple[ConfusedPair, ...]:
        of_class = Counter[int]()
        for (true, _), count in cells.items():
            of_class[true] += count
        wrong = [(true, said, count) for (true, said), count in cells.items() if true != said]
        # Among equally frequent ones the one that takes more of its class.
        wrong.sort(key=lambda cell: (-cell[2], -cell[2] / of_class[cell[0]], cell[0], cell[1]))
        names = self._artifact.labels
        return tuple(
            ConfusedPair(
                true, said, names[true], names[said], count, 100 * count / of_class[true], cells[said, true],
                self._examples(true, said),
            )
            for true, said, count in wrong[:_PAIRS]
        )  # fmt: skip

    def _examples(self, true: int, said: int) -> tuple[Example, ...]:
        chosen = np.flatnonzero((self._labels == true) & (self._best == said))
        chosen = chosen[np.argsort(-self._probability[chosen], kind="stable")][:_EXAMPLES]
        return tuple(Example(int(i), self._images.where(int(i)), float(self._probability[i])) for i in chosen)

    def _thresholds(self, read: npt.NDArray[np.bool_], right: npt.NDArray[np.bool_]) -> tuple[ThresholdRow, ...]:
        own = None if self._artifact.manifest.confidence is None else self._rule.min_confidence
        probability = self._probability[read]
        rows = []
        for threshold in sorted({*_THRESHOLDS, *([] if own is None else [own])}):
            passed = probability >= threshold
            answered, wrong = int(passed.sum()), int((passed & ~right).sum())
            share, interval = (100 * wrong / answered, _wilson(wrong, answered)) if answered else (None, None)
            coverage = 100 * answered / len(right)
            rows.append(ThresholdRow(threshold, answered, coverage, wrong, share, interval, threshold == own))
        return tuple(rows)


def details_json(details: Details) -> str:
    """The record as JSON on one line."""
    return json.dumps(asdict(details), allow_nan=False, ensure_ascii=False)


def _wilson(hits: int, count: int) -> tuple[float, float]:
    low, high = wilson_interval(hits, count)
    return 100 * low, 100 * high
