"""What training changed, as the records that an INT8 artifact is made of. Knows nothing of folders and of training.

The FP32 graph of the artifact stays what it was: it is what INT8 is measured against. Everything learned goes where post-training
corrections go, ``corrections.npz`` and ``calibration.json``, from which every engine's graph is derived already.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import torch

from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.compiler.graph.corrections import Corrections
from edge_resnet.compiler.graph.qdq import measured_tensors, quantize
from edge_resnet.core.errors import CalibrationError, ExportError
from edge_resnet.core.records import Preprocess, Progress
from edge_resnet.network.training.validation import normalise
from edge_resnet.quantization.calibrate import CALIBRATION_BATCH, collect, table_from
from edge_resnet.quantization.imagecache import ImageCache
from edge_resnet.quantization.qat.network import FakeQuantized
from edge_resnet.quantization.simulate import relative_error, simulate

__all__ = ["corrections_of", "table_of", "verify_int8"]

#: The largest squared error of the simulated graph's logits over their power. Sums in another order turn a rounding here and
#: there: seen were up to 7e-4 on a network that INT8 breaks, 1e-5 on others.
_MAX_ERROR = 5e-3

Images: TypeAlias = npt.NDArray[np.uint8]


@torch.no_grad()
def corrections_of(network: FakeQuantized, *, exact_input: bool) -> Corrections:
    """All weights and biases of the network, rounded for good. Raises CalibrationError where one is not finite."""
    layers = {name: network.layer(name) for name in network.names()}
    found = Corrections(
        integers={name: _array(layers[name].integers()).astype(np.int8) for name in network.quantized},
        scales={name: _array(_given(layers[name].scales())) for name in network.quantized},
        floats={name: _array(layer.weight()) for name, layer in layers.items() if name not in network.quantized},
        biases={name: _array(bias) for name, layer in layers.items() if (bias := layer.bias()) is not None},
        exact_input=exact_input,
    )
    for values in (found.scales, found.floats, found.biases):
        for name, value in values.items():
            if not np.isfinite(value).all():
                raise CalibrationError(f"the training left {name} with values that are not finite", hint="a lower --rate")
    return found


def table_of(
    network: FakeQuantized,
    start: CalibrationTable,
    graph: onnx.ModelProto,
    images: ImageCache,
    *,
    progress: Progress | None = None,
) -> CalibrationTable:
    """The learned ranges, and those that only the CPU's form reads measured on ``images`` with ``graph``, as corrected."""
    batches = images.batches(CALIBRATION_BATCH)
    histograms, count = collect(graph, measured_tensors(graph), batches, len(images), progress=progress)
    measured = table_from(histograms, start.recipe, count, images.digest, start.model_digest)
    return replace(measured, amax={**measured.amax, **network.amax()})


def verify_int8(
    network: FakeQuantized,
    model: onnx.ModelProto,
    int8: tuple[CalibrationTable, Corrections],
    images: Iterable[Images],
    preprocess: Preprocess,
) -> float:
    """Compare what was trained with the graph that TensorRT gets, run by ONNX Runtime: squared error over power of the logits.

    Raises ExportError where it is more than roundings that turned.
    """
    shown = list(images)
    table, corrections = int8
    measured = simulate(quantize(model, table, "tensorrt", corrections), shown)
    device = next(network.buffers()).device
    with torch.inference_mode():
        answers = [network(normalise(torch.from_numpy(batch).to(device), preprocess)).cpu().numpy() for batch in shown]
    error = relative_error(measured, np.concatenate(answers))
    if not error <= _MAX_ERROR:
        raise ExportError(
            f"the INT8 graph does not answer as the network that was trained: squared error {error:.1e} of the logits' power",
            hint="report it with the versions that edge-resnet doctor prints",
        )
    return error


def _array(tensor: torch.Tensor) -> npt.NDArray[np.float32]:
    return np.array(tensor.detach().cpu().contiguous().numpy(), np.float32)


def _given(scales: torch.Tensor | None) -> torch.Tensor:
    assert scales is not None  # asked of quantized layers alone
    return scales
