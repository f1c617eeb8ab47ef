"""What engines compute on a GPU, compared with ONNX Runtime on the CPU: the FP32 graph, and the simulation of TensorRT's INT8."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edge_resnet.artifact.folder import Artifact
from edge_resnet.compiler.derive import compile_engine
from edge_resnet.core.records import Precision
from edge_resnet.deployment.selftest.compare import LIMITS, Limit, compare, off, spread
from edge_resnet.images.imageset import ImageSet
from edge_resnet.measurement.accuracy import evaluate
from edge_resnet.runtime.backend import Variant, open_backend

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1800), pytest.mark.filterwarnings("default::DeprecationWarning")]

IMAGES = 128


@pytest.mark.parametrize("precision", LIMITS)
def test_logits_are_those_of_onnx_runtime(
    opened: Callable[..., Any],
    artifact: Callable[[str, Precision], Artifact],
    pixels: Callable[[str, int], Any],
    tell: Callable[[str], None],
    network: str,
    precision: Precision,
) -> None:
    """On real images, argmax agrees, and no logit differs by more than the precision explains."""
    made, images = artifact(network, precision), pixels(network, IMAGES)
    found, wanted, limit = opened(network, precision).infer(images), on_processor(made, images, "reference"), LIMITS[precision]
    if precision == "int8":
        reference, wanted = wanted, on_processor(made, images, "simulated")
        limit = Limit(limit.agreement, off(wanted, reference))
    result = compare(found, wanted)
    tell(
        f"{network} {precision}: {100 * result.agreement:.1f} % equal answers of {len(images)}, differences rms "
        f"{100 * result.off:.3f} % of the spread {spread(wanted):.2f} (limit {100 * limit.off:.3f} %), "
        f"max {100 * result.peak:.3f} %"
    )
    assert result.holds(limit), (result, limit)


def on_processor(artifact: Artifact, images: Any, variant: Variant) -> Any:
    """Logits by ONNX Runtime: of the FP32 graph, or of TensorRT's INT8 form."""
    compile_engine(artifact, "onnxruntime", variant)
    with open_backend(artifact, "onnxruntime", variant) as backend:
        return np.concatenate([backend.infer(images[start : start + 8]) for start in range(0, len(images), 8)])


def test_int8_has_the_accuracy_that_was_simulated(
    compiled: Callable[[str, Precision], Artifact], sample: ImageSet, tell: Callable[[str], None], network: str
) -> None:
    """The engine's top-1 on the ImageNet sample is within 0.4 points of the simulation's, which is two of 500 images."""
    made = compiled(network, "int8")
    compile_engine(made, "onnxruntime", "simulated")
    engine = evaluate(made, sample, backend="tensorrt")
    simulated = evaluate(made, sample, backend="onnxruntime", simulate=True)
    tell(
        f"{network} int8 top-1 of {engine.images}: engine {engine.top1:.2f}, simulated {simulated.top1:.2f}, "
        f"FP32 {engine.fp32_top1:.2f}; agreement with FP32: engine {engine.agreement:.2f}, simulated {simulated.agreement:.2f}"
    )
    assert abs(engine.top1 - simulated.top1) <= 0.4 + 1e-9


@pytest.mark.parametrize("precision", LIMITS)
def test_every_batch_gets_its_answers(
    opened: Callable[..., Any],
    pixels: Callable[[str, int], Any],
    tell: Callable[[str], None],
    network: str,
    precision: Precision,
) -> None:
    """Batches of one, of eight, of odd sizes, the largest, and more than that, in any order: each row is that of its image alone.

    Other batch sizes may sum in another order, hence the tolerance; a row in the wrong place is far beyond it.
    """
    backend = opened(network, precision)
    largest = backend._slots[0]._bindings.max_batch
    images = pixels(network, 2 * largest + 3)
    alone = np.concatenate([backend.infer(image[None]) for image in images])
    worst = 0.0
    for count in (8, 5, largest, largest + 1, 1, largest - 1, 2 * largest + 3, 8):
        found = backend.infer(images[:count])
        assert (found.dtype, found.shape) == (np.float32, (count, backend.classes))
        worst = max(worst, float(np.sqrt(np.mean((found - alone[:count]) ** 2, axis=1)).max()) / spread(alone))
    tell(f"{network} {precision}: a row of a batch is at most {100 * worst:.3f} % of the spread off its image alone")
    assert worst <= LIMITS[precision].off
