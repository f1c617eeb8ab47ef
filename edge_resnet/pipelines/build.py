"""The offline pipeline: weights → torch → verified ONNX → ranges → artifact. Knows the order of the steps alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_resnet.artifact.enginecache import EngineTuning
from edge_resnet.artifact.folder import LABELS, MODEL, Artifact, open_artifact, staging, write_manifest
from edge_resnet.artifact.schema import SCHEMA_VERSION, Manifest
from edge_resnet.core.errors import CalibrationError, ConfigError
from edge_resnet.core.records import BatchProfile, ModelSpec, Precision, Preprocess, Progress, QuantRecipe
from edge_resnet.images.imageset import ImageSet, batches
from edge_resnet.network import ResNet, build_network, class_names, load_weights, shipped_checkpoint
from edge_resnet.network.export import VERIFY_BATCHES, Deployable, export, verify
from edge_resnet.pipelines.engines import compile_written
from edge_resnet.quantization.int8 import Int8Options, add_int8, add_shipped_int8, draw_sample, open_validation, with_int8
from edge_resnet.runtime.backend import load_backend, refuse_tuning, resolve_backend

__all__ = ["BuildOptions", "build", "has_own_ranges"]


@dataclass(frozen=True)
class BuildOptions:
    """What to build. ``weights``: ``default``, ``random`` or a path. ``labels``: one name per class, None for the family's own.

    ``calibration_data``, ``recipe``: None unless INT8, and for INT8 too where ``has_own_ranges``. ``max_drop``: points of top-1
    that INT8 may lose on the labelled images of ``validation_data``. ``tuning``: of TensorRT's engine. ``allow_random``:
    calibrate random weights, or on noise.
    """

    model: ModelSpec
    preprocess: Preprocess
    precision: Precision
    weights: str
    output: Path
    labels: tuple[str, ...] | None = None
    calibration_data: str | None = None
    recipe: QuantRecipe | None = None
    validation_data: str | None = None
    max_drop: float | None = None
    batch: BatchProfile = field(default_factory=BatchProfile)
    backend: str = "auto"
    tuning: EngineTuning | None = None
    force: bool = False
    allow_random: bool = False


def build(options: BuildOptions, *, progress: Progress | None = None) -> Artifact:
    """Make the artifact, whole or not at all, and its engine for this machine.

    What the user gave is checked before anything long begins. An engine that fails leaves the artifact, and the error says how to
    try it again. Raises any of edge_resnet.core.errors.
    """
    int8 = _check(options)
    with staging(options.output, force=options.force) as folder:
        network = build_network(options.model)
        weights = load_weights(network, options.model, options.weights, progress=progress)
        validation = None if int8 is None else open_validation(int8, options.model, options.labels)
        sample = None if int8 is None else draw_sample(int8)  # after the weights: a data set's download is the longer one
        difference = _export(options, network, sample, folder / MODEL, progress)
        labels = _labels(options, sample)
        (folder / LABELS).write_text("\n".join(labels) + "\n", encoding="utf-8")
        manifest = _manifest(options, weights, difference)
        if int8 is not None and sample is not None:
            made = add_int8(folder, options.preprocess, int8, (sample, validation), progress=progress)
            manifest = with_int8(manifest, made, sample.name)
        elif options.precision == "int8":
            manifest = _with_own_ranges(manifest, options.model, folder)
        write_manifest(folder, manifest)
    artifact = open_artifact(options.output)
    compile_written(artifact, options.backend, tuning=options.tuning, progress=progress)
    return artifact


def has_own_ranges(model: ModelSpec, preprocess: Preprocess, weights: str) -> bool:
    """Whether INT8 needs no images: the default weights ship, with the ranges measured for them."""
    checkpoint = shipped_checkpoint(model) if weights == "default" else None
    return checkpoint is not None and checkpoint.preprocess == preprocess


def _with_own_ranges(manifest: Manifest, model: ModelSpec, folder: Path) -> Manifest:
    checkpoint = shipped_checkpoint(model)
    assert checkpoint is not None  # _check asked
    return with_int8(manifest, add_shipped_int8(folder, checkpoint), f"{checkpoint.calibrated_on}, as shipped")


def _check(options: BuildOptions) -> Int8Options | None:
    """Refuse what makes no sense; what INT8 is made with, None for another precision and where its ranges ship."""
    name = resolve_backend(options.backend)
    load_backend(name)
    if name != "tensorrt":
        refuse_tuning(options.tuning)
    if options.preprocess.crop != options.model.input_size:
        raise ConfigError(f"the crop of {options.preprocess.crop} pixels is not the input size {options.model.input_size}")
    if options.labels is not None and len(options.labels) != options.model.classes:
        raise ConfigError(
            f"{len(options.labels)} labels for {options.model.classes} classes", hint="--labels takes a line per class"
        )
    if options.precision != "int8":
        if options.max_drop is not None:
            raise ConfigError(f"{options.precision} has no accuracy budget", hint="--max-drop belongs to --int8")
        return None
    untouched = options.recipe is None and options.calibration_data is None and options.max_drop is None
    if untouched and has_own_ranges(options.model, options.preprocess, options.weights):
        return None
    if options.recipe is None or options.calibration_data is None:
        raise CalibrationError("INT8 needs images to calibrate on", hint="--calib-data takes a folder, a CSV, an .npz or a name")
    if options.weights == "random" and not options.allow_random:
        raise CalibrationError(
            "random weights have no ranges worth calibrating", hint="give --weights PATH, or --allow-random to try"
        )
    return Int8Options(options.calibration_data, options.recipe, options.validation_data, options.max_drop, options.allow_random)


def _export(options: BuildOptions, network: ResNet, sample: ImageSet | None, path: Path, progress: Progress | None) -> float:
    """Write and verify ``model.onnx``; returns the largest difference of a logit seen."""
    if progress is not None:
        progress("export", 0, 2)
    model = Deployable(network, options.preprocess)
    export(model, options.model.input_size, path)
    if progress is not None:
        progress("export", 1, 2)
    difference = verify(model, path, _images(options, sample))
    if progress is not None:
        progress("export", 2, 2)
    return difference


def _images(options: BuildOptions, sample: ImageSet | None) -> npt.NDArray[np.uint8]:
    """Images to verify the export on: the first of the calibration set, else smooth seeded ones."""
    count, size = max(VERIFY_BATCHES), options.model.input_size
    if sample is not None and len(sample) >= count:
        return next(batches(sample.subset(range(count)), options.preprocess, count)).images
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:size, 0:size] / size
    waves = rng.uniform(1, 12, (count, 3, 2))
    phase = waves[..., 0, None, None] * x + waves[..., 1, None, None] * y
    return np.ascontiguousarray((127.5 + 127.5 * np.sin(2 * np.pi * phase)).astype(np.uint8).transpose(0, 2, 3, 1))


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


def _manifest(options: BuildOptions, weights: str, difference: float) -> Manifest:
    """The manifest of the network as it is; INT8 adds its own."""
    return Manifest(
        schema_version=SCHEMA_VERSION,
        model=replace(options.model, weights=weights),
        preprocess=options.preprocess,
        precision=options.precision,
        batch=options.batch,
        recipe=None,
        calibration=None,
        accuracy=None,
        export_max_abs=difference,
        created="",  # these three are filled in when it is written
        tools={},
        files={},
    )
