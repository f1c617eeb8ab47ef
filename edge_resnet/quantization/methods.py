"""Calibration methods side by side, on images that no range was read from. Knows nothing of labels, folders and devices.

Every method reads the same histograms, so that a row costs one simulated run of TensorRT's INT8 and no second calibration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from edge_resnet.compiler.graph.qdq import quantize
from edge_resnet.core.errors import CalibrationError
from edge_resnet.core.records import Progress, QuantRecipe
from edge_resnet.core.statistics import wilson_interval
from edge_resnet.quantization.calibrate import table_from
from edge_resnet.quantization.histogram import AbsHistogram
from edge_resnet.quantization.simulate import Images, Logits, relative_error, simulate

__all__ = ["MIN_HELD_OUT", "PERCENTILES", "SweepRow", "best", "candidates", "held_out_count", "sweep"]

#: Tried beside the recipe's own.
PERCENTILES = (99.9, 99.99, 99.999)
#: Fewer images would not tell methods apart at all.
MIN_HELD_OUT = 8


@dataclass(frozen=True)
class SweepRow:
    """What one method gave: ``recipe`` is the whole recipe with that method and percentile.

    ``agreement``: images whose best class is FP32's, in percent, with its 95 % interval ``ci95``. ``error``: squared error of
    the logits over their power, sum((int8 - fp32)²) / sum(fp32²). ``images``: how many were held out.
    """

    recipe: QuantRecipe
    agreement: float
    ci95: tuple[float, float]
    error: float
    images: int


def held_out_count(total: int, share: float = 0.25) -> int:
    """How many of ``total`` images, the last ones, judge ranges that are read from the others: a ``share``, at least eight.

    Of a balanced sample both parts are balanced, since its classes take turns. Raises CalibrationError below sixteen images.
    """
    if total < 2 * MIN_HELD_OUT:
        raise CalibrationError(
            f"{total} images are too few to hold some out: {2 * MIN_HELD_OUT} are needed",
            hint="give more images, or name a method: --calib-method percentile needs none held out",
        )
    return min(max(MIN_HELD_OUT, round(total * share)), total - MIN_HELD_OUT)


def candidates(recipe: QuantRecipe) -> list[QuantRecipe]:
    """The recipe by every method, and by several percentiles with the recipe's own among them."""
    percentiles = sorted({*PERCENTILES, recipe.percentile})
    return [
        replace(recipe, method="max"),
        *(replace(recipe, method="percentile", percentile=percentile) for percentile in percentiles),
        replace(recipe, method="mse"),
        replace(recipe, method="entropy"),
    ]


def sweep(
    model: onnx.ModelProto,
    histograms: Mapping[str, AbsHistogram],
    recipe: QuantRecipe,
    held_out: Callable[[], Iterable[Images]],
    reference: Logits,
    progress: Progress | None = None,
) -> list[SweepRow]:
    """Simulate TensorRT's INT8 of ``model`` by every method on the images that ``held_out`` gives anew each time.

    ``histograms``: per measured tensor, of other images. ``reference``: what ``model`` itself says of those held out,
    (N, classes). The rows stand in the order of ``candidates``.
    """
    rows = []
    recipes = candidates(recipe)
    for done, candidate in enumerate(recipes):
        if progress is not None:
            progress("sweep", done, len(recipes))
        table = table_from(dict(histograms), candidate, 0, "", "")
        rows.append(_row(candidate, simulate(quantize(model, table, "tensorrt"), held_out()), reference))
    if progress is not None:
        progress("sweep", len(recipes), len(recipes))
    return rows


def best(rows: Sequence[SweepRow]) -> SweepRow:
    """The row with the smallest logit error among those whose agreement lies in the interval of the highest agreement.

    Agreement is what counts, but on some hundred images it moves by a few that happen to lie on a boundary. The error of the
    logits is measured on every class of every image and tells methods apart long before; it decides where agreement cannot.
    """
    highest = max(rows, key=lambda row: row.agreement)
    least = min(highest.agreement, highest.ci95[0])  # where nothing agrees, the interval ends a rounding above zero
    return min((row for row in rows if row.agreement >= least), key=lambda row: row.error)


def _row(recipe: QuantRecipe, logits: Logits, reference: Logits) -> SweepRow:
    hits = int((logits.argmax(axis=1) == reference.argmax(axis=1)).sum())
    low, high = wilson_interval(hits, len(reference))
    agreement, interval = 100 * hits / len(reference), (100 * low, 100 * high)
    return SweepRow(recipe, agreement, interval, relative_error(logits, reference), len(reference))
