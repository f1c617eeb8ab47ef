"""Bias correction: the mean shift that rounding causes is subtracted, layer by layer. Does not know about gradients and files.

Rounding is not symmetric about every channel's values, so a convolution's output is shifted by a constant (Nagel et al. 2019,
section 4.2). Here the shift is measured on calibration images; each layer reads the output of the corrected layers before it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from edge_resnet.compiler.graph.corrections import Corrections
from edge_resnet.compiler.graph.placement import quantized_weights, tensorrt_pairs
from edge_resnet.core.records import Progress
from edge_resnet.images.imagecache import CachedImages
from edge_resnet.quantization.executor import Executor, read_by, round_weight

__all__ = ["correct_biases"]

#: Number of images that means are taken over; more change no bias by a step.
_IMAGES, _BATCH = 128, 8


@torch.inference_mode()
def correct_biases(
    model: onnx.ModelProto,
    amax: Mapping[str, float],
    images: CachedImages,
    keep: frozenset[str],
    *,
    progress: Progress | None = None,
) -> Corrections:
    """Biases of every quantized convolution with which its mean output per channel equals FP32's.

    ``amax``: the ranges of TensorRT's pairs. The correction is the mean over batches of up to 8 images, 128 at most.
    """
    pairs = tensorrt_pairs(model, keep)
    executor = Executor(model, pairs)
    nodes = {node.name: node for node in model.graph.node}
    layers = quantized_weights(model, keep)
    rounded = {nodes[name].input[1]: round_weight(executor.values[nodes[name].input[1]]) for name in layers}
    steps = {pair.range_of: torch.tensor(amax[pair.range_of] / 127) for pair in pairs}
    shifts: dict[str, list[Tensor]] = {name: [] for name in layers}
    expected: dict[str, Tensor] = {}

    def note(name: str, output: Tensor) -> Tensor:
        if name in shifts:
            expected[name] = output.mean((0, 2, 3))
        return output

    def correct(name: str, output: Tensor) -> Tensor:
        if name not in shifts:
            return output
        shift = expected[name] - output.mean((0, 2, 3))
        shifts[name].append(shift)
        return output + shift.view(1, -1, 1, 1)

    total = min(_IMAGES, len(images))
    for done, batch in enumerate(images.batches(_BATCH, total)):
        if progress is not None:
            progress("correct biases", done * _BATCH, total)
        executor.run(torch.from_numpy(batch), on_output=note)
        executor.run(torch.from_numpy(batch), rounded, read=read_by(steps), on_output=correct)
    if progress is not None:
        progress("correct biases", total, total)
    return Corrections(biases={name: _bias(model, nodes[name]) + torch.stack(shifts[name]).mean(0).numpy() for name in layers})


def _bias(model: onnx.ModelProto, node: onnx.NodeProto) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    if len(node.input) > 2:
        return np.asarray(numpy_helper.to_array(constants[node.input[2]]), np.float32)
    return np.zeros(constants[node.input[1]].dims[0], np.float32)
