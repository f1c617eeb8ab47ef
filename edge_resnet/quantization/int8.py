"""INT8 of a folder that holds a graph: opens the images, has ranges and corrections made, and writes them.

Does not know how ranges and corrections are found.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np
import onnx
from pydantic import TypeAdapter

from edge_resnet.artifact.folder import CALIBRATION, CORRECTIONS, MODEL, write_json
from edge_resnet.artifact.schema import SCHEMA_VERSION, CalibrationTable, ForeignSpec, Manifest
from edge_resnet.compiler.graph.corrections import apply, load_corrections, write_corrections
from edge_resnet.compiler.graph.qdq import measured_tensors
from edge_resnet.core.errors import CalibrationError, ConfigError
from edge_resnet.core.files import sha256_of
from edge_resnet.core.records import ModelSpec, Preprocess, Progress, QuantRecipe
from edge_resnet.images.calibration import CalibrationImages, draw_calibration_images
from edge_resnet.images.datasets import open_data, open_labelled
from edge_resnet.images.imagecache import ImageCache
from edge_resnet.images.imageset import ImageSet, require_labels
from edge_resnet.network.pretrained import Checkpoint
from edge_resnet.network.training.distributed import resolve_device
from edge_resnet.quantization.budget import check_max_drop
from edge_resnet.quantization.pipeline import Int8, Validation, check_images_for_calibration, make_int8

__all__ = [
    "AccuracyBudget",
    "Int8Options",
    "add_int8",
    "add_shipped_int8",
    "check_budget_options",
    "open_budget",
    "open_calibration",
    "with_int8",
    "write_int8",
]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Int8Options:
    """How INT8 is made.

    ``data``: the images to calibrate on, a path or a name. ``validation``, ``max_drop``: labelled images, and how many points of
    top-1 may be lost on them; both or neither. ``allow_random``: accept noise as images, and random weights. ``device``: where
    torch learns, ``auto``, ``cpu`` or ``cuda``.
    """

    data: str
    recipe: QuantRecipe
    validation: str | None = None
    max_drop: float | None = None
    allow_random: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        check_budget_options(self.validation, self.max_drop)


@dataclass(frozen=True, eq=False)
class AccuracyBudget:
    """The accuracy budget: labelled ``images``, and how many points of top-1 INT8 may lose on them."""

    images: ImageSet
    max_drop: float


def check_budget_options(validation: str | None, max_drop: float | None) -> None:
    """Raise ConfigError unless images and budget are both given or both missing, and the budget lies in 0..100."""
    if max_drop is not None and validation is None:
        raise ConfigError(
            "--max-drop needs labelled images to be measured on",
            hint="--val-data takes a folder of class folders, a CSV or an .npz",
        )
    if validation is not None and max_drop is None:
        raise ConfigError(
            "--val-data is only used with an accuracy budget",
            hint="--max-drop 0.5 is a usual budget; edge-resnet eval measures without one",
        )
    if max_drop is not None:
        check_max_drop(max_drop)


def open_calibration(options: Int8Options, preprocess: Preprocess, folder: Path | None = None) -> CalibrationImages:
    """Open ``options.data``, draw the images to calibrate on and preprocess them into a file under ``folder``.

    Raises DataError if they cannot be opened, CalibrationError if they are noise.
    """
    source = open_data(options.data, split="train")
    return draw_calibration_images(source, options.recipe, preprocess, allow_noise=options.allow_random, folder=folder)


def open_budget(
    options: Int8Options, model: ModelSpec | ForeignSpec, label_names: tuple[str, ...] | None
) -> AccuracyBudget | None:
    """The accuracy budget, None if there is none. Raises DataError for images without labels or of another network's classes."""
    if options.validation is None or options.max_drop is None:
        return None
    images = open_labelled(options.validation, split="test", classes=model.classes, label_names=label_names)
    return AccuracyBudget(images, options.max_drop)


def add_int8(
    folder: Path,
    images: CalibrationImages,
    recipe: QuantRecipe,
    budget: AccuracyBudget | None = None,
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> Int8:
    """Calibrate and correct the graph in ``folder`` on ``images``, and write ranges and corrections beside it.

    ``device``: where torch learns, ``auto``, ``cpu`` or ``cuda``. Raises ConfigError if torch does not find it, and else
    Raises what ``make_int8`` raises.
    """
    where = resolve_device(device)
    with _validation(budget, images.preprocess, folder) if budget is not None else nullcontext() as validation:
        warnings = check_images_for_calibration(onnx.load(folder / MODEL), images, progress)
        made = make_int8(folder / MODEL, images.pixels, recipe, validation, device=where, progress=progress)
    made = replace(made, warnings=(*warnings, *made.warnings))
    write_int8(folder, made)
    return made


def add_shipped_int8(folder: Path, checkpoint: Checkpoint) -> Int8:
    """Write the ranges and corrections that ship with ``checkpoint`` beside its graph in ``folder``; needs no images.

    Raises CalibrationError if the graph's tensors have other names, as an export by another version of torch may have.
    """
    table = TypeAdapter(CalibrationTable).validate_json((checkpoint.folder / CALIBRATION).read_text(encoding="utf-8"))
    with resources.as_file(checkpoint.folder / CORRECTIONS) as path:
        corrections = load_corrections(path)
    graph = apply(onnx.load(folder / MODEL), corrections)
    missing = set(measured_tensors(graph)) - set(table.amax)
    if missing:
        raise CalibrationError(
            f"the shipped ranges have none for the tensor {min(missing)}", hint="--calib-data cifar10 measures new ones"
        )
    made = Int8(replace(table, model_digest=sha256_of(folder / MODEL)), corrections)
    write_int8(folder, made)
    return made


def write_int8(folder: Path, made: Int8) -> None:
    """Write the calibration table and, if there are any, the corrections into ``folder``."""
    write_json(folder / CALIBRATION, made.table)
    if made.corrections is not None:
        write_corrections(folder / CORRECTIONS, made.corrections)


def with_int8(manifest: Manifest, made: Int8, images: str) -> Manifest:
    """The manifest of an INT8 artifact: recipe, budget and warnings of ``made``. ``images``: what it was made with, as text.

    Temperature and threshold belong to the network that they were measured on, and are left out.
    """
    budget = made.budget
    if manifest.confidence is not None:
        _log.warning("the threshold for unknown is not taken over: it was measured on another network, and has to be found anew")
    return replace(
        manifest,
        schema_version=SCHEMA_VERSION,
        precision="int8",
        recipe=made.table.recipe,
        calibration=f"{made.table.images} images of {images}",
        accuracy=None if budget is None else {"fp32_top1": budget.fp32_top1, "int8_top1": budget.int8_top1},
        budget=budget,
        warnings=made.warnings,
        confidence=None,
    )


@contextmanager
def _validation(budget: AccuracyBudget, preprocess: Preprocess, folder: Path) -> Iterator[Validation]:
    """The images of the budget, preprocessed into a file under ``folder``, with the labels of those that can be read."""
    with ImageCache.of_set(budget.images, preprocess, folder) as images:
        labels = np.array(require_labels(budget.images), np.int64)[list(images.indices)]
        yield Validation(images, labels, budget.max_drop)
