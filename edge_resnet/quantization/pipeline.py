"""Pictures → ranges, corrections and, where asked for, a met accuracy budget. Knows the order of the steps, not how each is
done."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from edge_resnet.artifact import Artifact, sha256_of
from edge_resnet.imageset import ImageSet, batches
from edge_resnet.quantization.balance import balance
from edge_resnet.quantization.biases import correct_biases
from edge_resnet.quantization.budget import BudgetProblem, meet_budget
from edge_resnet.quantization.calibrate import CALIBRATION_BATCH, collect, table_from
from edge_resnet.quantization.corrections import Corrections, apply
from edge_resnet.quantization.histogram import AbsHistogram
from edge_resnet.quantization.inputs import EXACT_AMAX, SHIFTED
from edge_resnet.quantization.learn import learn
from edge_resnet.quantization.placement import quantized_weights
from edge_resnet.quantization.qdq import measured_tensors, quantize
from edge_resnet.quantization.simulate import simulate
from edge_resnet.quantization.spool import Spool
from edge_resnet.quantization.sweep import SweepRow, best, held_out_count, sweep
from edge_resnet.spec import BudgetReport, CalibrationTable, Preprocess, Progress, QuantRecipe

__all__ = ["Int8", "Validation", "make_int8", "spool_pictures", "sweep_artifact"]

_log = logging.getLogger(__name__)

#: Pictures per simulated run.
_BATCH = 8

Histograms = Mapping[str, AbsHistogram]


@dataclass(frozen=True, eq=False)
class Validation:
    """What ``--max-drop`` is measured on: ``pictures``, a label (N,) for each, and how many points of top-1 may be lost."""

    pictures: Spool
    labels: npt.NDArray[np.int64]
    max_drop: float


@dataclass(frozen=True, eq=False)
class Int8:
    """What INT8 of a graph derives from, and ``histograms``: the counts of the corrected graph's tensors."""

    table: CalibrationTable
    corrections: Corrections | None
    budget: BudgetReport | None
    histograms: Histograms
    warnings: tuple[str, ...] = ()


def make_int8(
    model_path: Path,
    pictures: Spool,
    recipe: QuantRecipe,
    validation: Validation | None = None,
    *,
    progress: Progress | None = None,
) -> Int8:
    """Measure, correct and, where the budget asks for it, keep nodes of the graph in high precision.

    Raises CalibrationError for pictures or a graph that cannot be calibrated, BudgetError where the budget is out of reach.
    """
    model = onnx.load(model_path)
    exact = Corrections(exact_input=recipe.exact_input)
    base = apply(model, exact)
    evened = balance(base, pictures, recipe, progress=progress) if recipe.correction == "learned" else Corrections()
    graph = apply(base, evened)
    histograms, recipe = _measure(graph, pictures, recipe, progress)
    table = _exact(table_from(dict(histograms), recipe, len(pictures), pictures.digest, sha256_of(model_path)))
    found, amax = _correct(graph, table, pictures, progress)
    if found is not None:  # corrected tensors have other ranges, and the CPU's form reads some that were not learned
        histograms = _count(apply(graph, found), pictures, progress)
        measured = table_from(dict(histograms), recipe, len(pictures), pictures.digest, table.model_digest)
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
    return Int8(table, merged, budget, histograms)


def spool_pictures(images: ImageSet, preprocess: Preprocess, folder: Path | None = None) -> Spool:
    """The set's pictures, preprocessed once, in a file under ``folder``; those that cannot be read are left out with a
    warning."""
    return Spool((batch.images for batch in batches(images, preprocess, CALIBRATION_BATCH)), folder)


def sweep_artifact(
    artifact: Artifact, sample: ImageSet, recipe: QuantRecipe, *, progress: Progress | None = None
) -> list[SweepRow]:
    """Every method on an artifact's FP32 graph: ranges from the first pictures of ``sample``, agreement on the rest.

    Raises CalibrationError below sixteen pictures.
    """
    with spool_pictures(sample, artifact.manifest.preprocess) as pictures:
        graph = apply(onnx.load(artifact.model_path), Corrections(exact_input=recipe.exact_input))
        return _sweep(graph, pictures, recipe, progress)[0]


def _measure(
    graph: onnx.ModelProto, pictures: Spool, recipe: QuantRecipe, progress: Progress | None
) -> tuple[Histograms, QuantRecipe]:
    """Histograms of every tensor, and the recipe with the method that ``auto`` chose."""
    if recipe.method == "auto":
        rows, _ = _sweep(graph, pictures, recipe, progress)
        recipe = best(rows).recipe
        _log.info("calibration method: %s", recipe.method)
    return _count(graph, pictures, progress), recipe


def _count(graph: onnx.ModelProto, pictures: Spool, progress: Progress | None) -> Histograms:
    batches = pictures.batches(CALIBRATION_BATCH)
    return collect(graph, measured_tensors(graph), batches, len(pictures), progress=progress)[0]


def _sweep(
    graph: onnx.ModelProto, pictures: Spool, recipe: QuantRecipe, progress: Progress | None
) -> tuple[list[SweepRow], Histograms]:
    kept = len(pictures) - held_out_count(len(pictures))
    histograms, _ = collect(graph, measured_tensors(graph), pictures.batches(CALIBRATION_BATCH, kept), kept, progress=progress)
    for_judging = range(kept, len(pictures))

    def held_out() -> list[npt.NDArray[np.uint8]]:
        return [pictures.take(for_judging[start : start + _BATCH]) for start in range(0, len(for_judging), _BATCH)]

    return sweep(graph, histograms, recipe, held_out, simulate(graph, held_out()), progress), histograms


def _correct(
    graph: onnx.ModelProto, table: CalibrationTable, pictures: Spool, progress: Progress | None
) -> tuple[Corrections | None, dict[str, float]]:
    """What the recipe's correction finds, and the ranges it learned."""
    recipe = table.recipe
    if recipe.correction == "bias":
        keep = frozenset(recipe.keep_high_precision)
        return correct_biases(graph, table.amax, pictures, keep, progress=progress), dict(table.amax)
    if recipe.correction == "learned":
        learned = learn(graph, table.amax, pictures, recipe, progress=progress)
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
    pictures = validation.pictures

    def logits(keep: frozenset[str], places: Sequence[int]) -> npt.NDArray[np.float32]:
        chosen = (pictures.take(places[start : start + _BATCH]) for start in range(0, len(places), _BATCH))
        return simulate(parts.graph(keep), chosen)

    already = frozenset(parts.table.recipe.keep_high_precision)
    reference = simulate(parts.model, pictures.batches(_BATCH))
    problem = BudgetProblem(tuple(quantized_weights(parts.model, already)), validation.labels, reference, logits)
    return meet_budget(problem, validation.max_drop, progress=progress)


def _exact(table: CalibrationTable) -> CalibrationTable:
    """An exact input has the range that makes a step one pixel value, whatever the pictures."""
    return replace(table, amax={**table.amax, SHIFTED: EXACT_AMAX}) if SHIFTED in table.amax else table
