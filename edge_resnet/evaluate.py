"""Accuracy of an artifact on labelled images, beside the FP32 graph on the same ones. Knows nothing of printing."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from edge_resnet.artifact import Artifact
from edge_resnet.backends import Logits, Variant, load_backend, open_backend, resolve_backend
from edge_resnet.errors import ConfigError
from edge_resnet.imageset import ImageSet, batches, check_labels, require_labels
from edge_resnet.spec import Precision, Progress
from edge_resnet.statistics import mcnemar_exact, paired_drop_interval, wilson_interval

__all__ = ["Evaluation", "evaluate"]

#: Pictures per call: large enough to fill the cores, small enough for any device's memory.
BATCH = 8
#: The backend that runs the FP32 graph for comparison: it is installed everywhere.
REFERENCE = "onnxruntime"


@dataclass(frozen=True)
class Evaluation:
    """Shares in percent. ``ci95``: Wilson's interval of ``top1``. ``agreement``: images on which the best class equals that of
    the FP32 graph. ``drop_ci95``: 95 % interval, in points, of FP32's top-1 minus this on the same images (0 to 0 where the FP32
    graph itself is what runs). ``mcnemar_p``: exact two-sided p-value that the two err equally often. ``simulated``: TensorRT's
    INT8 was computed by another backend. ``skipped``: images that cannot be read."""

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


def evaluate(
    artifact: Artifact, images: ImageSet, *, backend: str = "auto", simulate: bool = False, progress: Progress | None = None
) -> Evaluation:
    """Classify every image of ``images`` with the artifact and with its FP32 graph.

    Raises DataError where labels are missing or belong to another network, ConfigError where there is no INT8 to simulate.
    """
    labels = require_labels(images)
    check_labels(images, artifact.manifest.model.classes)
    if simulate and artifact.manifest.precision != "int8":
        raise ConfigError(
            f"{artifact.folder} is {artifact.manifest.precision}, there is no INT8 to simulate", hint="leave it out"
        )
    variant: Variant = "simulated" if simulate else "native"
    name = resolve_backend(backend, variant)
    is_reference = name == REFERENCE and load_backend(name).engine_request(artifact, variant) is None
    started, done, skipped = time.monotonic(), 0, []  # type: float, int, list[str]
    counts = _Counts()
    with ExitStack() as stack:
        network = stack.enter_context(open_backend(artifact, name, variant))
        reference = None if is_reference else stack.enter_context(open_backend(artifact, REFERENCE, "reference"))
        for batch in batches(images, artifact.manifest.preprocess, BATCH, skipped=skipped):
            if progress is not None:
                progress("evaluate", done, len(images))
            logits = network.infer(batch.images)
            expected = logits if reference is None else reference.infer(batch.images)
            counts.add(logits, expected, np.array([labels[index] for index in batch.indices]))
            done += len(batch.images)
    if progress is not None:
        progress("evaluate", len(images), len(images))
    low, high = wilson_interval(counts.top1, done)
    least, largest = (0.0, 0.0) if is_reference else paired_drop_interval(counts.only_fp32, counts.only_this, done)
    return Evaluation(
        images=done,
        top1=100 * counts.top1 / done,
        top5=100 * counts.top5 / done,
        ci95=(100 * low, 100 * high),
        agreement=100 * counts.agreeing / done,
        fp32_top1=100 * counts.fp32_top1 / done,
        drop_ci95=(100 * least, 100 * largest),
        mcnemar_p=mcnemar_exact(counts.only_fp32, counts.only_this),
        backend=name,
        precision=artifact.manifest.precision,
        simulated=simulate,
        skipped=tuple(skipped),
        seconds=time.monotonic() - started,
    )


@dataclass
class _Counts:
    """Hits so far."""

    top1: int = 0
    top5: int = 0
    agreeing: int = 0
    fp32_top1: int = 0
    only_fp32: int = 0
    only_this: int = 0

    def add(self, logits: Logits, expected: Logits, labels: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        """Count one batch: logits and FP32 logits (n, classes), labels (n,)."""
        best, wanted = logits.argmax(axis=1), expected.argmax(axis=1)
        five = np.argsort(-logits, axis=1, kind="stable")[:, :5]
        self.top1 += int(np.sum(best == labels))
        self.top5 += int(np.sum(five == labels[:, None]))
        self.agreeing += int(np.sum(best == wanted))
        self.fp32_top1 += int(np.sum(wanted == labels))
        self.only_fp32 += int(np.sum((wanted == labels) & (best != labels)))
        self.only_this += int(np.sum((best == labels) & (wanted != labels)))
