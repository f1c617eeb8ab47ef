"""Images → ranges, corrections and, if asked for, a met accuracy budget. Knows the order of the steps, not how each is done."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch

from edge_resnet.artifact.folder import Artifact
from edge_resnet.artifact.schema import BudgetReport, CalibrationTable
from edge_resnet.compiler.graph.corrections import EXACT_AMAX, SHIFTED, Corrections, apply, read_graph
from edge_resnet.compiler.graph.placement import quantized_weights
from edge_resnet.compiler.graph.qdq import measured_tensors, quantize
from edge_resnet.core.files import sha256_of
from edge_resnet.core.records import Progress, QuantRecipe
from edge_resnet.images.calibration import CalibrationImages
from edge_resnet.images.checks import sampled_stats
from edge_resnet.images.imagecache import CachedImages, ImageCache
from edge_resnet.measurement.accuracy import chance_warning
from edge_resnet.quantization.blame import Disagreement, agreement_of, blame_layers, unheld_warning, wanted_agreement
from edge_resnet.quantization.budget import BudgetProblem, meet_budget
from edge_resnet.quantization.calibrate import CALIBRATION_BATCH, Counted, collect, table_from
from edge_resnet.quantization.correction import HeldOut, correct
from edge_resnet.quantization.coverage import CoverageReport, coverage_report, ranges_now, snapshot_counts
from edge_resnet.quantization.diagnose import (
    check_answers,
    check_normalisation,
    check_set,
    check_unlike,
    risk_warning,
    risky_layers,
)
from edge_resnet.quantization.equalize import balance, even_out
from edge_resnet.quantization.histogram import AbsHistogram
from edge_resnet.quantization.methods import SweepRow, best, held_out_count, sweep
from edge_resnet.quantization.simulate import simulate
from edge_resnet.quantization.stem import cheap_stem_readers

__all__ = [
    "CalibrationReport",
    "Int8",
    "Validation",
    "check_images_for_calibration",
    "make_int8",
    "report_artifact",
    "sweep_artifact",
]

_log = logging.getLogger(__name__)

#: Images per simulated run.
_BATCH = 8
#: Images that the ranges of tensors which only the CPU's form quantizes are measured on again after learning.
_OTHERS = 64
#: Images whose FP32 answers are checked before calibration.
_CHECKED = 64

Histograms = Mapping[str, AbsHistogram]


@dataclass(frozen=True, eq=False)
class Validation:
    """What ``--max-drop`` is measured on: ``images``, a label (N,) for each, and how many points of top-1 may be lost."""

    images: CachedImages
    labels: npt.NDArray[np.int64]
    max_drop: float


@dataclass(frozen=True, eq=False)
class Int8:
    """INT8 of an FP32 graph: what its forms derive from, the budget that it meets if there is one, and warnings."""

    table: CalibrationTable
    corrections: Corrections | None
    budget: BudgetReport | None = None
    warnings: tuple[str, ...] = ()

    def simulated(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """TensorRT's form of the FP32 graph ``model``, which ONNX Runtime can run."""
        return quantize(model, self.table, "tensorrt", self.corrections)


@dataclass(frozen=True, eq=False)
class CalibrationReport:
    """What ``--calib-report`` prints of a set: how it covers the values, and warnings about its images and the layers."""

    coverage: CoverageReport
    warnings: tuple[str, ...]


def make_int8(
    model_path: Path,
    images: ImageCache,
    recipe: QuantRecipe,
    validation: Validation | None = None,
    *,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> Int8:
    """Measure ranges, correct, and keep nodes of the graph in high precision if the budget requires it.

    ``device``: where torch learns, the processor by default. Warnings are about plain ranges, measured before anything is
    corrected, and about answers to held-out images. Raises CalibrationError for images or a graph that cannot be calibrated,
    BudgetError if the budget cannot be met.
    """
    model = onnx.load(model_path)
    recipe = _with_stem_readers(recipe, model)
    exact = Corrections(exact_input=recipe.exact_input)
    equalized = _equalized(apply(model, exact), images, recipe, progress)
    graph = apply(model, replace(equalized, exact_input=recipe.exact_input))
    counted, recipe = _measure(graph, images, recipe, progress)
    table = _exact(table_from(counted.histograms, recipe, len(images), images.digest, sha256_of(model_path)))
    warnings = _warnings(graph, counted.histograms, table, validation, progress)
    corrected = correct(graph, table, images, counted.logits, device=device, progress=progress)
    if corrected.evened.floats:
        equalized = _overlaid(equalized, corrected.evened)
        graph = apply(model, replace(equalized, exact_input=recipe.exact_input))
        table = _with_ranges(table, graph, corrected.amax, images, progress)
    table = replace(table, amax={**table.amax, **corrected.amax})
    parts = _Parts(model, table, equalized, corrected.corrections, exact)
    keep, budget = recipe.keep_high_precision, None
    if validation is not None:
        budget, doubts = _meet(parts, validation, progress)
        warnings += doubts
        if budget.kept:
            keep = (*keep, *budget.kept)
            table = replace(table, recipe=replace(recipe, keep_high_precision=keep))
    elif corrected.held_out is not None:
        warnings += _judge(parts, corrected.held_out, progress)
    return Int8(table, parts.merged(frozenset(keep)), budget, tuple(warnings))


def sweep_artifact(
    artifact: Artifact, images: CalibrationImages, recipe: QuantRecipe, *, progress: Progress | None = None
) -> list[SweepRow]:
    """Every method on an artifact's FP32 graph: ranges from the first images, agreement with FP32 on the rest.

    Raises CalibrationError for fewer than sixteen images.
    """
    graph = apply(read_graph(artifact), Corrections(exact_input=recipe.exact_input))
    return _sweep(graph, images.pixels, recipe, progress)


def report_artifact(
    artifact: Artifact, images: CalibrationImages, recipe: QuantRecipe, *, progress: Progress | None = None
) -> CalibrationReport:
    """Coverage and convergence of an artifact's ranges by the recipe's method (mse for ``auto``); nothing is corrected."""
    recipe = replace(recipe, method="mse") if recipe.method == "auto" else recipe
    graph = apply(read_graph(artifact), Corrections(exact_input=recipe.exact_input))
    snapshots: dict[int, dict[str, float]] = {}
    due = list(snapshot_counts(len(images)))

    def note(count: int, histograms: Histograms) -> None:
        if due and count >= due[0]:
            snapshots[due.pop(0)] = ranges_now(histograms, recipe)

    batches = images.pixels.batches(CALIBRATION_BATCH)
    counted = collect(graph, measured_tensors(graph), batches, len(images), on_batch=note, progress=progress)
    table = _exact(table_from(counted.histograms, recipe, counted.images, images.digest, ""))
    risks = risk_warning(risky_layers(graph, counted.histograms, table))
    warnings = (*check_images_for_calibration(graph, images, progress), *risks)
    return CalibrationReport(coverage_report(counted.histograms, table, snapshots), warnings)


def check_images_for_calibration(
    graph: onnx.ModelProto, images: CalibrationImages, progress: Progress | None = None
) -> list[str]:
    """Warnings about the set itself, and about FP32's answers to up to 64 of its images."""
    total = min(_CHECKED, len(images))
    if progress is not None:
        progress("check images", 0, total)
    logits = simulate(graph, images.pixels.batches(_BATCH, total))
    if progress is not None:
        progress("check images", total, total)
    labels, classes, stats = images.images.labels, logits.shape[1], list(sampled_stats(images))
    known = None if labels is None or max(labels) >= classes else np.array(labels[:total], np.int64)
    return [
        *check_set(images.images, stats, classes),
        *check_normalisation(stats, images.preprocess),
        *check_answers(logits, known),
    ]


def _with_stem_readers(recipe: QuantRecipe, model: onnx.ModelProto) -> QuantRecipe:
    """The recipe with the names of the layers that its ``stem_share`` keeps in high precision."""
    readers = cheap_stem_readers(model, recipe.stem_share)
    if readers:
        _log.info("in high precision, because rounding the first convolution's output costs most: %s", ", ".join(readers))
    return replace(recipe, keep_high_precision=tuple(dict.fromkeys((*recipe.keep_high_precision, *readers))))


def _equalized(graph: onnx.ModelProto, images: CachedImages, recipe: QuantRecipe, progress: Progress | None) -> Corrections:
    """What the recipe's correction starts from: channels that learning moves on, or the best of a few degrees for plain INT8."""
    if recipe.correction == "learned":
        return even_out(graph, images, progress=progress)
    return balance(graph, images, recipe, progress=progress) if recipe.correction == "bias" else Corrections()


def _overlaid(below: Corrections, above: Corrections) -> Corrections:
    """Weights and biases of both; ``above`` was made of the graph with ``below``."""
    return Corrections(floats={**below.floats, **above.floats}, biases={**below.biases, **above.biases})


def _with_ranges(
    table: CalibrationTable,
    graph: onnx.ModelProto,
    learned: Mapping[str, float],
    images: CachedImages,
    progress: Progress | None,
) -> CalibrationTable:
    """The table with the ranges of tensors that were not ``learned``, in the graph with the learned channels."""
    others = [tensor for tensor in measured_tensors(graph) if tensor not in learned]
    if not others:
        return table
    total = min(_OTHERS, len(images))
    counted = collect(graph, others, images.batches(CALIBRATION_BATCH, total), total, progress=progress)
    found = table_from(counted.histograms, table.recipe, total, "", "")
    return replace(table, amax={**table.amax, **found.amax})


def _measure(
    graph: onnx.ModelProto, images: CachedImages, recipe: QuantRecipe, progress: Progress | None
) -> tuple[Counted, QuantRecipe]:
    """Histograms of every tensor with the graph's answers, and the recipe with the method that ``auto`` chose."""
    if recipe.method == "auto":
        recipe = best(_sweep(graph, images, recipe, progress)).recipe
        _log.info("calibration method: %s", recipe.method)
    return _count(graph, images, progress), recipe


def _warnings(
    graph: onnx.ModelProto,
    histograms: Histograms,
    table: CalibrationTable,
    validation: Validation | None,
    progress: Progress | None,
) -> list[str]:
    """Warnings about risky layers, and about validation images unlike the calibration images."""
    found = risk_warning(risky_layers(graph, histograms, table))
    if validation is None:
        return found
    total = min(len(validation.images), table.images)
    batches = validation.images.batches(CALIBRATION_BATCH, total)
    other = collect(graph, measured_tensors(graph), batches, total, progress=progress)
    return [*found, *check_unlike(histograms, other.histograms)]


def _count(graph: onnx.ModelProto, images: CachedImages, progress: Progress | None) -> Counted:
    batches = images.batches(CALIBRATION_BATCH)
    return collect(graph, measured_tensors(graph), batches, len(images), progress=progress)


def _sweep(graph: onnx.ModelProto, images: CachedImages, recipe: QuantRecipe, progress: Progress | None) -> list[SweepRow]:
    measured = len(images) - held_out_count(len(images))
    batches = images.batches(CALIBRATION_BATCH, measured)
    counted = collect(graph, measured_tensors(graph), batches, measured, progress=progress)
    rest = range(measured, len(images))

    def held_out() -> list[npt.NDArray[np.uint8]]:
        return [images.take(rest[start : start + _BATCH]) for start in range(0, len(rest), _BATCH)]

    return sweep(graph, counted.histograms, recipe, held_out, simulate(graph, held_out()), progress)


@dataclass(frozen=True, eq=False)
class _Parts:
    """What INT8 is assembled from, whichever nodes are kept in high precision."""

    model: onnx.ModelProto
    table: CalibrationTable
    equalized: Corrections
    found: Corrections | None
    exact: Corrections

    def merged(self, keep: frozenset[str]) -> Corrections | None:
        """All corrections in one record. A node in ``keep`` has its float weights, equalized with those of the others."""
        found = self.found or Corrections()
        integers = {name: value for name, value in found.integers.items() if name not in keep}
        merged = Corrections(
            integers=integers,
            scales={name: found.scales[name] for name in integers},
            floats={name: value for name, value in self.equalized.floats.items() if name not in integers},
            biases={**self.equalized.biases, **{name: value for name, value in found.biases.items() if name not in keep}},
            exact_input=self.exact.exact_input,
        )
        return merged if merged.integers or merged.floats or merged.biases or merged.exact_input else None

    def graph(self, keep: frozenset[str]) -> onnx.ModelProto:
        """TensorRT's form with ``keep`` in high precision beside the recipe's own nodes."""
        names = frozenset((*self.table.recipe.keep_high_precision, *keep))
        recipe = replace(self.table.recipe, keep_high_precision=tuple(sorted(names)))
        return quantize(self.model, replace(self.table, recipe=recipe), "tensorrt", self.merged(names))


def _meet(parts: _Parts, validation: Validation, progress: Progress | None) -> tuple[BudgetReport, list[str]]:
    """The budget, and a warning if FP32 itself is not above chance: any INT8 would meet a budget on such images."""
    images, labels = validation.images, validation.labels

    def logits(keep: frozenset[str], positions: Sequence[int]) -> npt.NDArray[np.float32]:
        chosen = (images.take(positions[start : start + _BATCH]) for start in range(0, len(positions), _BATCH))
        return simulate(parts.graph(keep), chosen)

    already = frozenset(parts.table.recipe.keep_high_precision)
    reference = simulate(parts.model, images.batches(_BATCH))
    problem = BudgetProblem(tuple(quantized_weights(parts.model, already)), labels, reference, logits)
    report = meet_budget(problem, validation.max_drop, progress=progress)
    doubt = chance_warning(int((reference.argmax(axis=1) == labels).sum()), labels.tolist(), reference.shape[1])
    return report, [] if doubt is None else [f"FP32's {doubt}"]


def _judge(parts: _Parts, judges: HeldOut, progress: Progress | None) -> list[str]:
    """A warning if INT8 gives FP32's class too rarely on images that it was not made with: which layers, and what helps."""

    def logits(keep: frozenset[str], positions: Sequence[int]) -> npt.NDArray[np.float32]:
        chosen = (judges.images.take(positions[start : start + _BATCH]) for start in range(0, len(positions), _BATCH))
        return simulate(parts.graph(keep), chosen)

    found = agreement_of(judges.logits, logits(frozenset(), range(len(judges.logits))))
    wanted = wanted_agreement(judges.logits.shape[1])
    _log.info("%d of %d held-out images get FP32's class", found.same, found.count)
    if not found.falls_short(wanted):
        return []
    already = frozenset(parts.table.recipe.keep_high_precision)
    problem = Disagreement(tuple(quantized_weights(parts.model, already)), judges.logits, logits)
    return unheld_warning(found, wanted, blame_layers(problem, wanted, progress=progress))


def _exact(table: CalibrationTable) -> CalibrationTable:
    """An exact input has the range at which one step is one pixel value, whatever the images."""
    return replace(table, amax={**table.amax, SHIFTED: EXACT_AMAX}) if SHIFTED in table.amax else table
