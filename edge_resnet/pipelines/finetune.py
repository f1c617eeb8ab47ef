"""Quantization-aware training of an artifact: a new INT8 artifact whose weights have learned to be rounded.

Knows the order of the steps and what is refused before they begin; each step is another module's.
"""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx
import torch
from torch import nn

from edge_resnet.artifact.folder import (
    CALIBRATION,
    CORRECTIONS,
    LABELS,
    MODEL,
    Artifact,
    open_artifact,
    staging,
    write_json,
    write_manifest,
)
from edge_resnet.artifact.schema import BudgetReport, CalibrationTable, Manifest, QatReport
from edge_resnet.compiler.graph.corrections import Corrections, apply, read_corrections, write_corrections
from edge_resnet.core.errors import BudgetError, CalibrationError, ConfigError, DataError
from edge_resnet.core.records import Progress, QuantRecipe
from edge_resnet.images.checks import refuse_noise
from edge_resnet.images.datasets import NAMES, open_data, open_pair
from edge_resnet.images.imageset import ImageSet, balanced_sample, check_labels, require_labels
from edge_resnet.network.training import TrainData, TrainOptions, TrainResult, fit
from edge_resnet.pipelines.engines import compile_written
from edge_resnet.quantization.int8 import Int8Options, add_int8
from edge_resnet.quantization.pipeline import cache_images
from edge_resnet.quantization.qat.distil import Distilled
from edge_resnet.quantization.qat.evaluate import QatAccuracy, measure_accuracy, refuse_beyond
from edge_resnet.quantization.qat.network import FakeQuantized, Fp32Teacher
from edge_resnet.quantization.qat.writeback import corrections_of, table_of, verify_int8
from edge_resnet.runtime.backend import load_backend, resolve_backend

__all__ = ["DEFAULTS", "FineTuned", "QatOptions", "fine_tune", "open_train_images"]

_log = logging.getLogger(__name__)

#: A network that is trained already is moved a little: a low rate that ends at zero, no decay (it would pull back to the start).
DEFAULTS = TrainOptions(epochs=3, batch=64, rate=0.005, weight_decay=0.0, schedule="cosine")
#: Images on which the finished graph is compared with the network that was trained, and how many at a time.
_COMPARED, _BATCH = 64, 8


@dataclass(frozen=True)
class QatOptions:
    """``data``: labelled images to learn from. ``validation``: to be judged on; None takes the part of ``data`` that is held
    out, where it has one. ``distil``: the FP32 graph's share of the loss, in 0..1. ``max_drop``: points of top-1 that INT8 may
    lose against the FP32 graph. ``recipe``: how an FP32 artifact is calibrated first. ``allow_random``: noise, random weights.
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
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise ConfigError(f"the budget must lie in 0..100 points of top-1, not {self.max_drop}", hint="0.5 is a good start")


@dataclass(frozen=True, eq=False)
class FineTuned:
    """The new artifact, how the training went, and top-1 in percent of FP32, of INT8 before and after (None without labelled
    images to judge on). ``missed``: the budget that the artifact, written all the same, does not hold."""

    artifact: Artifact
    result: TrainResult
    judged: QatAccuracy | None
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
    """Train the network that ``artifact`` deploys with INT8's rounding in it, and write what it learned as a new artifact.

    An INT8 artifact goes on from its ranges and corrections; of an FP32 one they are made first, by ``options.recipe`` on a
    sample of the images. ``model.onnx`` stays as it is, so that every figure of the new artifact is against the same FP32.
    The same seed, machine and number of threads give the same artifact on a CPU. What cannot work is refused before anything
    long begins. Raises any of edge_resnet.core.errors; a budget that is missed is returned, for hours of training are not thrown away.
    """
    load_backend(resolve_backend(backend))
    _check(artifact, options, output)
    train, test = open_train_images(options.data, options.validation, artifact)
    if options.max_drop is not None and test is None:
        raise ConfigError("a budget needs labelled images to be measured on", hint="--val-data takes a folder, a CSV or an .npz")
    with staging(output, force=force) as folder:
        for name in (MODEL, LABELS):
            shutil.copyfile(artifact.folder / name, folder / name)
        recipe = artifact.manifest.recipe or options.recipe
        sample = balanced_sample(train, recipe.images, recipe.seed)
        start = _start(artifact, options, sample, folder, progress)
        network = FakeQuantized(onnx.load(folder / MODEL), *start)
        result = _train(network, artifact, options, (train, test), progress)
        made = _write(network, start, sample, folder, (artifact, options, train, result), progress)
        seen, budget, missed = None, None, None
        if test is not None:
            seen = measure_accuracy(folder, test, artifact.manifest.preprocess, (start, made), progress=progress)
            budget, missed = refuse_beyond(seen, options.max_drop)
        write_manifest(folder, _manifest(artifact, made[0], (sample, train), seen, budget))
    written = open_artifact(output)
    compile_written(written, backend, progress=progress)
    return FineTuned(written, result, seen, missed)


def _check(artifact: Artifact, options: QatOptions, output: Path) -> None:
    precision = artifact.manifest.precision
    if precision == "fp16":
        raise ConfigError(
            f"{artifact.folder} is FP16, which is not rounded to integers",
            hint="quantization-aware training takes an INT8 artifact, or an FP32 one: build --int8, build --fp32",
        )
    if artifact.manifest.model.weights == "random" and not options.allow_random:
        raise CalibrationError("random weights have nothing to keep", hint="train them first, or --allow-random to try")
    if output.resolve() == artifact.folder.resolve():
        raise ConfigError(f"{output} is the artifact that is read", hint="choose another folder with -o")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError("quantization-aware training runs in one process", hint="start it without torchrun")


def _start(
    artifact: Artifact, options: QatOptions, sample: ImageSet, folder: Path, progress: Progress | None
) -> tuple[CalibrationTable, Corrections | None]:
    """Ranges and corrections to begin with."""
    if artifact.manifest.precision == "int8":
        return artifact.calibration(), read_corrections(artifact)
    if not options.allow_random:
        refuse_noise(sample)
    made = add_int8(
        folder,
        artifact.manifest.preprocess,
        Int8Options(options.data, options.recipe, allow_random=options.allow_random),
        (sample, None),
        progress=progress,
    )
    return made.table, made.corrections


def _train(
    network: FakeQuantized,
    artifact: Artifact,
    options: QatOptions,
    sets: tuple[ImageSet, ImageSet | None],
    progress: Progress | None,
) -> TrainResult:
    """Train in place; the network ends on the CPU."""
    learner: nn.Module = network
    if options.distil > 0:
        learner = Distilled(network, Fp32Teacher(onnx.load(artifact.model_path)), options.distil)
    result = fit(learner, TrainData(*sets, artifact.manifest.preprocess), options.training, progress=progress)
    if result.stopped is not None:
        _log.warning("training stopped: %s", result.stopped)
    network.cpu().eval()
    if not all(bool(torch.isfinite(parameter).all()) for parameter in network.parameters()):
        raise CalibrationError("the training diverged: a weight is not finite", hint="a lower --rate")
    return result


def _write(
    network: FakeQuantized,
    start: tuple[CalibrationTable, Corrections | None],
    sample: ImageSet,
    folder: Path,
    told: tuple[Artifact, QatOptions, ImageSet, TrainResult],
    progress: Progress | None,
) -> tuple[CalibrationTable, Corrections]:
    """Write what INT8 derives from, once the graph that is derived from it answers as the network does."""
    artifact, options, train, result = told
    model, preprocess = onnx.load(folder / MODEL), artifact.manifest.preprocess
    corrections = corrections_of(network, exact_input=start[1] is not None and start[1].exact_input)
    with cache_images(sample, preprocess, folder) as images:
        table = table_of(network, start[0], apply(model, corrections), images, progress=progress)
        shown = images.batches(_BATCH, _COMPARED)
        difference = verify_int8(network, model, (table, corrections), shown, preprocess)
    table = replace(table, qat=_report(artifact, options, train, result, difference))
    write_json(folder / CALIBRATION, table)
    write_corrections(folder / CORRECTIONS, corrections)
    return table, corrections


def _report(artifact: Artifact, options: QatOptions, train: ImageSet, result: TrainResult, difference: float) -> QatReport:
    words, last = options.training, result.records[-1]
    return QatReport(
        data=train.name,
        images=len(train),
        data_digest=train.digest(),
        epochs=words.epochs,
        steps=last.step,
        batch=words.batch,
        rate=words.rate,
        augment=words.augment,
        seed=words.seed,
        distil=options.distil,
        source=artifact.source_digest(),
        train_loss=last.train_loss,
        difference=difference,
    )


def _manifest(
    artifact: Artifact,
    table: CalibrationTable,
    sets: tuple[ImageSet, ImageSet],
    seen: QatAccuracy | None,
    budget: BudgetReport | None,
) -> Manifest:
    sample, train = sets
    assert table.qat is not None  # _write put it there
    trained = f"{table.qat.epochs:g} epochs of quantization-aware training on {len(train)} images of {train.name}"
    return replace(
        artifact.manifest,
        precision="int8",
        recipe=table.recipe,
        calibration=f"{table.images} images of {sample.name}, then {trained}",
        accuracy=None if seen is None else {"fp32_top1": seen.fp32_top1, "int8_top1": seen.int8_top1},
        budget=budget,
        warnings=(),
    )


def open_train_images(data: str, held_out: str | None, artifact: Artifact) -> tuple[ImageSet, ImageSet | None]:
    """Open what is learned from and, where there is any, what is judged on: ``data`` as ``open_pair`` takes it.

    Class folders are matched with the artifact's labels by name. Raises DataError where labels are missing, belong to another
    network, or are all of one class.
    """
    labels, place = artifact.labels, Path(data)
    if data in NAMES or (place.is_dir() and ((place / "train").is_dir() or any(place.glob("*train.npz")))):
        train, test = open_pair(data)
    else:
        train, test = open_data(data, split="train", label_names=labels), None
    if held_out is not None:
        test = open_data(held_out, split="test", label_names=labels)
    for part in (train, test):
        if part is not None:
            require_labels(part)
            check_labels(part, artifact.manifest.model.classes)
            _check_names(part, labels)
    if len(set(require_labels(train))) < 2:
        raise DataError(f"all {len(train)} images of {train.name} are of one class", hint="a network tells two classes apart")
    return train, test


def _check_names(images: ImageSet, labels: tuple[str, ...]) -> None:
    """The set's own class names, where it has any, are the artifact's, in the same order."""
    unnamed = all(label == f"class {index}" for index, label in enumerate(labels))
    if not images.class_names or images.class_names == labels or (unnamed and len(images.class_names) == len(labels)):
        return
    strangers = [name for name in images.class_names if name not in labels]
    lost = [name for name in labels if name not in images.class_names]
    if strangers or lost:
        said = f"{images.name} has {', '.join(strangers[:3]) or 'fewer classes'}, the artifact {', '.join(lost[:3]) or 'fewer'}"
    else:
        said = f"{images.name} numbers them otherwise"
    hint = "give the images that the network was trained on; build takes names of its own with --labels"
    raise DataError(f"the classes differ: {said}", hint=hint)
