"""Accuracy of an artifact on labelled images, beside the FP32 graph on the same ones, and its file. Knows nothing of printing."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.errors import ConfigError
from edge_resnet.core.files import parse_record, read_json, write_whole
from edge_resnet.core.records import Precision, Preprocess, Progress
from edge_resnet.core.statistics import Difference, difference, wilson_interval
from edge_resnet.images.imageset import ImageSet, batches, check_labels, require_labels
from edge_resnet.runtime.backend import Backend, Variant, load_backend, open_backend, resolve_backend
from edge_resnet.runtime.postprocess import check_finite, softmax

__all__ = [
    "KIND",
    "SCHEMA",
    "Accuracy",
    "Answers",
    "Evaluation",
    "accuracy_of",
    "answer",
    "evaluate",
    "paired",
    "read_evaluation",
    "to_json",
    "write_evaluation",
]


#: Images per call: large enough to fill the cores, small enough for any device's memory.
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


#: The backend that runs the FP32 graph for comparison: it is installed everywhere.
REFERENCE = "onnxruntime"
#: Of the file. A reader refuses a newer one.
SCHEMA = 1
KIND: Literal["edge-resnet eval"] = "edge-resnet eval"


@dataclass(frozen=True)
class Evaluation:
    """Shares in percent. ``ci95``: Wilson's interval of ``top1``. ``agreement``: images on which the best class equals that of
    the FP32 graph. ``drop_ci95``: 95 % interval, in points, of FP32's top-1 minus this on the same images (0 to 0 where the FP32
    graph itself is what runs). ``mcnemar_p``: exact two-sided p-value that the two err equally often. ``simulated``: TensorRT's
    INT8 was computed by another backend. ``skipped``: images that cannot be read. ``data``: what the images are called,
    ``data_digest``: sha256 over them, ``right``: a ``1`` or ``0`` per image that could be read, in order; both are empty where
    nobody is going to compare it image by image."""

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
        """What there is of it beside no other network."""
        return Accuracy(self.images, self.top1, self.top5, self.ci95, self.data, self.data_digest, self.right, len(self.skipped))


def evaluate(
    artifact: Artifact,
    images: ImageSet,
    *,
    backend: str = "auto",
    simulate: bool = False,
    keep: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Classify every image of ``images`` with the artifact and with its FP32 graph.

    ``keep``: with what is right image by image, and the digest of the images, for which every file is read once more.
    Raises DataError where labels are missing or belong to another network, ConfigError where there is no INT8 to simulate, and
    BackendError where an answer is no number.
    """
    _check(artifact, images, simulate=simulate)
    variant: Variant = "simulated" if simulate else "native"
    name = resolve_backend(backend, variant)
    is_reference = name == REFERENCE and load_backend(name).engine_request(artifact, variant) is None
    started = time.monotonic()
    skipped: list[str] = []
    with ExitStack() as stack:
        networks = [stack.enter_context(open_backend(artifact, name, variant))]
        if not is_reference:
            networks.append(stack.enter_context(open_backend(artifact, REFERENCE, "reference")))
        answers = answer(networks, images, artifact.manifest.preprocess, progress=progress, skipped=skipped)
    seconds, digest = time.monotonic() - started, images.digest() if keep else ""
    this, fp32 = (accuracy_of(one, images, digest) for one in (answers[0], answers[-1]))
    assert this is not None
    assert fp32 is not None
    count = this.images
    agreeing = sum(a == b >= 0 for a, b in zip(answers[0].best, answers[-1].best, strict=True))
    drop = paired(fp32, this)
    assert drop is not None
    return Evaluation(
        schema_version=SCHEMA,
        kind=KIND,
        model=artifact.manifest.model.name,
        artifact_digest=artifact.source_digest(),
        images=count,
        top1=this.top1,
        top5=this.top5,
        ci95=this.ci95,
        agreement=100 * agreeing / count,
        fp32_top1=fp32.top1,
        drop_ci95=(0.0, 0.0) if is_reference else drop.ci95,
        mcnemar_p=drop.p,
        backend=name,
        precision=artifact.manifest.precision,
        simulated=simulate,
        skipped=tuple(skipped),
        seconds=seconds,
        data=images.name,
        data_digest=digest,
        right=this.right if keep else "",
    )


def _check(artifact: Artifact, images: ImageSet, *, simulate: bool) -> None:
    """Refuse what cannot be measured before anything is opened."""
    require_labels(images)
    check_labels(images, artifact.manifest.model.classes)
    if simulate and artifact.manifest.precision != "int8":
        raise ConfigError(
            f"{artifact.folder} is {artifact.manifest.precision}, there is no INT8 to simulate", hint="leave it out"
        )


def to_json(result: Evaluation) -> str:
    """One line."""
    return json.dumps(asdict(result), allow_nan=False, ensure_ascii=False)


def write_evaluation(path: Path, result: Evaluation) -> None:
    """Write the result over what was there. Raises BuildError."""
    write_whole(path, (to_json(result) + "\n").encode())


def read_evaluation(path: Path) -> Evaluation:
    """Read what ``write_evaluation`` or ``eval --json`` wrote. Raises DataError where it is cut off, newer, or something else."""
    return parse_record(path, read_json(path), Evaluation, kind=KIND, schema=SCHEMA)
