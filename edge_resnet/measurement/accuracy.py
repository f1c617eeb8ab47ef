"""Accuracy of an artifact on labelled images, compared with its FP32 graph on the same images, and the file that holds it.

Does not print.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.errors import ConfigError
from edge_resnet.core.files import parse_record, read_json, write_whole
from edge_resnet.core.records import Precision, Progress
from edge_resnet.core.statistics import PairedDifference, binomial_tail, is_significant, paired_difference, wilson_interval
from edge_resnet.images.imageset import ImageSet, check_class_names, check_labels, require_labels
from edge_resnet.measurement.predictions import Predictions, Tap, predict_images
from edge_resnet.runtime.backend import Variant, load_backend, open_backend, resolve_backend

__all__ = [
    "KIND",
    "SCHEMA",
    "Accuracy",
    "EvalOptions",
    "Evaluation",
    "accuracy_of",
    "chance_warning",
    "check_measurable",
    "evaluate",
    "evaluate_with",
    "paired_drop",
    "read_evaluation",
    "refuse_random_weights",
    "to_json",
    "write_evaluation",
]

_log = logging.getLogger(__name__)

#: The backend that runs the FP32 graph for comparison: it is installed everywhere.
REFERENCE = "onnxruntime"
#: Version of the file format. A file with a newer one is refused.
SCHEMA = 1
KIND: Literal["edge-resnet eval"] = "edge-resnet eval"


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of one network on one set of images; shares are in percent.

    ``ci95`` is Wilson's interval of ``top1``. ``data`` names the images, and ``data_digest`` is the sha256 over them. ``right``
    holds a ``1`` for every image that is classified correctly and a ``0`` for every other, in the set's order: two accuracies
    with the same ``data_digest`` can be compared image by image. Both are empty where they are not known. ``skipped`` counts
    images that cannot be read; ``images`` does not include them.
    """

    images: int
    top1: float
    top5: float
    ci95: tuple[float, float]
    data: str
    data_digest: str = ""
    right: str = ""
    skipped: int = 0


@dataclass(frozen=True)
class Evaluation:
    """Accuracy of an artifact compared with its FP32 graph; shares are in percent.

    ``agreement`` is the share of images for which both predict the same class. ``drop_ci95`` is the 95 % interval, in points, of
    FP32's top-1 minus this one on the same images; it is 0 to 0 where the FP32 graph itself is measured. ``mcnemar_p`` is the
    exact two-sided p-value of the hypothesis that both have the same error rate. ``simulated``: another backend computed
    TensorRT's INT8. ``skipped`` names the images that cannot be read. ``images``, ``top1``, ``top5``, ``ci95``, ``data``,
    ``data_digest`` and ``right`` are as in ``Accuracy``; the last two are empty unless they were asked for.
    """

    schema_version: int
    kind: Literal["edge-resnet eval"]
    model: str
    artifact_digest: str
    images: int
    top1: float
    top5: float
    ci95: tuple[float, float]
    agreement: float
    fp32_top1: float
    drop_ci95: tuple[float, float]
    mcnemar_p: float
    backend: str
    precision: Precision
    simulated: bool
    skipped: tuple[str, ...]
    seconds: float
    data: str
    data_digest: str
    right: str = ""

    @property
    def accuracy(self) -> Accuracy:
        """The artifact's accuracy, without the comparison."""
        return Accuracy(self.images, self.top1, self.top5, self.ci95, self.data, self.data_digest, self.right, len(self.skipped))

    @property
    def significant(self) -> bool:
        """Whether the artifact and the FP32 graph differ significantly in top-1."""
        return is_significant(self.mcnemar_p)


@dataclass(frozen=True)
class EvalOptions:
    """How an artifact is evaluated; the first three as in ``evaluate``. ``tap``: takes its logits, batch by batch."""

    backend: str = "auto"
    simulate: bool = False
    per_image: bool = False
    tap: Tap | None = None


def evaluate(
    artifact: Artifact,
    images: ImageSet,
    *,
    backend: str = "auto",
    simulate: bool = False,
    per_image: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Classify every image with the artifact and with its FP32 graph, and compare the two.

    ``per_image`` keeps which images are classified correctly and the digest of the images, for which every file is read once
    more. A top-1 that is not significantly above chance is logged as a warning. Raises DataError where labels are missing or the
    images have other classes than the network, ConfigError where there is no INT8 to simulate,
    and BackendError where a logit is not a finite number.
    """
    return evaluate_with(artifact, images, EvalOptions(backend, simulate, per_image), progress=progress)


def evaluate_with(artifact: Artifact, images: ImageSet, options: EvalOptions, *, progress: Progress | None = None) -> Evaluation:
    """As ``evaluate``, with the options as a record."""
    simulate = options.simulate
    check_measurable(artifact, images, simulate=simulate)
    variant: Variant = "simulated" if simulate else "native"
    name = resolve_backend(options.backend, variant)
    is_reference = name == REFERENCE and load_backend(name).engine_request(artifact, variant) is None
    started = time.monotonic()
    skipped: list[str] = []
    with ExitStack() as stack:
        networks = [stack.enter_context(open_backend(artifact, name, variant))]
        if not is_reference:
            networks.append(stack.enter_context(open_backend(artifact, REFERENCE, "reference")))
        predictions = predict_images(
            networks, images, artifact.manifest.preprocess, progress=progress, skipped=skipped, tap=options.tap
        )
    seconds = time.monotonic() - started
    digest = images.digest() if options.per_image else ""
    measured, fp32 = predictions[0], predictions[-1]
    accuracy, fp32_accuracy = accuracy_of(measured, images, digest), accuracy_of(fp32, images, digest)
    drop = paired_drop(fp32_accuracy, accuracy)
    assert accuracy is not None
    _warn_of_chance(accuracy, measured, images, artifact.manifest.model.classes)
    assert fp32_accuracy is not None
    assert drop is not None
    return Evaluation(
        schema_version=SCHEMA,
        kind=KIND,
        model=artifact.manifest.model.name,
        artifact_digest=artifact.source_digest(),
        images=accuracy.images,
        top1=accuracy.top1,
        top5=accuracy.top5,
        ci95=accuracy.ci95,
        agreement=_agreement(measured.best, fp32.best, accuracy.images),
        fp32_top1=fp32_accuracy.top1,
        drop_ci95=(0.0, 0.0) if is_reference else drop.ci95,
        mcnemar_p=drop.p,
        backend=name,
        precision=artifact.manifest.precision,
        simulated=simulate,
        skipped=tuple(skipped),
        seconds=seconds,
        data=images.name,
        data_digest=digest,
        right=accuracy.right if options.per_image else "",
    )


def accuracy_of(predictions: Predictions, images: ImageSet, digest: str) -> Accuracy | None:
    """Top-1 and top-5 over the images that could be read; None without labels. ``digest`` is the sha256 over the images."""
    if images.labels is None:
        return None
    read = [index for index, best in enumerate(predictions.best) if best >= 0]
    right = "".join("01"[predictions.best[index] == images.labels[index]] for index in read)
    top1_hits, top5_hits = right.count("1"), sum(predictions.in_top5[index] == "1" for index in read)
    low, high = wilson_interval(top1_hits, len(read))
    return Accuracy(
        images=len(read),
        top1=100 * top1_hits / len(read),
        top5=100 * top5_hits / len(read),
        ci95=(100 * low, 100 * high),
        data=images.name,
        data_digest=digest,
        right=right,
        skipped=len(images) - len(read),
    )


def chance_warning(hits: int, labels: Sequence[int], classes: int) -> str | None:
    """A warning if ``hits`` correct answers to images with these ``labels`` are not significantly above chance; else None.

    Chance is a guess among the classes that the images have, or among the network's ``classes`` if they all have the same: a
    one-sided binomial test. What fails it is as often the numbering of the classes as it is the network.
    """
    present = len(set(labels))
    share = 1 / (present if present > 1 else classes)
    if is_significant(binomial_tail(hits, len(labels), share)):
        return None
    finding = f"top-1 of {100 * hits / len(labels):.2f} % on {len(labels)} images is not significantly above chance"
    doubt = "do the classes of the images, their order and the preprocessing belong to this network?"
    return f"{finding}, {100 * share:.2g} %: {doubt}"


def paired_drop(reference: Accuracy | None, other: Accuracy | None) -> PairedDifference | None:
    """Top-1 of ``reference`` minus that of ``other``, image by image; None where they were not measured on the same images."""
    if (
        reference is None
        or other is None
        or not reference.right
        or reference.data_digest != other.data_digest
        or len(reference.right) != len(other.right)
    ):
        return None
    pairs = list(zip(reference.right, other.right, strict=True))
    return paired_difference(pairs.count(("1", "0")), pairs.count(("0", "1")), len(pairs))


def refuse_random_weights(artifact: Artifact) -> None:
    """Raise ConfigError for a network that was never trained: its accuracy means nothing."""
    if artifact.manifest.model.weights == "random":
        raise ConfigError(
            f"{artifact.folder} has random weights: its accuracy means nothing",
            hint="allow_random, or --allow-random, measures it all the same",
        )


def check_measurable(artifact: Artifact, images: ImageSet, *, simulate: bool) -> None:
    """Refuse what cannot be measured, before anything is opened: raises what ``evaluate`` raises of the kind."""
    require_labels(images)
    check_labels(images, artifact.manifest.model.classes)
    check_class_names(images, artifact.labels)
    if simulate and artifact.manifest.precision != "int8":
        raise ConfigError(
            f"{artifact.folder} is {artifact.manifest.precision}: there is no INT8 to simulate",
            hint="leave out --simulate-int8, or name an INT8 artifact",
        )


def _warn_of_chance(accuracy: Accuracy, measured: Predictions, images: ImageSet, classes: int) -> None:
    labels = [label for label, best in zip(require_labels(images), measured.best, strict=True) if best >= 0]
    if (warning := chance_warning(accuracy.right.count("1"), labels, classes)) is not None:
        _log.warning("%s", warning)


def _agreement(one: Sequence[int], other: Sequence[int], count: int) -> float:
    """Percent of ``count`` images that were read for which both predict the same class."""
    return 100 * sum(a == b >= 0 for a, b in zip(one, other, strict=True)) / count


def to_json(result: Evaluation) -> str:
    """The evaluation as one line of JSON."""
    return json.dumps(asdict(result), allow_nan=False, ensure_ascii=False)


def write_evaluation(path: Path, result: Evaluation, *, force: bool = True) -> None:
    """Write the evaluation. Without ``force`` a file that exists by then is kept. Raises BuildError."""
    write_whole(path, (to_json(result) + "\n").encode(), force=force)


def read_evaluation(path: Path) -> Evaluation:
    """Read what ``write_evaluation`` or ``eval --json`` wrote. Raises DataError for a truncated, newer or foreign file."""
    return parse_record(path, read_json(path), Evaluation, kind=KIND, schema=SCHEMA)
