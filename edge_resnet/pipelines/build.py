"""The offline pipeline: weights → torch → verified ONNX → ranges → artifact. Knows only the order of the steps."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import onnx

from edge_resnet.artifact.enginecache import EngineTuning
from edge_resnet.artifact.folder import LABELS, MODEL, Artifact, open_artifact, staging, write_manifest
from edge_resnet.artifact.schema import SCHEMA_VERSION, ForeignSpec, Manifest, WeightsOrigin
from edge_resnet.compiler.foreign import Wrapped, verify_wrapped
from edge_resnet.core.errors import CalibrationError, ConfigError, WeightsError
from edge_resnet.core.records import BatchProfile, ModelSpec, Precision, Preprocess, Progress, QuantRecipe
from edge_resnet.images.calibration import CalibrationImages
from edge_resnet.images.classes import same_classes
from edge_resnet.network import ResNet, build_network, class_names, load_weights, shipped_checkpoint
from edge_resnet.network.export import VERIFY_BATCHES, Deployable, export, verify
from edge_resnet.network.training.distributed import resolve_device
from edge_resnet.pipelines.engines import compile_written
from edge_resnet.quantization.int8 import (
    Int8Options,
    add_int8,
    add_shipped_int8,
    check_budget_options,
    open_budget,
    open_calibration,
    with_int8,
)
from edge_resnet.runtime.backend import backend_info, load_backend, refuse_tuning, resolve_backend

__all__ = ["BuildOptions", "build", "has_own_ranges", "labels_for"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildOptions:
    """What to build.

    ``weights``: as ``load_weights`` takes them. ``labels``: one name per class, None for the family's own.
    ``calibration_data``, ``recipe``: needed for INT8 unless ``has_own_ranges``. ``max_drop``: points of top-1 that INT8 may lose
    on the labelled images of ``validation_data``. ``tuning``: of TensorRT's engine. ``allow_random``: accept noise as images, and
    random weights. ``origin``: of the weights, for the manifest. ``foreign``: the wrapped network that ``model`` describes,
    if it is of another maker. ``device``: where INT8 learns, ``auto``, ``cpu`` or ``cuda``.
    """

    model: ModelSpec | ForeignSpec
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
    origin: WeightsOrigin | None = None
    foreign: Wrapped | None = None
    device: str = "auto"


def build(options: BuildOptions, *, progress: Progress | None = None) -> Artifact:
    """Make the artifact, whole or not at all, and its engine for this machine.

    The options are checked before any long work. If the engine fails the artifact is kept, and the error says how to compile it
    again. Raises any of edge_resnet.core.errors.
    """
    int8 = _check(options)
    with ExitStack() as stack:
        folder = stack.enter_context(staging(options.output, force=options.force))
        network = None if isinstance(options.model, ForeignSpec) else build_network(options.model)
        weights = options.model.weights if network is None else _loaded(network, options, progress)
        images = None
        if int8 is not None:  # after the weights, because the download of a data set takes longer
            images = stack.enter_context(open_calibration(int8, options.preprocess, folder))
        difference = _export(options, network, images, folder / MODEL, progress)
        del network  # 100 MB of weights, which the graph has as well
        labels = labels_for(options, images)
        budget = None if int8 is None else open_budget(int8, options.model, labels)
        (folder / LABELS).write_text("\n".join(labels) + "\n", encoding="utf-8")
        manifest = _manifest(options, weights, difference)
        if int8 is not None and images is not None:
            made = add_int8(folder, images, int8.recipe, budget, device=int8.device, progress=progress)
            manifest = with_int8(manifest, made, images.name)
        elif options.precision == "int8" and not isinstance(options.model, ForeignSpec):
            manifest = _with_own_ranges(manifest, options.model, folder)
        write_manifest(folder, manifest)
    artifact = open_artifact(options.output)
    compile_written(artifact, options.backend, tuning=options.tuning, progress=progress)
    return artifact


def has_own_ranges(model: ModelSpec | ForeignSpec, preprocess: Preprocess, weights: str) -> bool:
    """Whether INT8 needs no images because the default weights ship with ranges measured for them."""
    if isinstance(model, ForeignSpec):
        return False
    checkpoint = shipped_checkpoint(model) if weights == "default" else None
    return checkpoint is not None and checkpoint.preprocess == preprocess


def labels_for(options: BuildOptions, images: CalibrationImages | None) -> tuple[str, ...]:
    """The user's labels; else the family's own; else the calibration set's, if it has as many; else numbers.

    Labels that nobody has named are a guess where the calibration set names its classes: which are taken is logged as a warning.
    """
    if options.labels is not None:
        return options.labels
    known = None if isinstance(options.model, ForeignSpec) else class_names(options.model)
    given = () if images is None else images.images.class_names
    if len(given) != options.model.classes:
        return known or tuple(f"class {index}" for index in range(options.model.classes))
    assert images is not None
    if known is None:
        _log.warning("the labels are the classes of %s: %s; --labels gives others", images.name, _few(given))
        return given
    if not same_classes(given, known):
        names = f"{_few(known)}, but the classes of {images.name} are {_few(given)}"
        _log.warning("the labels are the family's own, %s; --labels gives others", names)
    return known


def _with_own_ranges(manifest: Manifest, model: ModelSpec, folder: Path) -> Manifest:
    checkpoint = shipped_checkpoint(model)
    assert checkpoint is not None  # _check has made sure
    return with_int8(manifest, add_shipped_int8(folder, checkpoint), f"{checkpoint.calibrated_on}, as shipped")


def _check(options: BuildOptions) -> Int8Options | None:
    """Refuse invalid options. Returns how INT8 is made; None for another precision, and if its ranges ship."""
    if options.precision not in get_args(Precision):
        raise ConfigError(f"there is no precision {options.precision!r}", hint=f"choose one of {', '.join(get_args(Precision))}")
    name = resolve_backend(options.backend)
    load_backend(name)
    if backend_info(name).form.kind != "plan":
        refuse_tuning(options.tuning)
    if options.preprocess.crop != options.model.input_size:
        raise ConfigError(f"the crop of {options.preprocess.crop} pixels is not the input size {options.model.input_size}")
    if options.labels is not None and len(options.labels) != options.model.classes:
        raise ConfigError(
            f"{len(options.labels)} labels for {options.model.classes} classes", hint="there is a label for each class"
        )
    if options.precision != "int8":
        if options.max_drop is not None or options.validation_data is not None:
            raise ConfigError(
                f"{options.precision} has no accuracy budget", hint="only INT8 has a budget, and images to measure it on"
            )
        return None
    check_budget_options(options.validation_data, options.max_drop)
    shipped = options.recipe is None and options.calibration_data is None and options.max_drop is None
    if shipped and has_own_ranges(options.model, options.preprocess, options.weights):
        return None
    if options.recipe is None or options.calibration_data is None:
        raise CalibrationError("INT8 needs images to calibrate on", hint="--calib-data takes a folder, a CSV, an .npz or a name")
    if options.weights == "random" and not options.allow_random:
        raise CalibrationError("random weights have no ranges worth calibrating", hint="--weights PATH, or --allow-random to try")
    resolve_device(options.device)
    return Int8Options(
        options.calibration_data,
        options.recipe,
        options.validation_data,
        options.max_drop,
        options.allow_random,
        options.device,
    )


def _loaded(network: ResNet, options: BuildOptions, progress: Progress | None) -> str:
    """Fill the network and return the weights' id. A wrong number of labels is a fault of the labels, not of the weights."""
    assert isinstance(options.model, ModelSpec)  # a foreign network is filled already
    try:
        return load_weights(network, options.model, options.weights, progress=progress)
    except WeightsError as error:
        if options.labels is None or error.classes is None:
            raise
        hint = "edge-resnet build --labels takes a line per class, in the order of the network's outputs"
        raise ConfigError(f"{len(options.labels)} labels for weights of {error.classes} classes", hint=hint) from error


def _export(
    options: BuildOptions, network: ResNet | None, images: CalibrationImages | None, path: Path, progress: Progress | None
) -> float:
    """Write and verify ``model.onnx``. Returns the largest difference of a logit."""
    if progress is not None:
        progress("export", 0, 2)
    pixels = _verification_images(options, images)
    if network is None:
        assert options.foreign is not None, "a foreign network comes wrapped"
        onnx.save(options.foreign.graph, path)
        difference = verify_wrapped(options.foreign, pixels)
    else:
        model = Deployable(network, options.preprocess)
        export(model, options.model.input_size, path)
        if progress is not None:
            progress("export", 1, 2)
        difference = verify(model, path, pixels)
    if progress is not None:
        progress("export", 2, 2)
    return difference


def _verification_images(options: BuildOptions, images: CalibrationImages | None) -> npt.NDArray[np.uint8]:
    """Images to verify the export on: the first calibration images, else smooth seeded ones."""
    count, size = max(VERIFY_BATCHES), options.model.input_size
    if images is not None and len(images) >= count:
        return images.pixels.take(range(count))
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:size, 0:size] / size
    waves = rng.uniform(1, 12, (count, 3, 2))
    phase = waves[..., 0, None, None] * x + waves[..., 1, None, None] * y
    return np.ascontiguousarray((127.5 + 127.5 * np.sin(2 * np.pi * phase)).astype(np.uint8).transpose(0, 2, 3, 1))


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _manifest(options: BuildOptions, weights: str, difference: float) -> Manifest:
    """The manifest of the exported network, without the fields of INT8."""
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
        created="",  # the last three are filled in when it is written
        tools={},
        files={},
        origin=options.origin,
    )
