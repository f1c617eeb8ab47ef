"""Temperature and threshold of an artifact from labelled images, and how often the answers let through are wrong.

The threshold is that of Geifman and El-Yaniv, *Selective Classification for Deep Neural Networks* (2017), algorithm 1: a binary
search over the confidences, each step of which is an exact binomial bound at a level that all steps share. Writes nothing.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_resnet.artifact.folder import Artifact
from edge_resnet.artifact.schema import ConfidenceRule
from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.core.records import Progress
from edge_resnet.core.statistics import binomial_upper_bound
from edge_resnet.images.imageset import ImageSet, require_labels
from edge_resnet.measurement.accuracy import check_measurable
from edge_resnet.measurement.predictions import predict_images
from edge_resnet.measurement.reliability import fit_temperature, reliability
from edge_resnet.runtime.answers import AnswerRule, computation_of
from edge_resnet.runtime.backend import Logits, Variant, open_backend, resolve_backend
from edge_resnet.runtime.postprocess import softmax

__all__ = ["ALPHA", "Scores", "Threshold", "choose_threshold", "collect_scores", "find_rule", "images_needed", "rule_of"]

_log = logging.getLogger(__name__)

#: The probability with which the stated share may be missed: the bound holds with 95 %.
ALPHA = 0.05
#: Each image is judged by the rule of the images in the other parts.
_FOLDS = 5
#: Thresholds are multiples of this, so that the manifest's number is the one that was counted with.
_GRID = 10_000
#: Logits that are kept at once, in bytes: those of 268,000 images of ImageNet's classes.
_MAX_BYTES = 1 << 30

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]
_Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Scores:
    """What a network says of labelled images: ``logits`` (n, C) float32, ``labels`` (n,)."""

    logits: Logits
    labels: _Ints

    def confidence(self, temperature: float) -> _Floats:
        """The probability of the best class of each image (n,), as a run computes it."""
        confidence: _Floats = softmax(AnswerRule(temperature).scaled(self.logits)).max(axis=1).astype(np.float64)
        return confidence

    @property
    def right(self) -> _Bools:
        """Whether the best class is the label (n,)."""
        found: _Bools = self.logits.argmax(axis=1) == self.labels
        return found

    def part(self, chosen: _Bools) -> Scores:
        """Those of the chosen images (n,)."""
        return Scores(self.logits[chosen], self.labels[chosen])


@dataclass(frozen=True)
class Threshold:
    """``value``: in [0, 1). ``answered`` of the images reach it, ``wrong`` of these are wrong; ``bound``: of their share, in
    [0, 1], at the level ``ALPHA``."""

    value: float
    answered: int
    wrong: int
    bound: float


def find_rule(
    artifact: Artifact,
    images: ImageSet,
    max_wrong: float,
    *,
    backend: str = "auto",
    simulate: bool = False,
    progress: Progress | None = None,
) -> ConfidenceRule:
    """Classify labelled images, and find the temperature and the lowest threshold at which at most ``max_wrong`` percent of the
    answers are wrong, with a confidence of 95 %.

    ``simulate``: TensorRT's INT8. Raises ConfigError for a share outside (0, 100), DataError as ``evaluate`` does, where the
    images are too few or of one class, and where no threshold keeps the share.
    """
    _check_share(max_wrong)
    check_measurable(artifact, images, simulate=simulate)
    _check_images(artifact, images, max_wrong)
    variant: Variant = "simulated" if simulate else "native"
    name = resolve_backend(backend, variant)
    scores = collect_scores(artifact, images, name, variant, progress=progress)
    found = rule_of(scores, max_wrong)
    return ConfidenceRule(
        temperature=found.temperature,
        threshold=found.threshold.value,
        max_wrong=max_wrong,
        computation=computation_of(artifact, name, variant),
        backend=name,
        source=artifact.source_digest(),
        data=images.name,
        data_digest=images.digest(),
        images=len(scores.labels),
        answered=found.threshold.answered,
        wrong=found.threshold.wrong,
        wrong_bound=100 * found.threshold.bound,
        held_out_answered=found.held_out_answered,
        held_out_wrong=found.held_out_wrong,
        ece_before=found.ece_before,
        ece_after=found.ece_after,
    )


def collect_scores(
    artifact: Artifact, images: ImageSet, backend: str, variant: Variant, *, progress: Progress | None = None
) -> Scores:
    """Classify every image; those that cannot be read are left out, with a warning. Raises as ``predict_images`` does."""
    logits = np.zeros((len(images), artifact.manifest.model.classes), np.float32)
    is_read = np.zeros(len(images), bool)

    def keep(indices: _Ints, found: Logits) -> None:
        logits[indices] = found
        is_read[indices] = True

    with open_backend(artifact, backend, variant) as network:
        predict_images([network], images, artifact.manifest.preprocess, progress=progress, tap=keep)
    return Scores(logits[is_read], np.array(require_labels(images), np.int64)[is_read])


@dataclass(frozen=True)
class FoundRule:
    """A rule and what it was judged by: as the fields of the same names of ``ConfidenceRule``."""

    temperature: float
    threshold: Threshold
    held_out_answered: int
    held_out_wrong: int
    ece_before: float
    ece_after: float


def rule_of(scores: Scores, max_wrong: float) -> FoundRule:
    """Temperature and threshold from all ``scores``, and their cross-fit: in five parts, of which each is judged by the rule that
    the other four give. Raises DataError where no threshold keeps the share of ``max_wrong`` percent."""
    temperature = fit_temperature(scores.logits, scores.labels)
    found = choose_threshold(scores.confidence(temperature), scores.right, max_wrong / 100)
    if found is None:
        raise _none(scores, temperature, max_wrong)
    answered = wrong = 0
    held_out = np.zeros(len(scores.labels))
    for part in _folds(scores.labels):
        rest, own = scores.part(~part), scores.part(part)
        fitted = fit_temperature(rest.logits, rest.labels)
        held_out[part] = own.confidence(fitted)
        chosen = choose_threshold(rest.confidence(fitted), rest.right, max_wrong / 100)
        if chosen is not None:  # else these images are not answered
            passed = held_out[part] >= chosen.value
            answered, wrong = answered + int(passed.sum()), wrong + int((passed & ~own.right).sum())
    before = reliability(scores.confidence(1.0), scores.right).ece
    return FoundRule(temperature, found, answered, wrong, before, reliability(held_out, scores.right).ece)


def choose_threshold(confidence: _Floats, right: _Bools, share: float) -> Threshold | None:
    """The lowest threshold whose answers are wrong for at most ``share``, in (0, 1), with a confidence of 95 %; None without one.

    ``confidence`` (n,) in [0, 1]; ``right`` (n,). Never below the lowest confidence: nothing is known of what lies there.
    """
    candidates = np.unique(np.minimum(np.floor(confidence * _GRID), _GRID - 1))[::-1] / _GRID
    level = ALPHA / _steps(len(candidates))
    best, low, high = None, 0, len(candidates) - 1
    while low <= high:
        middle = (low + high) // 2
        passed = confidence >= candidates[middle]
        answered, wrong = int(passed.sum()), int((passed & ~right).sum())
        bound = binomial_upper_bound(wrong, answered, level)
        # Few images cannot hold the bound although they may all be right: more are needed, as where it holds.
        if bound <= share or answered < _least(share, level):
            low = middle + 1
            if bound <= share:
                best = Threshold(float(candidates[middle]), answered, wrong, bound)
        else:
            high = middle - 1
    return best


def images_needed(share: float) -> int:
    """How many labelled images it takes at least to find a threshold for a ``share`` of wrong answers, in (0, 1): as many that
    the bound holds where all the answers are right."""
    count = _least(share, ALPHA)
    while count < _least(share, ALPHA / _steps(min(count, _GRID))):
        count += 1
    return math.ceil(count * _FOLDS / (_FOLDS - 1))  # each of the five rules lacks a part


def _steps(candidates: int) -> int:
    """The number of bounds that a binary search among so many candidates takes at most."""
    return max(1, candidates.bit_length())


def _least(share: float, level: float) -> int:
    return math.ceil(math.log(level) / math.log1p(-share))


def _folds(labels: _Ints) -> Iterator[_Bools]:
    """Five parts with the same share of each class, as near as can be, the same on every machine."""
    order = np.random.default_rng(0).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    for number in range(_FOLDS):
        part = np.zeros(len(labels), bool)
        part[order[number::_FOLDS]] = True
        yield part


def _check_share(max_wrong: float) -> None:
    if not 0 < max_wrong < 100:
        raise ConfigError(
            f"a share of wrong answers lies between 0 and 100 percent, not {max_wrong:g}", hint="--threshold 1 is 1 %"
        )


def _check_images(artifact: Artifact, images: ImageSet, max_wrong: float) -> None:
    """Refuse images from which nothing can be found, before they are classified; say which classes they lack."""
    labels = require_labels(images)
    needed = images_needed(max_wrong / 100)
    if len(images) < needed:
        raise DataError(
            f"{len(images)} labelled images are too few for {max_wrong:g} % wrong answers: at least {needed} are needed",
            hint=f"label more images, or allow more wrong answers: {_affordable(len(images))}",
        )
    present = set(labels)
    if len(present) < 2:
        raise DataError(
            f"all {len(images)} images of {images.name} are of one class", hint="use labelled images of all that the camera sees"
        )
    missing = [name for index, name in enumerate(artifact.labels) if index not in present]
    if missing:
        names = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        _log.warning(
            "%d of %d classes have no image in %s (%s): the threshold is not measured for them",
            len(missing),
            len(artifact.labels),
            images.name,
            names,
        )
    if len(images) * artifact.manifest.model.classes * 4 > _MAX_BYTES:
        raise DataError(f"the logits of {len(images)} images take more than 1 GiB", hint="use fewer images: 10,000 are enough")


def _affordable(count: int) -> str:
    """The share that so many images suffice for, as an option."""
    for share in (1, 2, 3, 5, 10, 20):
        if count >= images_needed(share / 100):
            return f"--threshold {share}"
    return f"{images_needed(0.05)} images are enough for --threshold 5"


def _none(scores: Scores, temperature: float, max_wrong: float) -> DataError:
    """No threshold keeps the share: says how the most confident answers are."""
    confidence, right = scores.confidence(temperature), scores.right
    count = min(len(right), images_needed(max_wrong / 100))
    best = np.argsort(-confidence, kind="stable")[:count]
    wrong = int((~right[best]).sum())
    return DataError(
        f"no threshold keeps wrong answers at {max_wrong:g} %: of the {count} most confident answers {wrong} are wrong "
        f"({100 * wrong / count:.1f} %)",
        hint="allow more wrong answers, label more images, or check their labels",
    )
