"""Accuracy of an artifact on labelled images, beside the FP32 graph on the same ones, and its file. Knows nothing of printing."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from edge_resnet.answers import Accuracy, accuracy_of, answer, paired
from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.errors import ConfigError
from edge_resnet.core.files import parse_record, read_json, write_whole
from edge_resnet.core.records import Precision, Progress
from edge_resnet.images.imageset import ImageSet, check_labels, require_labels
from edge_resnet.runtime.backend import Variant, load_backend, open_backend, resolve_backend

__all__ = ["KIND", "SCHEMA", "Evaluation", "evaluate", "read_evaluation", "to_json", "write_evaluation"]

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
        artifact_digest=artifact.truth_digest(),
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
