"""Top-1 of FP32 and of INT8 before and after training, on the same images, and whether a budget holds. Trains nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from edge_resnet.artifact.folder import MODEL
from edge_resnet.artifact.schema import BudgetReport, CalibrationTable
from edge_resnet.compiler.graph.corrections import Corrections
from edge_resnet.compiler.graph.qdq import quantize
from edge_resnet.core.errors import BudgetError
from edge_resnet.core.records import Preprocess, Progress
from edge_resnet.images.imageset import ImageSet, batches, require_labels
from edge_resnet.quantization.budget import BudgetProblem, meet_budget
from edge_resnet.quantization.imagecache import ImageCache
from edge_resnet.quantization.simulate import simulate

__all__ = ["Int8Parts", "QatAccuracy", "measure_accuracy", "refuse_beyond"]

#: What an INT8 graph derives from, beside the FP32 graph.
Int8Parts: TypeAlias = tuple[CalibrationTable, Corrections | None]
_BATCH = 8


@dataclass(frozen=True, eq=False)
class QatAccuracy:
    """Logits (N, classes) and labels (N,) of the images; the properties are percent of them, TensorRT's INT8 simulated."""

    labels: npt.NDArray[np.int64]
    fp32: npt.NDArray[np.float32]
    before: npt.NDArray[np.float32]
    after: npt.NDArray[np.float32]

    @property
    def fp32_top1(self) -> float:
        """FP32's."""
        return self._top1(self.fp32)

    @property
    def before_top1(self) -> float:
        """INT8's where training began."""
        return self._top1(self.before)

    @property
    def int8_top1(self) -> float:
        """INT8's as trained."""
        return self._top1(self.after)

    def _top1(self, logits: npt.NDArray[np.float32]) -> float:
        return 100 * float((logits.argmax(1) == self.labels).mean())


def measure_accuracy(
    folder: Path,
    images: ImageSet,
    preprocess: Preprocess,
    parts: tuple[Int8Parts, Int8Parts],
    *,
    progress: Progress | None = None,
) -> QatAccuracy:
    """Ask the graph in ``folder`` and its INT8 of ``parts``, before and after; images that cannot be read are left out."""
    labels: list[int] = []

    def noted() -> Iterator[npt.NDArray[np.uint8]]:
        for batch in batches(images, preprocess, _BATCH):
            labels.extend(require_labels(images)[index] for index in batch.indices)
            yield batch.images

    model = onnx.load(folder / MODEL)
    graphs = [model, *(quantize(model, table, "tensorrt", corrections) for table, corrections in parts)]
    answers = []
    with ImageCache(noted(), folder) as pixels:
        for done, graph in enumerate(graphs):
            if progress is not None:
                progress("judge", done, len(graphs))
            answers.append(simulate(graph, pixels.batches(_BATCH)))
    if progress is not None:
        progress("judge", len(graphs), len(graphs))
    return QatAccuracy(np.array(labels, np.int64), *answers)


def refuse_beyond(seen: QatAccuracy, max_drop: float | None) -> tuple[BudgetReport | None, BudgetError | None]:
    """The report where the budget holds, with every layer as it is; else the error. Neither where there is no budget."""
    if max_drop is None:
        return None, None
    problem = BudgetProblem((), seen.labels, seen.fp32, lambda _, places: seen.after[list(places)])
    try:
        return meet_budget(problem, max_drop, most=0.0), None
    except BudgetError:
        drop = seen.fp32_top1 - seen.int8_top1
        message = f"INT8 loses {drop:.2f} points of top-1 after training, the budget is {max_drop:g}"
        return None, BudgetError(message, hint="train on from what was written: more --epochs, more images, another --rate")
