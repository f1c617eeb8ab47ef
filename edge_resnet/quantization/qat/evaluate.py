"""Top-1 of FP32 and of INT8 before and after training on the same images, and whether a budget is met. Trains nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from edge_resnet.artifact.folder import MODEL
from edge_resnet.artifact.schema import BudgetReport
from edge_resnet.core.errors import BudgetError
from edge_resnet.core.records import Preprocess, Progress
from edge_resnet.images.imagecache import ImageCache
from edge_resnet.images.imageset import ImageSet, require_labels
from edge_resnet.quantization.budget import BudgetProblem, meet_budget
from edge_resnet.quantization.pipeline import Int8
from edge_resnet.quantization.simulate import simulate

__all__ = ["DropCheck", "QatAccuracy", "check_drop", "measure_accuracy"]

_BATCH = 8


@dataclass(frozen=True, eq=False)
class QatAccuracy:
    """Labels (N,) and logits (N, classes) of the same images: of FP32, and of TensorRT's INT8 simulated before and after."""

    labels: npt.NDArray[np.int64]
    fp32: npt.NDArray[np.float32]
    before: npt.NDArray[np.float32]
    after: npt.NDArray[np.float32]

    @property
    def fp32_top1(self) -> float:
        """Top-1 of FP32 in percent."""
        return self._top1(self.fp32)

    @property
    def before_top1(self) -> float:
        """Top-1 of INT8 before the training, in percent."""
        return self._top1(self.before)

    @property
    def int8_top1(self) -> float:
        """Top-1 of INT8 after the training, in percent."""
        return self._top1(self.after)

    def _top1(self, logits: npt.NDArray[np.float32]) -> float:
        return 100 * float((logits.argmax(1) == self.labels).mean())


@dataclass(frozen=True)
class DropCheck:
    """``report`` if INT8 meets the budget, ``missed`` if it does not; neither if there is no budget."""

    report: BudgetReport | None = None
    missed: BudgetError | None = None


def measure_accuracy(
    folder: Path, images: ImageSet, preprocess: Preprocess, before: Int8, after: Int8, *, progress: Progress | None = None
) -> QatAccuracy:
    """Run the graph in ``folder`` and both of its INT8 forms on labelled images; those that cannot be read are skipped."""
    model = onnx.load(folder / MODEL)
    graphs = [model, before.simulated(model), after.simulated(model)]
    logits = []
    with ImageCache.of_set(images, preprocess, folder) as pixels:
        labels = np.array(require_labels(images), np.int64)[list(pixels.indices)]
        for done, graph in enumerate(graphs):
            if progress is not None:
                progress("evaluate", done, len(graphs))
            logits.append(simulate(graph, pixels.batches(_BATCH)))
    if progress is not None:
        progress("evaluate", len(graphs), len(graphs))
    return QatAccuracy(labels, *logits)


def check_drop(accuracy: QatAccuracy, max_drop: float | None) -> DropCheck:
    """Check whether INT8 loses at most ``max_drop`` points of top-1 with every layer as trained; None is no budget."""
    if max_drop is None:
        return DropCheck()
    problem = BudgetProblem((), accuracy.labels, accuracy.fp32, lambda _, positions: accuracy.after[list(positions)])
    try:
        return DropCheck(report=meet_budget(problem, max_drop, max_share=0.0))
    except BudgetError:
        drop = accuracy.fp32_top1 - accuracy.int8_top1
        message = f"INT8 loses {drop:.2f} points of top-1 after training, the budget is {max_drop:g}"
        hint = "continue the training from the artifact that was written: more --epochs, more images, another --rate"
        return DropCheck(missed=BudgetError(message, hint=hint))
