"""INT8 of a folder that holds a graph: opens the images, has ranges and corrections made, writes them. Knows no method
itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from pydantic import TypeAdapter

from edge_resnet.artifact.folder import (
    CALIBRATION,
    CORRECTIONS,
    MODEL,
    write_json,
)
from edge_resnet.artifact.schema import CalibrationTable, Manifest
from edge_resnet.compiler.graph.corrections import apply, load_corrections, write_corrections
from edge_resnet.compiler.graph.qdq import measured_tensors
from edge_resnet.core.errors import CalibrationError, ConfigError
from edge_resnet.core.files import sha256_of
from edge_resnet.core.records import ModelSpec, Preprocess, Progress, QuantRecipe
from edge_resnet.images.checks import refuse_noise
from edge_resnet.images.datasets import open_data
from edge_resnet.images.imageset import ImageSet, balanced_sample, batches, check_labels, require_labels, require_several
from edge_resnet.network.pretrained import Checkpoint
from edge_resnet.quantization.calibrate import CALIBRATION_BATCH
from edge_resnet.quantization.imagecache import ImageCache
from edge_resnet.quantization.pipeline import Int8, Validation, cache_images, check_images_for_calibration, make_int8

__all__ = ["Int8Options", "add_int8", "add_shipped_int8", "draw_sample", "open_validation", "with_int8"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Int8Options:
    """What INT8 is made with. ``data``: images to calibrate on, a path or a name. ``max_drop``: points of top-1 that may be
    lost on the labelled images of ``validation``; both or neither. ``allow_random``: calibrate on noise, and random weights."""

    data: str
    recipe: QuantRecipe
    validation: str | None = None
    max_drop: float | None = None
    allow_random: bool = False

    def __post_init__(self) -> None:
        if self.max_drop is not None and self.validation is None:
            raise ConfigError(
                "a budget needs labelled images to be measured on",
                hint="--val-data takes a folder of class folders, a CSV or an .npz",
            )
        if self.validation is not None and self.max_drop is None:
            raise ConfigError("--val-data is measured against a budget", hint="--max-drop 0.5, or leave it out and use eval")
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise ConfigError(f"the budget must lie in 0..100 points of top-1, not {self.max_drop}", hint="0.5 is a good start")


def draw_sample(options: Int8Options) -> ImageSet:
    """The images to calibrate on, drawn by class and seed. Raises DataError, and CalibrationError where they are noise."""
    images = open_data(options.data, split="train")
    require_several(images)
    sample = balanced_sample(images, options.recipe.images, options.recipe.seed)
    if len(sample) < options.recipe.images:
        _log.warning("%s has %d images, fewer than the %d asked for", images.name, len(sample), options.recipe.images)
    if not options.allow_random:
        refuse_noise(sample)
    return sample


def open_validation(options: Int8Options, model: ModelSpec, label_names: tuple[str, ...] | None) -> ImageSet | None:
    """The labelled images of the budget; None where there is none. Raises DataError where labels are missing or another
    network's."""
    if options.validation is None:
        return None
    images = open_data(options.validation, split="test", label_names=label_names)
    require_labels(images)
    check_labels(images, model.classes)
    return images


def add_int8(
    folder: Path,
    preprocess: Preprocess,
    options: Int8Options,
    sets: tuple[ImageSet, ImageSet | None],
    *,
    progress: Progress | None = None,
) -> Int8:
    """Calibrate and correct the graph in ``folder`` on ``sets`` (calibration, validation) and write what INT8 derives from
    there."""
    sample, validation = sets
    with ExitStack() as stack:
        images = stack.enter_context(cache_images(sample, preprocess, folder))
        judged = None
        if validation is not None and options.max_drop is not None:
            judged = stack.enter_context(_judged(validation, preprocess, folder, options.max_drop))
        suspicious = check_images_for_calibration(onnx.load(folder / MODEL), images, sample, preprocess, progress)
        made = make_int8(folder / MODEL, images, options.recipe, judged, progress=progress)
        made = replace(made, warnings=(*suspicious, *made.warnings))
    return _written(folder, made)


def add_shipped_int8(folder: Path, checkpoint: Checkpoint) -> Int8:
    """Write the ranges and corrections that ship with ``checkpoint`` to its graph in ``folder``: no image is needed.

    Raises CalibrationError where the graph names its tensors otherwise, as an export by another torch may.
    """
    table = TypeAdapter(CalibrationTable).validate_json((checkpoint.folder / CALIBRATION).read_text(encoding="utf-8"))
    with resources.as_file(checkpoint.folder / CORRECTIONS) as path:
        corrections = load_corrections(path)
    graph = apply(onnx.load(folder / MODEL), corrections)
    missing = set(measured_tensors(graph)) - set(table.amax)
    if missing:
        raise CalibrationError(
            f"the ranges that ship know no tensor {min(missing)}", hint="--calib-data cifar10 measures them anew"
        )
    return _written(folder, Int8(replace(table, model_digest=sha256_of(folder / MODEL)), corrections, None))


def _written(folder: Path, made: Int8) -> Int8:
    write_json(folder / CALIBRATION, made.table)
    if made.corrections is not None:
        write_corrections(folder / CORRECTIONS, made.corrections)
    return made


@contextmanager
def _judged(images: ImageSet, preprocess: Preprocess, folder: Path, max_drop: float) -> Iterator[Validation]:
    """The validation set on disk, with the labels of those that can be read."""
    labels: list[int] = []

    def noted() -> Iterator[npt.NDArray[np.uint8]]:
        for batch in batches(images, preprocess, CALIBRATION_BATCH):
            labels.extend(require_labels(images)[index] for index in batch.indices)
            yield batch.images

    with ImageCache(noted(), folder) as pixels:
        yield Validation(pixels, np.array(labels, np.int64), max_drop)


def with_int8(manifest: Manifest, made: Int8, images: str) -> Manifest:
    """The manifest with what was made on ``images``, measured and found suspicious."""
    budget = made.budget
    return replace(
        manifest,
        precision="int8",
        recipe=made.table.recipe,
        calibration=f"{made.table.images} images of {images}",
        accuracy=None if budget is None else {"fp32_top1": budget.fp32_top1, "int8_top1": budget.int8_top1},
        budget=budget,
        warnings=made.warnings,
    )
