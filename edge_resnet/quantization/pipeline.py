"""Images → ranges, corrections and, where asked for, a met accuracy budget. Knows the order of the steps, not how each is
done."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from edge_resnet.artifact.folder import Artifact
from edge_resnet.artifact.schema import BudgetReport, CalibrationTable
from edge_resnet.compiler.graph.corrections import EXACT_AMAX, SHIFTED, Corrections, apply
from edge_resnet.compiler.graph.placement import quantized_weights
from edge_resnet.compiler.graph.qdq import measured_tensors, quantize
from edge_resnet.core.files import sha256_of
from edge_resnet.core.records import Preprocess, Progress, QuantRecipe
from edge_resnet.images.imageset import ImageSet, batches
from edge_resnet.quantization.biases import correct_biases
from edge_resnet.quantization.budget import BudgetProblem, meet_budget
from edge_resnet.quantization.calibrate import CALIBRATION_BATCH, collect, table_from
from edge_resnet.quantization.coverage import CoverageReport, coverage_report, ranges_now, snapshot_counts
from edge_resnet.quantization.diagnose import check_answers, check_set, check_unlike, risk_warning, risky_layers
from edge_resnet.quantization.equalize import balance
from edge_resnet.quantization.histogram import AbsHistogram
from edge_resnet.quantization.imagecache import ImageCache
from edge_resnet.quantization.learn import learn
from edge_resnet.quantization.methods import SweepRow, best, held_out_count, sweep
from edge_resnet.quantization.simulate import simulate

__all__ = [
    "Int8",
    "Told",
    "Validation",
    "cache_images",
    "check_images_for_calibration",
    "make_int8",
    "report_artifact",
    "sweep_artifact",
]

_log = logging.getLogger(__name__)

#: Images per simulated run.
_BATCH = 8
#: Images that FP32 is asked about before it is believed.
_ASKED = 64

Histograms = Mapping[str, AbsHistogram]


@dataclass(frozen=True, eq=False)
class Validation:
    """What ``--max-drop`` is measured on: ``images``, a label (N,) for each, and how many points of top-1 may be lost."""

    images: ImageCache
    labels: npt.NDArray[np.int64]
    max_drop: float


@dataclass(frozen=True, eq=False)
class Int8:
    """What INT8 of a graph derives from, whether it holds its budget, and what is suspicious about it."""

    table: CalibrationTable
    corrections: Corrections | None
    budget: BudgetReport | None
    warnings: tuple[str, ...] = ()


def make_int8(
    model_path: Path,
    images: ImageCache,
    recipe: QuantRecipe,
    validation: Validation | None = None,
    *,
    progress: Progress | None = None,
) -> Int8:
    """Measure, correct and, where the budget asks for it, keep nodes of the graph in high precision.

    Warnings are of what plain ranges would do: they are measured before anything is corrected.

    Raises CalibrationError for images or a graph that cannot be calibrated, BudgetError where the budget is out of reach.
    """
    model = onnx.load(model_path)
    exact = Corrections(exact_input=recipe.exact_input)
    base = apply(model, exact)
    evened = balance(base, images, recipe, progress=progress) if recipe.correction == "learned" else Corrections()
    graph = apply(base, evened)
    histograms, recipe = _measure(graph, images, recipe, progress)
    table = _exact(table_from(dict(histograms), recipe, len(images), images.digest, sha256_of(model_path)))
    warnings = _suspicions(graph, histograms, table, validation, progress)
    found, amax = _correct(graph, table, images, progress)
    if amax and found is not None:  # what was learned changed every range, and the CPU's form reads some that were not learned
        counted = _count(apply(graph, found), images, progress)
        measured = table_from(dict(counted), recipe, len(images), images.digest, table.model_digest)
        table = _exact(replace(measured, amax={**measured.amax, **amax}))
    merged = _merge(evened, found, exact, frozenset(recipe.keep_high_precision))
    budget = None
    if validation is not None:
        whole = _Parts(model, table, evened, found, exact)
        budget = _meet(whole, validation, progress)
        if budget.kept:
            keep = (*recipe.keep_high_precision, *budget.kept)
            table = replace(table, recipe=replace(recipe, keep_high_precision=keep))
            merged = _merge(evened, found, exact, frozenset(keep))
    return Int8(table, merged, budget, tuple(warnings))


def cache_images(images: ImageSet, preprocess: Preprocess, folder: Path | None = None) -> ImageCache:
    """The set's images, preprocessed once, in a file under ``folder``; those that cannot be read are left out with a
    warning."""
    return ImageCache((batch.images for batch in batches(images, preprocess, CALIBRATION_BATCH)), folder)


def sweep_artifact(
    artifact: Artifact, sample: ImageSet, recipe: QuantRecipe, *, progress: Progress | None = None
) -> list[SweepRow]:
    """Every method on an artifact's FP32 graph: ranges from the first images of ``sample``, agreement on the rest.

    Raises CalibrationError below sixteen images.
    """
    with cache_images(sample, artifact.manifest.preprocess) as images:
        graph = apply(onnx.load(artifact.model_path), Corrections(exact_input=recipe.exact_input))
        return _sweep(graph, images, recipe, progress)


@dataclass(frozen=True, eq=False)
class Told:
    """What ``--calib-report`` tells of a set: the report, and what is suspicious about images and layers."""

    report: CoverageReport
    warnings: tuple[str, ...]


def report_artifact(artifact: Artifact, sample: ImageSet, recipe: QuantRecipe, *, progress: Progress | None = None) -> Told:
    """Coverage and convergence of an artifact's ranges on ``sample``, by the recipe's method (mse for ``auto``); nothing
    corrected."""
    recipe = replace(recipe, method="mse") if recipe.method == "auto" else recipe
    snapshots: dict[int, dict[str, float]] = {}
    with cache_images(sample, artifact.manifest.preprocess) as images:
        graph = apply(onnx.load(artifact.model_path), Corrections(exact_input=recipe.exact_input))
        due = list(snapshot_counts(len(images)))

        def note(count: int, histograms: Histograms) -> None:
            if due and count >= due[0]:
                snapshots[due.pop(0)] = ranges_now(histograms, recipe)

        batches = images.batches(CALIBRATION_BATCH)
        histograms, count = collect(graph, measured_tensors(graph), batches, len(images), watch=note, progress=progress)
        table = _exact(table_from(histograms, recipe, count, images.digest, ""))
        risks = risk_warning(risky_layers(graph, histograms, table))
        suspicious = (*check_images_for_calibration(graph, images, sample, artifact.manifest.preprocess, progress), *risks)
    return Told(coverage_report(histograms, table, snapshots), suspicious)


def check_images_for_calibration(
    graph: onnx.ModelProto, images: ImageCache, sample: ImageSet, preprocess: Preprocess, progress: Progress | None = None
) -> list[str]:
    """What is suspicious about the set itself, and about FP32's answers to up to 64 of its images.

    Labels count only where every image could be read.
    """
    total = min(_ASKED, len(images))
    if progress is not None:
        progress("check images", 0, total)
    logits = simulate(graph, images.batches(_BATCH, total))
    if progress is not None:
        progress("check images", total, total)
    labels = sample.labels if len(images) == len(sample) else None
    known = None if labels is None or max(labels) >= logits.shape[1] else np.array(labels[:total], np.int64)
    return [*check_set(sample, logits.shape[1], preprocess), *check_answers(logits, known)]


def _measure(
    graph: onnx.ModelProto, images: ImageCache, recipe: QuantRecipe, progress: Progress | None
) -> tuple[Histograms, QuantRecipe]:
    """Histograms of every tensor, and the recipe with the method that ``auto`` chose."""
    if recipe.method == "auto":
        recipe = best(_sweep(graph, images, recipe, progress)).recipe
        _log.info("calibration method: %s", recipe.method)
    return _count(graph, images, progress), recipe


def _suspicions(
    graph: onnx.ModelProto,
    histograms: Histograms,
    table: CalibrationTable,
    validation: Validation | None,
    progress: Progress | None,
) -> list[str]:
    """Risky layers, and validation images unlike the calibration ones."""
    found = risk_warning(risky_layers(graph, histograms, table))
    if validation is None:
        return found
    total = min(len(validation.images), table.images)
    batches = validation.images.batches(CALIBRATION_BATCH, total)
    other, _ = collect(graph, measured_tensors(graph), batches, total, progress=progress)
    return [*found, *check_unlike(histograms, other)]


def _count(graph: onnx.ModelProto, images: ImageCache, progress: Progress | None) -> Histograms:
    batches = images.batches(CALIBRATION_BATCH)
    return collect(graph, measured_tensors(graph), batches, len(images), progress=progress)[0]


def _sweep(graph: onnx.ModelProto, images: ImageCache, recipe: QuantRecipe, progress: Progress | None) -> list[SweepRow]:
    kept = len(images) - held_out_count(len(images))
    histograms, _ = collect(graph, measured_tensors(graph), images.batches(CALIBRATION_BATCH, kept), kept, progress=progress)
    for_judging = range(kept, len(images))

    def held_out() -> list[npt.NDArray[np.uint8]]:
        return [images.take(for_judging[start : start + _BATCH]) for start in range(0, len(for_judging), _BATCH)]

    return sweep(graph, histograms, recipe, held_out, simulate(graph, held_out()), progress)


def _correct(
    graph: onnx.ModelProto, table: CalibrationTable, images: ImageCache, progress: Progress | None
) -> tuple[Corrections | None, dict[str, float]]:
    """What the recipe's correction finds, and the ranges it learned; none where it leaves the table's."""
    recipe = table.recipe
    if recipe.correction == "bias":
        keep = frozenset(recipe.keep_high_precision)
        return correct_biases(graph, table.amax, images, keep, progress=progress), {}
    if recipe.correction == "learned":
        learned = learn(graph, table.amax, images, recipe, progress=progress)
        _log.info("learned: loss %.5f at first, %.5f at last", learned.first_loss, learned.last_loss)
        return learned.corrections, learned.amax
    return None, {}


def _merge(evened: Corrections, found: Corrections | None, exact: Corrections, keep: frozenset[str]) -> Corrections | None:
    """One record of all that is corrected; a node that is kept has its float weights, evened out with the rest."""
    learned = found or Corrections()
    integers = {name: value for name, value in learned.integers.items() if name not in keep}
    merged = Corrections(
        integers=integers,
        scales={name: learned.scales[name] for name in integers},
        floats={name: value for name, value in evened.floats.items() if name not in integers},
        biases={**evened.biases, **{name: value for name, value in learned.biases.items() if name not in keep}},
        exact_input=exact.exact_input,
    )
    return merged if merged.integers or merged.floats or merged.biases or merged.exact_input else None


@dataclass(frozen=True, eq=False)
class _Parts:
    """What INT8 with some nodes kept is put together from."""

    model: onnx.ModelProto
    table: CalibrationTable
    evened: Corrections
    found: Corrections | None
    exact: Corrections

    def graph(self, keep: frozenset[str]) -> onnx.ModelProto:
        """TensorRT's form with ``keep`` in high precision."""
        names = frozenset((*self.table.recipe.keep_high_precision, *keep))
        recipe = replace(self.table.recipe, keep_high_precision=tuple(sorted(names)))
        merged = _merge(self.evened, self.found, self.exact, names)
        return quantize(self.model, replace(self.table, recipe=recipe), "tensorrt", merged)


def _meet(parts: _Parts, validation: Validation, progress: Progress | None) -> BudgetReport:
    images = validation.images

    def logits(keep: frozenset[str], places: Sequence[int]) -> npt.NDArray[np.float32]:
        chosen = (images.take(places[start : start + _BATCH]) for start in range(0, len(places), _BATCH))
        return simulate(parts.graph(keep), chosen)

    already = frozenset(parts.table.recipe.keep_high_precision)
    reference = simulate(parts.model, images.batches(_BATCH))
    problem = BudgetProblem(tuple(quantized_weights(parts.model, already)), validation.labels, reference, logits)
    return meet_budget(problem, validation.max_drop, progress=progress)


def _exact(table: CalibrationTable) -> CalibrationTable:
    """An exact input has the range that makes a step one pixel value, whatever the images."""
    return replace(table, amax={**table.amax, SHIFTED: EXACT_AMAX}) if SHIFTED in table.amax else table
