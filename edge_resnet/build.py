"""The offline pipeline: weights → torch → verified ONNX → ranges → artifact. Knows the order of the steps alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from edge_resnet.artifact import (
    CALIBRATION,
    LABELS,
    MANIFEST,
    MODEL,
    Artifact,
    describe_files,
    open_artifact,
    staging,
    write_json,
)
from edge_resnet.backends import load_backend, resolve_backend
from edge_resnet.compile import compile_engine
from edge_resnet.datasets import open_data
from edge_resnet.errors import CalibrationError, ConfigError
from edge_resnet.export import VERIFY_BATCHES, Deployable, export, verify
from edge_resnet.imageset import ImageSet, balanced_sample, batches, require_several
from edge_resnet.models import ResNet, build_network, class_names, load_weights
from edge_resnet.quantization.calibrate import CALIBRATION_BATCH, calibrate, refuse_noise
from edge_resnet.quantization.qdq import measured_tensors
from edge_resnet.spec import (
    SCHEMA_VERSION,
    BatchProfile,
    CalibrationTable,
    Manifest,
    ModelSpec,
    Precision,
    Preprocess,
    Progress,
    QuantRecipe,
)

__all__ = ["BuildOptions", "build"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildOptions:
    """What to build. ``weights``: ``default``, ``random`` or a path. ``labels``: one name per class, None for the family's own.

    ``calibration_data``, ``recipe``: None unless INT8. ``allow_random``: let INT8 be calibrated with random weights or on noise.
    """

    model: ModelSpec
    preprocess: Preprocess
    precision: Precision
    weights: str
    output: Path
    labels: tuple[str, ...] | None = None
    calibration_data: str | None = None
    recipe: QuantRecipe | None = None
    batch: BatchProfile = field(default_factory=BatchProfile)
    backend: str = "auto"
    force: bool = False
    allow_random: bool = False


def build(options: BuildOptions, *, progress: Progress | None = None) -> Artifact:
    """Make the artifact and its engine for this machine, whole or not at all.

    What the user gave is checked before anything long begins. Raises any of edge_resnet.errors.
    """
    _check(options)
    with staging(options.output, force=options.force) as folder:
        network = build_network(options.model)
        weights = load_weights(network, options.model, options.weights, progress=progress)
        sample = _calibration_sample(options)  # after the weights: a data set's download is the longer one
        difference = _export(options, network, sample, folder / MODEL, progress)
        labels = _labels(options, sample)
        (folder / LABELS).write_text("\n".join(labels) + "\n", encoding="utf-8")
        table = _calibrate(options, sample, folder, progress)
        if table is not None:
            write_json(folder / CALIBRATION, table)
        manifest = _manifest(options, weights, difference, table, sample)
        manifest = replace(manifest, files=describe_files(folder))
        write_json(folder / MANIFEST, manifest)
        if progress is not None:
            progress("compile", 0, 1)
        compile_engine(Artifact(folder, manifest, labels), options.backend)
        if progress is not None:
            progress("compile", 1, 1)
    return open_artifact(options.output)


def _check(options: BuildOptions) -> None:
    load_backend(resolve_backend(options.backend))
    if options.preprocess.crop != options.model.input_size:
        raise ConfigError(f"the crop of {options.preprocess.crop} pixels is not the input size {options.model.input_size}")
    if options.labels is not None and len(options.labels) != options.model.classes:
        raise ConfigError(
            f"{len(options.labels)} labels for {options.model.classes} classes", hint="--labels takes a line per class"
        )
    if options.precision != "int8":
        return
    if options.recipe is None or options.calibration_data is None:
        raise CalibrationError(
            "INT8 needs pictures to calibrate on", hint="--calib-data takes a folder, a CSV, an .npz or a name"
        )
    if options.weights == "random" and not options.allow_random:
        raise CalibrationError(
            "random weights have no ranges worth calibrating", hint="give --weights PATH, or --allow-random to try"
        )


def _calibration_sample(options: BuildOptions) -> ImageSet | None:
    """The pictures to calibrate on, drawn by class and seed; None unless INT8."""
    if options.recipe is None or options.calibration_data is None:
        return None
    images = open_data(options.calibration_data, split="train")
    require_several(images)
    sample = balanced_sample(images, options.recipe.images, options.recipe.seed)
    if len(sample) < options.recipe.images:
        _log.warning("%s has %d images, fewer than the %d asked for", images.name, len(sample), options.recipe.images)
    return sample


def _export(options: BuildOptions, network: ResNet, sample: ImageSet | None, path: Path, progress: Progress | None) -> float:
    """Write and verify ``model.onnx``; returns the largest difference of a logit seen."""
    if progress is not None:
        progress("export", 0, 2)
    model = Deployable(network, options.preprocess)
    export(model, options.model.input_size, path)
    if progress is not None:
        progress("export", 1, 2)
    difference = verify(model, path, _pictures(options, sample))
    if progress is not None:
        progress("export", 2, 2)
    return difference


def _pictures(options: BuildOptions, sample: ImageSet | None) -> npt.NDArray[np.uint8]:
    """Pictures to verify the export on: the first of the calibration set, else smooth seeded ones."""
    count, size = max(VERIFY_BATCHES), options.model.input_size
    if sample is not None and len(sample) >= count:
        return next(batches(sample.subset(range(count)), options.preprocess, count)).images
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:size, 0:size] / size
    waves = rng.uniform(1, 12, (count, 3, 2))
    phase = waves[..., 0, None, None] * x + waves[..., 1, None, None] * y
    return np.ascontiguousarray((127.5 + 127.5 * np.sin(2 * np.pi * phase)).astype(np.uint8).transpose(0, 2, 3, 1))


def _calibrate(
    options: BuildOptions, sample: ImageSet | None, folder: Path, progress: Progress | None
) -> CalibrationTable | None:
    if sample is None or options.recipe is None:
        return None
    if not options.allow_random:
        refuse_noise(sample)
    tensors = measured_tensors(onnx.load(folder / MODEL))
    return calibrate(folder / MODEL, tensors, _only_images(options, sample), options.recipe, progress=progress)


def _only_images(options: BuildOptions, sample: ImageSet) -> Iterator[npt.NDArray[np.uint8]]:
    for batch in batches(sample, options.preprocess, CALIBRATION_BATCH):
        yield batch.images


def _labels(options: BuildOptions, sample: ImageSet | None) -> tuple[str, ...]:
    """The user's labels; else the calibration set's, where it names as many; else the family's own."""
    if options.labels is not None:
        return options.labels
    known = class_names(options.model)
    if known:
        return known
    if sample is not None and len(sample.class_names) == options.model.classes:
        return sample.class_names
    return tuple(f"class {index}" for index in range(options.model.classes))


def _manifest(
    options: BuildOptions, weights: str, difference: float, table: CalibrationTable | None, sample: ImageSet | None
) -> Manifest:
    packages = ("edge-resnet", "numpy", "onnx", "onnxruntime", "pillow", "torch")
    return Manifest(
        schema_version=SCHEMA_VERSION,
        model=replace(options.model, weights=weights),
        preprocess=options.preprocess,
        precision=options.precision,
        batch=options.batch,
        recipe=None if table is None else table.recipe,
        calibration=None if table is None or sample is None else f"{table.images} images of {sample.name}",
        accuracy=None,
        export_max_abs=difference,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        tools={name: version(name) for name in packages},
        files={},
    )
