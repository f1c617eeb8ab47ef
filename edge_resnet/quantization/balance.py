"""Chooses how far channels are evened out, by what INT8 then loses on calibration pictures. Knows nothing of labels and files."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from torch import Tensor

from edge_resnet.compiler.graph.corrections import Corrections, Floats, apply
from edge_resnet.compiler.graph.placement import tensorrt_pairs
from edge_resnet.compiler.graph.qdq import measured_tensors, quantize
from edge_resnet.core.records import Progress, QuantRecipe
from edge_resnet.quantization.calibrate import CALIBRATION_BATCH, collect, table_from
from edge_resnet.quantization.equalize import equalize
from edge_resnet.quantization.executor import Executor
from edge_resnet.quantization.simulate import relative_error, simulate
from edge_resnet.quantization.spool import Spool

__all__ = ["EXPONENTS", "balance"]

#: Exponents of activations and weights tried (see equalize.py): not at all, two degrees for the activations alone, and both,
#: which undoes any scaling between layers. (0.5, 0) lost least on CIFAR ResNet-20, (0.25, 0) on ResNet-18; others not compared.
EXPONENTS = ((0.0, 0.0), (0.25, 0.0), (0.5, 0.0), (0.5, 0.5))
_IMAGES, _BATCH = 64, 8


def balance(model: onnx.ModelProto, pictures: Spool, recipe: QuantRecipe, *, progress: Progress | None = None) -> Corrections:
    """The equalization of ``EXPONENTS`` whose plain INT8 has the smallest squared error of the logits, on up to 64 pictures."""
    total = min(_IMAGES, len(pictures))
    ranges = _channel_ranges(model, pictures, total)
    reference = simulate(model, pictures.batches(_BATCH, total))
    plain = QuantRecipe(method="mse", images=total, keep_high_precision=recipe.keep_high_precision)
    best, least = Corrections(), float("inf")
    for done, (activations, weights) in enumerate(EXPONENTS):
        if progress is not None:
            progress("equalize", done, len(EXPONENTS))
        candidate = equalize(model, ranges, activations, weights) if activations or weights else Corrections()
        equalized = apply(model, candidate)
        histograms, count = collect(equalized, measured_tensors(equalized), pictures.batches(CALIBRATION_BATCH, total), total)
        graph = quantize(equalized, table_from(histograms, plain, count, "", ""), "tensorrt")
        error = relative_error(simulate(graph, pictures.batches(_BATCH, total)), reference)
        if error < least:
            best, least = candidate, error
    if progress is not None:
        progress("equalize", len(EXPONENTS), len(EXPONENTS))
    return best


@torch.inference_mode()
def _channel_ranges(model: onnx.ModelProto, pictures: Spool, total: int) -> dict[str, Floats]:
    """(C,) the largest absolute value of each channel of each tensor that TensorRT quantizes."""
    pairs = tensorrt_pairs(model)
    wanted = {pair.range_of for pair in pairs}
    tensors = {node.name: node.output[0] for node in model.graph.node if node.output[0] in wanted}
    ranges: dict[str, Floats] = {}

    def note(name: str, output: Tensor) -> Tensor:
        if name in tensors and output.dim() == 4:
            largest = output.abs().amax((0, 2, 3)).numpy()
            ranges[tensors[name]] = np.maximum(ranges.get(tensors[name], largest), largest)
        return output

    executor = Executor(model, pairs)
    for images in pictures.batches(_BATCH, total):
        executor.run(torch.from_numpy(images), watch=note)
    return ranges
