"""Comparison of calibration methods on held-out images. Does not know about labels, folders and devices.

Every method reads the same histograms, so that each costs one simulated run of TensorRT's INT8 and no second calibration.
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

#: Percentiles that are tried beside the recipe's own.
PERCENTILES = (99.9, 99.99, 99.999)
#: With fewer images no difference between methods would be significant.
MIN_HELD_OUT = 8


@dataclass(frozen=True)
class SweepRow:
    """Result of one method: ``recipe`` is the whole recipe with that method and percentile.

    ``agreement``: images whose best class is FP32's, in percent, with its 95 % confidence interval ``ci95``. ``error``: squared
    error of the logits over their power, sum((int8 - fp32)²) / sum(fp32²). ``images``: how many were held out.
    """

    recipe: QuantRecipe
    agreement: float
    ci95: tuple[float, float]
    error: float
    images: int


def held_out_count(total: int, share: float = 0.25) -> int:
    """How many of ``total`` images, the last ones, are held out to compare methods: a ``share``, but at least eight.

    Both parts of a balanced sample are balanced, since its classes take turns. Raises CalibrationError for fewer than sixteen
    images.
    """
    if total < 2 * MIN_HELD_OUT:
        raise CalibrationError(
            f"{total} images are too few to hold some out: {2 * MIN_HELD_OUT} are needed",
            hint="use more images, or choose a method: percentile holds out none",
        )
    return min(max(MIN_HELD_OUT, round(total * share)), total - MIN_HELD_OUT)


def candidates(recipe: QuantRecipe) -> list[QuantRecipe]:
    """The recipe with every method, and with several percentiles including its own."""
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
    """Simulate TensorRT's INT8 of ``model`` with every method on the images that each call of ``held_out`` returns.

    ``histograms``: per measured tensor, of other images. ``reference``: FP32's logits of the held-out images, (N, classes).
    The rows are in the order of ``candidates``.
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

    Agreement is what counts, but on a few hundred images it depends on the few that happen to lie on a boundary. The error of
    the logits covers every class of every image and separates methods much earlier, so it decides among the others.
    """
    highest = max(rows, key=lambda row: row.agreement)
    lowest = min(highest.agreement, highest.ci95[0])  # if nothing agrees, rounding leaves the interval just above zero
    return min((row for row in rows if row.agreement >= lowest), key=lambda row: row.error)


def _row(recipe: QuantRecipe, logits: Logits, reference: Logits) -> SweepRow:
    hits = int((logits.argmax(axis=1) == reference.argmax(axis=1)).sum())
    low, high = wilson_interval(hits, len(reference))
    agreement, interval = 100 * hits / len(reference), (100 * low, 100 * high)
    return SweepRow(recipe, agreement, interval, relative_error(logits, reference), len(reference))
