"""Quantization-aware training of an artifact: a new INT8 artifact whose weights have learned to be rounded.

Knows the order of the steps and what is refused before they begin; each step is implemented in another module.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx
import torch
from torch import nn

from edge_resnet.artifact.folder import MODEL, Artifact, open_artifact, write_manifest
from edge_resnet.artifact.schema import Manifest, QatReport
from edge_resnet.compiler.graph.corrections import apply, read_corrections, read_graph
from edge_resnet.core.errors import BudgetError, CalibrationError, ConfigError, DataError
from edge_resnet.core.records import Progress, QuantRecipe
from edge_resnet.images.calibration import CalibrationImages, draw_calibration_images
from edge_resnet.images.datasets import NAMES, open_data, open_pair
from edge_resnet.images.imageset import ImageSet, check_class_names, check_labels, require_labels
from edge_resnet.network.training import TrainData, TrainOptions, TrainResult, fit
from edge_resnet.pipelines.engines import compile_written
from edge_resnet.pipelines.requantize import check_source, staged_copy
from edge_resnet.quantization.budget import check_max_drop
from edge_resnet.quantization.int8 import add_int8, with_int8, write_int8
from edge_resnet.quantization.pipeline import Int8
from edge_resnet.quantization.qat.distil import Distilled
from edge_resnet.quantization.qat.evaluate import QatAccuracy, check_drop, measure_accuracy
from edge_resnet.quantization.qat.network import FakeQuantized, Fp32Teacher
from edge_resnet.quantization.qat.writeback import corrections_of, table_of, verify_int8

__all__ = ["DEFAULTS", "FineTuned", "QatOptions", "fine_tune", "open_train_data"]

_log = logging.getLogger(__name__)

#: A trained network is moved only a little: a low rate that ends at zero, and no decay, which would pull back to the start.
DEFAULTS = TrainOptions(epochs=3, batch=64, rate=0.005, weight_decay=0.0, schedule="cosine")
#: Images on which the INT8 graph is compared with the trained network, and how many at a time.
_COMPARED, _BATCH = 64, 8


@dataclass(frozen=True)
class QatOptions:
    """How an artifact is fine-tuned.

    ``data``: labelled images to train on. ``validation``: labelled images to measure accuracy on; None takes the held-out part
    of ``data`` if there is one. ``distil``: the FP32 graph's share of the loss, in 0..1. ``max_drop``: points of top-1 that INT8
    may lose against the FP32 graph. ``recipe``: how an FP32 artifact is calibrated first. ``allow_random``: accept noise as
    images, and random weights.
    """

    data: str
    recipe: QuantRecipe
    validation: str | None = None
    training: TrainOptions = field(default_factory=lambda: DEFAULTS)
    distil: float = 0.5
    max_drop: float | None = None
    allow_random: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.distil <= 1:
            raise ConfigError(f"the teacher's share of the loss must lie in 0..1, not {self.distil}", hint="0.5 is a good start")
        if self.max_drop is not None:
            check_max_drop(self.max_drop)


@dataclass(frozen=True, eq=False)
class FineTuned:
    """The new artifact and how it was trained.

    ``accuracy``: of FP32, and of INT8 before and after; None without labelled images to measure it on. ``missed``: the error if
    INT8 does not meet the budget; the artifact is written all the same.
    """

    artifact: Artifact
    result: TrainResult
    accuracy: QatAccuracy | None
    missed: BudgetError | None = None


def fine_tune(
    artifact: Artifact,
    options: QatOptions,
    output: Path,
    *,
    backend: str = "auto",
    force: bool = False,
    progress: Progress | None = None,
) -> FineTuned:
    """Train the network of ``artifact`` with INT8's rounding in it, and write the result as a new artifact.

    An INT8 artifact is continued from its ranges and corrections; for an FP32 one they are made first, by ``options.recipe`` on a
    sample of the training images. ``model.onnx`` does not change, so that all accuracies of the new artifact refer to the same
    FP32 network. On a CPU the same seed, machine and number of threads give the same artifact.

    Raises any of edge_resnet.core.errors, before any long work where possible. A missed budget is returned and not raised, so
    that hours of training are not lost.
    """
    check_source(artifact, output, backend=backend, allow_random=options.allow_random)
    _check(artifact)
    data = open_train_data(options.data, options.validation, artifact)
    if options.max_drop is not None and data.test is None:
        raise ConfigError(
            "--max-drop needs labelled images to be measured on", hint="--val-data takes a folder, a CSV or an .npz"
        )
    with (
        staged_copy(artifact, output, force=force) as folder,
        _draw(artifact, options, data.train, folder) as images,
    ):
        start = _start(artifact, options, images, folder, progress)
        network = FakeQuantized(onnx.load(folder / MODEL), start.table, start.corrections)
        result = _train(network, artifact, options, data, progress)
        made, difference = _deduce(network, start, images, folder / MODEL, progress)
        made = replace(made, table=replace(made.table, qat=_report(artifact, options, data.train, result, difference)))
        write_int8(folder, made)
        accuracy, missed = None, None
        if data.test is not None:
            accuracy = measure_accuracy(folder, data.test, images.preprocess, start, made, progress=progress)
            check = check_drop(accuracy, options.max_drop)
            made, missed = replace(made, budget=check.report), check.missed
        write_manifest(folder, _manifest(artifact, made, images, data.train, accuracy))
    written = open_artifact(output)
    compile_written(written, backend, progress=progress)
    return FineTuned(written, result, accuracy, missed)


def open_train_data(data: str, held_out: str | None, artifact: Artifact) -> TrainData:
    """Open the images to train on and, if there are any, to measure accuracy on: ``data`` as in ``open_pair``.

    Class folders are matched with the artifact's labels by name. Raises DataError for images without labels, of another
    network's classes, or of a single class.
    """
    labels, path = artifact.labels, Path(data)
    if data in NAMES or (path.is_dir() and ((path / "train").is_dir() or any(path.glob("*train.npz")))):
        train, test = open_pair(data, label_names=labels)
    else:
        train, test = open_data(data, split="train", label_names=labels), None
    if held_out is not None:
        test = open_data(held_out, split="test", label_names=labels)
    for images in (train, test):
        if images is not None:
            require_labels(images)
            check_labels(images, artifact.manifest.model.classes)
            check_class_names(images, labels)
    if len(set(require_labels(train))) < 2:
        raise DataError(
            f"all {len(train)} images of {train.name} are of one class", hint="training needs images of two classes or more"
        )
    return TrainData(train, test, artifact.manifest.preprocess)


def _check(artifact: Artifact) -> None:
    if artifact.manifest.precision == "fp16":
        raise ConfigError(
            f"{artifact.folder} is FP16, which is not rounded to integers",
            hint="quantization-aware training takes an INT8 artifact, or an FP32 one: edge-resnet build makes both",
        )
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError("quantization-aware training runs in one process", hint="start it without torchrun")


def _draw(artifact: Artifact, options: QatOptions, train: ImageSet, folder: Path) -> CalibrationImages:
    """Training images to measure ranges on. They are checked only if an FP32 artifact is calibrated on them."""
    recipe = artifact.manifest.recipe or options.recipe
    unchecked = options.allow_random or artifact.manifest.precision == "int8"
    return draw_calibration_images(train, recipe, artifact.manifest.preprocess, allow_noise=unchecked, folder=folder)


def _start(artifact: Artifact, options: QatOptions, images: CalibrationImages, folder: Path, progress: Progress | None) -> Int8:
    """Ranges and corrections to start from."""
    if artifact.manifest.precision == "int8":
        return Int8(artifact.calibration(), read_corrections(artifact))
    return add_int8(folder, images, options.recipe, progress=progress)


def _train(
    network: FakeQuantized, artifact: Artifact, options: QatOptions, data: TrainData, progress: Progress | None
) -> TrainResult:
    """Train in place and leave the network on the CPU. Raises CalibrationError if the training diverges."""
    learner: nn.Module = network
    if options.distil > 0:
        learner = Distilled(network, Fp32Teacher(read_graph(artifact)), options.distil)
    result = fit(learner, data, options.training, progress=progress)
    if result.stopped is not None:
        _log.warning("training stopped: %s", result.stopped)
    network.cpu().eval()
    if not all(bool(torch.isfinite(parameter).all()) for parameter in network.parameters()):
        raise CalibrationError("the training diverged: a weight is not finite", hint="a lower --rate")
    return result


def _deduce(
    network: FakeQuantized, start: Int8, images: CalibrationImages, model_path: Path, progress: Progress | None
) -> tuple[Int8, float]:
    """INT8 of the trained network, and how far the graph derived from it differs from the network (see ``verify_int8``)."""
    model = onnx.load(model_path)
    corrections = corrections_of(network, exact_input=start.corrections is not None and start.corrections.exact_input)
    table = table_of(network, start.table, apply(model, corrections), images.pixels, progress=progress)
    made = Int8(table, corrections)
    return made, verify_int8(network, model, made, images.pixels.batches(_BATCH, _COMPARED), images.preprocess)


def _report(artifact: Artifact, options: QatOptions, train: ImageSet, result: TrainResult, difference: float) -> QatReport:
    training, last = options.training, result.records[-1]
    return QatReport(
        data=train.name,
        images=len(train),
        data_digest=train.digest(),
        epochs=training.epochs,
        steps=last.step,
        batch=training.batch,
        rate=training.rate,
        augment=training.augment,
        seed=training.seed,
        distil=options.distil,
        source=artifact.source_digest(),
        train_loss=last.train_loss,
        difference=difference,
    )


def _manifest(
    artifact: Artifact, made: Int8, images: CalibrationImages, train: ImageSet, accuracy: QatAccuracy | None
) -> Manifest:
    assert made.table.qat is not None  # fine_tune put it there
    trained = f"{made.table.qat.epochs:g} epochs of quantization-aware training on {len(train)} images of {train.name}"
    manifest = with_int8(artifact.manifest, made, f"{images.name}, then {trained}")
    top1 = None if accuracy is None else {"fp32_top1": accuracy.fp32_top1, "int8_top1": accuracy.int8_top1}
    return replace(manifest, accuracy=top1, warnings=())
