"""The functions behind ``import edge_resnet``: what the commands do, for Python.

Knows no flags and no terminal: nothing is printed, and long work reports to ``progress``. A library is loaded only inside the
function that needs it; where it is not installed, MissingDependencyError names the extra.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from edge_resnet.artifact.enginecache import EngineTuning
from edge_resnet.artifact.folder import Artifact, open_artifact
from edge_resnet.artifact.schema import nearest_family
from edge_resnet.core.errors import ConfigError, MissingDependencyError
from edge_resnet.core.packages import EXTRAS, extra_command
from edge_resnet.core.records import BatchProfile, Family, Interpolation, ModelSpec, Normalisation, Precision, Progress, Shortcut
from edge_resnet.images.datasets import open_data
from edge_resnet.images.imageset import ImageSet
from edge_resnet.images.labelfile import named_classes
from edge_resnet.pipelines.model import Model
from edge_resnet.pipelines.model import open_model as load

if TYPE_CHECKING:
    from torch import nn

    from edge_resnet.measurement.accuracy import Evaluation
    from edge_resnet.measurement.bench.result import BenchResult, Scenario
    from edge_resnet.measurement.report import Questions
    from edge_resnet.measurement.report.record import Report
    from edge_resnet.network.training.job import JobResult, NetworkChoice
    from edge_resnet.network.training.options import TrainOptions
    from edge_resnet.pipelines.finetune import FineTuned
    from edge_resnet.quantization.recipes import RecipeOverrides
    from edge_resnet.runtime.backend import Variant
    from edge_resnet.streaming.counters import RunSummary
    from edge_resnet.streaming.records import Prediction
    from edge_resnet.streaming.sinks import Sink
    from edge_resnet.studies.sweep import SweepRequest
    from edge_resnet.studies.sweep.run import SweepObserver

__all__ = [
    "PathLike", "benchmark", "build", "compile", "evaluate", "finetune", "load", "open_images", "quantize", "report",
    "stream", "train",
]  # fmt: skip

#: What every path argument takes.
PathLike: TypeAlias = "str | os.PathLike[str]"


def build(
    *, output: PathLike | None = None, depth: int | None = None, model: nn.Module | str | None = None,
    onnx: PathLike | None = None, normalise: Normalisation | None = None,
    precision: Precision = "fp32", calibration: PathLike | None = None, family: Family | None = None,
    shortcut: Shortcut | None = None, plain: bool = False, classes: int | None = None, input_size: int | None = None,
    resize: int | None = None, interpolation: Interpolation | None = None, mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None, weights: PathLike = "default", labels: Sequence[str] | None = None,
    recipe: PathLike | None = None, overrides: RecipeOverrides | None = None, validation: PathLike | None = None,
    max_drop: float | None = None, batch: int | tuple[int, int, int] = 1, backend: str = "auto",
    tuning: EngineTuning | None = None, device: str = "auto", allow_random: bool = False, force: bool = False,
    progress: Progress | None = None,
) -> Artifact:  # fmt: skip
    """Make an artifact in the folder ``output``: weights, verified ONNX, INT8 ranges, and an engine for this machine.

    ``weights``: ``default``, ``v1`` or ``v2`` (torchvision's), ``random``, a file or ``hf://…``; they say the network and the
    preprocessing unless you do. ``model``: a network's name, or a torch module: a ResNet in torchvision's layout or a classifier
    of images, as in the file ``onnx``. Of these ``normalise`` says what the input expects, ``imagenet``, ``unit`` (0 to 1) or
    ``none`` (0 to 255), unless ``mean`` and ``std`` do. ``calibration``: images for INT8, a path or the name of a data set; None
    takes the recipe's. ``recipe``: a recipe's name or file, with ``overrides`` of its values. ``max_drop``: points of top-1 that
    INT8 may lose on the labelled images of ``validation``. ``batch``: the largest, or (minimum, optimum, maximum). ``device``:
    where INT8 learns, ``auto``, ``cpu`` or ``cuda``. ``output``: None is artifacts/NAME-PRECISION. Raises any of
    edge_resnet's errors; then nothing is left in ``output``, unless the engine failed.
    """
    with _extras(onnx="build"), ExitStack() as stack:
        from edge_resnet.pipelines import build as offline
        from edge_resnet.pipelines.selection import PreprocessChoice, Request, select
        from edge_resnet.pipelines.torchmodel import module_weights
        from edge_resnet.quantization.recipes import overridden_recipe

        names, name = named_classes(labels), model if isinstance(model, str) else None
        module = None if isinstance(model, str) else model
        images = PreprocessChoice.normalising(normalise, (input_size, resize), interpolation, mean, std)
        own = None if onnx is None else Path(onnx)
        request = Request(
            os.fspath(weights), name, module, family, depth, shortcut, plain, classes, len(names or ()), images, own
        )
        chosen = select(request, progress=progress)
        spec, preprocess, source = chosen.model, chosen.preprocess, chosen.weights
        if module is not None and isinstance(spec, ModelSpec):
            source = str(stack.enter_context(module_weights(module, spec)))
        asked = any(value is not None for value in (calibration, recipe, overrides, max_drop))
        calibrated = precision == "int8" and (asked or not offline.has_own_ranges(spec, preprocess, source))
        named = overridden_recipe(_text(recipe), spec.family, overrides) if calibrated else None
        options = offline.BuildOptions(
            model=spec, preprocess=preprocess, precision=precision, weights=source,
            output=Path("artifacts", f"{spec.name}-{precision}") if output is None else Path(output),
            labels=names or chosen.labels,
            calibration_data=None if named is None else _text(calibration) or named.data,
            recipe=None if named is None else named.recipe,
            validation_data=_text(validation), max_drop=max_drop,
            batch=BatchProfile(*((1, batch, batch) if isinstance(batch, int) else batch)), backend=backend, tuning=tuning,
            force=force, allow_random=allow_random, origin=chosen.origin, foreign=chosen.foreign,
            device=device,
        )  # fmt: skip
        return offline.build(options, progress=progress)


def quantize(
    artifact: Model | Artifact | PathLike, *, calibration: PathLike | None = None, output: PathLike,
    recipe: PathLike | None = None, overrides: RecipeOverrides | None = None, validation: PathLike | None = None,
    max_drop: float | None = None, backend: str = "auto", device: str = "auto", allow_random: bool = False,
    force: bool = False, progress: Progress | None = None,
) -> Artifact:  # fmt: skip
    """Make an INT8 artifact in ``output`` from the FP32 graph of another one, which stays as it is; needs no torch weights.

    The arguments are those of ``build``. Raises CalibrationError without images to calibrate on.
    """
    with _extras(onnx="build"):
        from edge_resnet.core.errors import CalibrationError
        from edge_resnet.pipelines.requantize import requantize
        from edge_resnet.quantization.int8 import Int8Options
        from edge_resnet.quantization.recipes import overridden_recipe

        source = _artifact(artifact)
        named = overridden_recipe(_text(recipe), source.manifest.model.family, overrides)
        data = _text(calibration) or (named.data if recipe is not None else None)
        if data is None:
            raise CalibrationError("INT8 needs images to calibrate on", hint="calibration= takes a path or a data set's name")
        options = Int8Options(data, named.recipe, _text(validation), max_drop, allow_random, device)
        return requantize(source, options, Path(output), backend=backend, force=force, progress=progress)


def finetune(
    artifact: Model | Artifact | PathLike, data: PathLike, *, output: PathLike, validation: PathLike | None = None,
    training: TrainOptions | None = None, distil: float = 0.5, max_drop: float | None = None, backend: str = "auto",
    allow_random: bool = False, force: bool = False, progress: Progress | None = None,
) -> FineTuned:  # fmt: skip
    """Quantization-aware training (QAT) of an artifact's network on labelled images; writes a new INT8 artifact to ``output``.

    ``training``: None takes three epochs at a low rate. ``distil``: the FP32 graph's share of the loss, in 0..1. Where the budget
    ``max_drop`` is missed, the artifact is written all the same and the result's ``missed`` holds the error.
    """
    with _extras(onnx="build"):
        from edge_resnet.network.training.options import usual_augmentation
        from edge_resnet.pipelines import finetune as pipeline
        from edge_resnet.quantization.recipes import load_recipe, recipe_for

        source = _artifact(artifact)
        family, kin = source.manifest.model.family, nearest_family(source.manifest.model)
        images = os.fspath(data)
        options = pipeline.QatOptions(
            data=images, recipe=load_recipe(recipe_for(family)).recipe, validation=_text(validation),
            training=training or replace(pipeline.DEFAULTS, augment=usual_augmentation(kin, images)),
            distil=distil, max_drop=max_drop, allow_random=allow_random,
        )  # fmt: skip
        return pipeline.fine_tune(source, options, Path(output), backend=backend, force=force, progress=progress)


def train(
    network: NetworkChoice, data: PathLike, *, validation: PathLike | None = None, options: TrainOptions | None = None,
    output: PathLike | None = None, resume: bool = False, force: bool = False, progress: Progress | None = None,
) -> JobResult:  # fmt: skip
    """Train a network on labelled images; writes its weights, log and result to ``output`` (None: ``runs/NAME``).

    ``options``: None is the default training with the family's augmentation. Raises what the images and the training raise.
    """
    with _extras(onnx="build"):
        from edge_resnet.network.training import options as training
        from edge_resnet.network.training.job import TrainJob
        from edge_resnet.pipelines import train as pipeline

        images = os.fspath(data)
        chosen = options or training.TrainOptions(augment=training.usual_augmentation(network.family, images))
        folder = None if output is None else Path(output)
        return pipeline.train(TrainJob(network, images, _text(validation), chosen, folder, resume, force), progress=progress)


def compile(  # noqa: A001 - the command's name
    artifact: Model | Artifact | PathLike, *, backend: str = "auto", variant: Variant = "native",
    tuning: EngineTuning | None = None, progress: Progress | None = None,
) -> Path | None:  # fmt: skip
    """Derive an artifact's engine for this machine. Returns its folder, or None where the backend runs the graph itself.

    ``tuning``: options of TensorRT's builder. An engine that fits already is kept.
    """
    with _extras():
        from edge_resnet.compiler.derive import compile_engine

        return compile_engine(_artifact(artifact), backend, variant, tuning=tuning, progress=progress)


def evaluate(
    model: Model | Artifact | PathLike, data: PathLike | ImageSet, *, backend: str | None = None,
    simulate_int8: bool = False, per_image: bool = False, details: PathLike | None = None, allow_random: bool = False,
    progress: Progress | None = None,
) -> Evaluation:  # fmt: skip
    """Top-1, top-5 and agreement with FP32 on labelled images, in percent, with 95 % intervals.

    ``data``: a path, a data set's name or an ImageSet. ``backend``: None is that of a Model, else ``auto``. ``simulate_int8``:
    TensorRT's INT8, computed on this machine. ``per_image``: the result says which images were right, for comparisons.
    ``details``: a folder for a page with the confusion matrix, accuracy per class and reliability. Raises ConfigError for random
    weights unless ``allow_random`` and for a Model of the FP32 reference; DataError for missing labels or another network's.
    """
    with _extras():
        from edge_resnet.measurement.accuracy import EvalOptions, refuse_random_weights
        from edge_resnet.measurement.details import evaluate_into
        from edge_resnet.pipelines.engines import prepare_engine

        artifact = _artifact(model)
        if not allow_random:
            refuse_random_weights(artifact)
        name, simulate = backend or "auto", simulate_int8
        if isinstance(model, Model):
            if model.variant == "reference":
                raise ConfigError(f"{model} is the FP32 reference", hint="load it as 'native', which gives FP32's accuracy too")
            name, simulate = backend or model.backend, simulate_int8 or model.variant == "simulated"
        images = data if isinstance(data, ImageSet) else open_images(data, labels=artifact.labels)
        prepare_engine(artifact, name, "simulated" if simulate else "native", progress=progress)
        options, folder = EvalOptions(name, simulate, per_image), None if details is None else Path(details)
        return evaluate_into(artifact, images, options, folder, progress=progress)


def benchmark(
    model: Model | Artifact | PathLike, *, scenario: Scenario = "single-stream", seconds: float = 10.0,
    batch: int | None = None, backend: str | None = None, power: bool = True, cold_start: bool = False,
    images: ImageSet | None = None, progress: Progress | None = None,
) -> BenchResult:  # fmt: skip
    """Latency and throughput by one of MLPerf's scenarios: ``single-stream``, ``multi-stream`` or ``offline``.

    A Model is measured as it is, without being opened again; it must be the ``native`` variant. ``batch``: of offline; None is
    the engine's largest. ``images``: None measures on random pixels. ``power``: read power and temperature sensors meanwhile.
    ``cold_start``: also start separate processes and time their first answer. Raises ConfigError for other arguments.
    """
    with _extras():
        from edge_resnet.measurement.bench.bench import bench
        from edge_resnet.measurement.bench.rules import BenchOptions
        from edge_resnet.pipelines.engines import prepare_engine

        artifact = _artifact(model)
        if isinstance(model, Model) and model.variant != "native":
            raise ConfigError(f"{model} is the {model.variant} variant", hint="only the latency of 'native' means anything")
        running = model if isinstance(model, Model) and backend is None else None
        name = running.backend if running is not None else backend or "auto"
        starts = 3 if cold_start else 0
        options = BenchOptions(scenario, name, seconds, batch=batch, power=power, starts=starts)
        if running is None:
            prepare_engine(artifact, name, progress=progress)
        network = None if running is None else running.network
        return bench(artifact, options, images=images, network=network, progress=progress)


def report(
    request: SweepRequest, output: PathLike, *, questions: Questions | None = None, resume: bool = False,
    force: bool = False, observer: SweepObserver | None = None, progress: Progress | None = None,
) -> Report:  # fmt: skip
    """Measure networks in several precisions on several backends, and write a page, charts and tables of it to ``output``.

    ``questions``: limits that the page answers. ``resume``: use the
    measurements that are in ``output`` already; ``force``: replace them. ``observer``: called after each measurement.
    """
    with _extras():
        from edge_resnet.measurement.report import check_drawable, write_report
        from edge_resnet.studies.sweep import sweep
        from edge_resnet.studies.sweep.cells import claim

        check_drawable()
        folder = Path(output)
        cells = claim(folder, resume=resume, force=force)
        found = sweep(request, folder, cells, progress=progress, observer=observer)
        write_report(found, folder, questions)
        return found


def stream(
    model: Model, sources: PathLike | Sequence[PathLike], *,
    sinks: Sequence[str | Sink | Callable[[Prediction], object]] = (), top: int = 5, frames: int | None = None,
    duration_s: float | None = None, rate: float | None = None, realtime: bool = False, keep_trying: bool = False,
    tell: Callable[[str], object] = lambda _: None,
) -> RunSummary:  # fmt: skip
    """Classify the frames of cameras, videos and folders until they end or Ctrl-C; a camera that fails is opened again.

    ``sources``: ``/dev/video0``, ``rtsp://…``, ``clip.mp4``, a folder, ``synthetic://``. ``sinks``: functions that take each
    Prediction, Sink objects, or strings: ``jsonl:FILE``, ``web:PORT``, ``web:HOST:PORT``, ``mqtt:BROKER``, ``video:FILE``,
    ``uncertain:FOLDER``, ``window``. ``frames``, ``duration_s``: when to stop. ``rate``: frames per second of each camera.
    ``realtime``: videos at their own pace. ``keep_trying``: wait for cameras that are not there. ``tell``: takes lines for a
    person, such as the page's address. Raises ConfigError for wrong arguments, SourceError where a source cannot be opened.
    """
    with _extras():
        from edge_resnet.streaming.loop import RunOptions
        from edge_resnet.streaming.session import Inputs, Session, run_session
        from edge_resnet.streaming.sinks.named import FunctionSink, outputs_of

        if not isinstance(model, Model):
            raise ConfigError("stream needs an open model", hint="with edge_resnet.load(FOLDER) as model: stream(model, …)")
        manifest, network = model.artifact.manifest, model.network
        uris = tuple(os.fspath(uri) for uri in ([sources] if isinstance(sources, str | os.PathLike) else sources))
        if not uris:
            raise ConfigError("there is no source to stream from", hint="a camera such as '/dev/video0', a video or a folder")
        named = [sink for sink in sinks if isinstance(sink, str)]
        own = tuple(FunctionSink(sink) if callable(sink) else sink for sink in sinks if not isinstance(sink, str))
        batch = max(manifest.batch.max, len(uris))
        options = RunOptions(manifest.preprocess, model.labels, top, frames, duration_s, batch, rate).with_rule(model.rule)
        session = Session(model.artifact.folder.name, manifest.precision, tell, own)
        inputs = Inputs(uris, realtime=realtime, keep_trying=keep_trying)
        return run_session(session, lambda: nullcontext(network), inputs, outputs_of(named), options)


def open_images(data: PathLike, *, labels: Sequence[str] | None = None, split: Literal["train", "test"] = "test") -> ImageSet:
    """Open images: a folder of class folders, a flat folder, a CSV, an ``.npz``, one image, or a data set by name.

    ``labels``: the network's, by which class folders are numbered. ``split``: the part of a data set by name. Raises DataError
    for anything else.
    """
    with _extras():
        return open_data(os.fspath(data), split=split, label_names=named_classes(labels))


@contextmanager
def _extras(*, onnx: str = "compile") -> Iterator[None]:
    """Turn a package that is not installed into an error that names its extra; ``onnx``: the extra that brings onnx here."""
    try:
        yield
    except ModuleNotFoundError as error:
        extra = {**EXTRAS, "onnx": onnx}.get((error.name or "").partition(".")[0])
        if extra is None or isinstance(error, MissingDependencyError):
            raise
        raise MissingDependencyError(f"{error.name} is not installed", hint=extra_command(extra)) from error


def _artifact(given: Model | Artifact | PathLike) -> Artifact:
    if isinstance(given, Model):
        return given.artifact
    return given if isinstance(given, Artifact) else open_artifact(Path(given))


def _text(path: PathLike | None) -> str | None:
    return None if path is None else os.fspath(path)
