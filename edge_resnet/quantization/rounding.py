"""Rounds weights layer by layer so that each layer's output changes least on calibration images (GPTQ, Frantar 2022).

The nearest integer of each weight ignores that the inputs of a layer are correlated: the error of one weight can be made up for
by the weights that are not rounded yet. Needs no gradients and no labels. Does not know about files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from edge_resnet.compiler.graph.corrections import Corrections, Floats, Integers, apply
from edge_resnet.compiler.graph.placement import quantized_weights
from edge_resnet.compiler.graph.scales import weight_scales
from edge_resnet.core.errors import CalibrationError
from edge_resnet.core.records import Progress
from edge_resnet.images.imagecache import CachedImages, ImageSubset
from edge_resnet.quantization.covariance import InputStatistics, QuantizedGraph, input_statistics
from edge_resnet.quantization.workers import workers

__all__ = ["round_layers", "round_weights"]

#: Images that the correlations are measured on.
_IMAGES = 256
#: Bytes of correlations that are held at a time: one pass for ResNet-50, three for ResNet-152.
_BYTES = 512 << 20

#: Share of the mean variance that is added to every variance: it bounds how far one weight moves to make up for others.
_DAMPING = 0.01
#: Weights that are rounded before the rest is updated, by one product of matrices.
_BLOCK = 128
#: Dampings that are tried, each ten times the one before.
_ATTEMPTS = 6


@torch.inference_mode()
def round_layers(graph: QuantizedGraph, images: CachedImages, *, progress: Progress | None = None) -> Corrections:
    """Integers, scales and biases of every convolution that TensorRT quantizes, but those in ``graph.keep``.

    ``graph``: FP32 with the corrections so far. Up to 256 images are used. The scales are ``weight_scales``; biases keep the mean
    output of each channel. Layers whose correlations do not fit into memory together are rounded one group after the other, each
    on the answers of those before it.
    """
    model, keep = graph.model, graph.keep
    nodes = {node.name: node for node in model.graph.node}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weights = {name: constants[nodes[name].input[1]] for name in quantized_weights(model, keep)}
    convolutions = {name: weight for name, weight in weights.items() if weight.ndim == 4}
    first = ImageSubset(images, range(min(_IMAGES, len(images))))
    found = Corrections()
    for group in _groups(convolutions, nodes):
        statistics = input_statistics(replace(graph, model=apply(model, found)), first, group, progress=progress)
        rounded, moved = _round_group({name: convolutions[name] for name in group}, statistics, progress)
        before = {name: np.asarray(constants[nodes[name].input[2]], np.float32) for name in group if len(nodes[name].input) > 2}
        found = replace(
            found,
            integers={**found.integers, **rounded.integers},
            scales={**found.scales, **rounded.scales},
            biases={**found.biases, **{name: bias + moved[name] for name, bias in before.items()}},
        )
    return found


def _groups(weights: Mapping[str, Floats], nodes: Mapping[str, onnx.NodeProto]) -> Iterator[list[str]]:
    """Names of layers, in graph order, whose correlations fit into ``_BYTES`` together."""
    group: list[str] = []
    used = 0
    for name, weight in weights.items():
        groups = next((attribute.i for attribute in nodes[name].attribute if attribute.name == "group"), 1)
        size = 4 * groups * weight[0].size ** 2
        if group and used + size > _BYTES:
            yield group
            group, used = [], 0
        group.append(name)
        used += size
    if group:
        yield group


def _round_group(
    weights: Mapping[str, Floats], statistics: dict[str, InputStatistics], progress: Progress | None
) -> tuple[Corrections, dict[str, Floats]]:
    """Integers and scales of each layer, and what its bias changes by. Takes the entries out of ``statistics``."""

    @torch.inference_mode()
    def round_one(name: str) -> tuple[Integers, Floats, Floats]:
        return _round_layer(weights[name], statistics, name)

    integers, scales, moved = {}, {}, {}
    largest_first = sorted(weights, key=lambda name: -weights[name][0].size)
    with workers() as pool:
        for done, (name, made) in enumerate(zip(largest_first, pool.map(round_one, largest_first), strict=True)):
            if progress is not None:
                progress("round weights", done, len(weights))
            integers[name], scales[name], moved[name] = made
    if progress is not None:
        progress("round weights", len(weights), len(weights))
    return Corrections(integers=integers, scales=scales), moved


def _round_layer(weight: Floats, statistics: dict[str, InputStatistics], name: str) -> tuple[Integers, Floats, Floats]:
    """Of (O, C, h, w) weights: integers, scales (O,) and what the bias (O,) changes by, so that the mean output stays.

    Takes its entry out of ``statistics``.
    """
    scales, inputs = weight_scales(weight), statistics.pop(name)
    groups, size = inputs.mean.shape
    mean, covariances = inputs.mean, list(inputs.covariance)
    del inputs  # so that round_weights can free what it has read: 81 MiB in each thread for 4,608 inputs
    filters = torch.from_numpy(np.array(weight)).view(groups, -1, size)
    units = torch.from_numpy(scales).view(groups, -1, 1)
    covariances.reverse()
    rounded = [round_weights(each / unit, covariances.pop()) for each, unit in zip(filters, units, strict=True)]
    integers = torch.stack(rounded)
    moved = torch.einsum("gok,gk->go", filters - integers * units, mean)
    return integers.view(weight.shape).numpy().astype(np.int8), scales, moved.flatten().numpy()


def round_weights(steps: Tensor, covariance: Tensor) -> Tensor:
    """Integers in -127..127 that replace ``steps``, (O, K) float32, so that the layer's output has the smallest squared error.

    ``steps``: the weights in units of their scale. ``covariance``: (K, K) of the inputs, float32, in any unit, and the bias makes
    up for the mean. Inputs that never vary are rounded to the nearest integer. The result has the dtype of ``steps``.
    """
    variances = covariance.diagonal()
    if not bool((variances > 0).any()):
        return torch.clamp(torch.round(steps), -127, 127)
    order = torch.argsort(variances)
    ordered = covariance[order[:, None], order]
    del covariance, variances
    lower = _factor(ordered)
    del ordered
    weights, errors = steps.T[order], torch.empty(steps.shape[1], len(steps))
    # With a covariance of L Lᵀ the error of a filter is |Lᵀe|². From the last input to the first, the best value of a weight
    # follows from the errors of those after it, whatever those before it become (Babai's nearest plane; GPTQ's integers).
    for stop in range(len(weights), 0, -_BLOCK):
        start = max(0, stop - _BLOCK)
        wanted = torch.mm(lower[stop:, start:stop].T, errors[stop:])
        wanted.div_(lower.diagonal()[start:stop, None]).add_(weights[start:stop])
        _round_block(wanted, lower[start:stop, start:stop], weights[start:stop], errors[start:stop])
    rounded = torch.empty_like(steps)
    rounded[:, order] = weights.T
    return rounded


def _round_block(wanted: Tensor, lower: Tensor, weights: Tensor, errors: Tensor) -> None:
    """Round the rows of ``weights`` (B, O) in place, the last first, and note their ``errors``.

    ``wanted`` (B, O): the best values after the rows behind the block; each row's error moves those of the rows before it.
    """
    pulls = lower / lower.diagonal()
    for row in range(len(wanted) - 1, -1, -1):
        rounded = torch.clamp(torch.round(wanted[row]), -127, 127)
        torch.sub(weights[row], rounded, out=errors[row])
        weights[row] = rounded
        wanted[:row].addr_(pulls[row, :row], errors[row])


def _factor(covariance: Tensor) -> Tensor:
    """The lower Cholesky factor of the damped covariance, (K, K). The damping grows until it exists. Changes ``covariance``."""
    damping = _DAMPING * float(covariance.diagonal().mean())
    for _ in range(_ATTEMPTS):
        covariance.diagonal().add_(damping)
        lower: Tensor
        lower, failed = torch.linalg.cholesky_ex(covariance)
        if not failed:
            return lower
        damping *= 10
    raise CalibrationError(
        "the inputs of a layer have no covariance", hint="edge-resnet build --correct bias rounds to the nearest"
    )
