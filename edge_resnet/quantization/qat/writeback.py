"""A trained network as the records that an INT8 artifact is made of. Does not know about folders and training.

The FP32 graph of the artifact does not change: INT8 is measured against it. Everything that was learned goes where PTQ's
corrections go, ``corrections.npz`` and ``calibration.json``, from which every engine's graph is derived.
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
from edge_resnet.compiler.graph.qdq import measured_tensors
from edge_resnet.core.errors import CalibrationError, ExportError
from edge_resnet.core.records import Preprocess, Progress
from edge_resnet.images.imagecache import ImageCache
from edge_resnet.network.training.validation import normalise
from edge_resnet.quantization.calibrate import CALIBRATION_BATCH, collect, table_from
from edge_resnet.quantization.pipeline import Int8
from edge_resnet.quantization.qat.network import FakeQuantized, Layer
from edge_resnet.quantization.simulate import relative_error, simulate

__all__ = ["corrections_of", "table_of", "verify_int8"]

#: The largest allowed squared error of the simulated graph's logits over their power. Summing in another order changes some
#: roundings: up to 7e-4 was measured on a network that INT8 breaks, 1e-5 on others.
_MAX_ERROR = 5e-3

Images: TypeAlias = npt.NDArray[np.uint8]


@torch.no_grad()
def corrections_of(network: FakeQuantized, *, exact_input: bool) -> Corrections:
    """All weights, rounded where they are quantized, and biases. Raises CalibrationError if one is not finite."""
    layers = {name: network.layer(name) for name in network.names()}
    found = Corrections(
        integers={name: _array(layers[name].integers()).astype(np.int8) for name in network.quantized},
        scales={name: _array(_quantized_scales(layers[name])) for name in network.quantized},
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
    """The learned ranges, and those that only the CPU's form reads, measured on ``images`` with the corrected ``graph``."""
    batches = images.batches(CALIBRATION_BATCH)
    counted = collect(graph, measured_tensors(graph), batches, len(images), progress=progress)
    measured = table_from(counted.histograms, start.recipe, counted.images, images.digest, start.model_digest)
    return replace(measured, amax={**measured.amax, **network.amax()})


def verify_int8(
    network: FakeQuantized,
    model: onnx.ModelProto,
    int8: Int8,
    batches: Iterable[Images],
    preprocess: Preprocess,
) -> float:
    """Compare the trained network with the graph for TensorRT, run by ONNX Runtime: squared error over power of the logits.

    ``batches``: (n, crop, crop, 3) uint8 RGB each. Raises ExportError if the difference is larger than that of other roundings.
    """
    compared = list(batches)
    simulated = simulate(int8.simulated(model), compared)
    device = next(network.buffers()).device
    with torch.inference_mode():
        trained = [network(normalise(torch.from_numpy(batch).to(device), preprocess)).cpu().numpy() for batch in compared]
    error = relative_error(simulated, np.concatenate(trained))
    if not error <= _MAX_ERROR:
        raise ExportError(
            f"the INT8 graph does not compute what the trained network does: squared error {error:.1e} of the logits' power",
            hint="report it with the versions that edge-resnet doctor prints",
        )
    return error


def _array(tensor: torch.Tensor) -> npt.NDArray[np.float32]:
    return np.array(tensor.detach().cpu().contiguous().numpy(), np.float32)


def _quantized_scales(layer: Layer) -> torch.Tensor:
    scales = layer.scales()
    assert scales is not None  # the layer is quantized
    return scales
