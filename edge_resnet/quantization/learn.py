"""Learns ranges, biases and rounding from calibration images, without labels, so that INT8 gives the answers of FP32.

The graph with TensorRT's pairs runs in torch; rounding passes the gradient straight through. Learned are the step of every
activation (Esser et al. 2020), every bias, and for each weight how far from its nearest integer it is rounded. The loss is the
squared error of the logits, so that errors of different layers may cancel, which no layer-by-layer method allows. Does not know
about files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor

from edge_resnet.compiler.graph.corrections import SHIFTED, Corrections
from edge_resnet.compiler.graph.placement import quantized_weights, tensorrt_pairs
from edge_resnet.compiler.graph.scales import weight_scales
from edge_resnet.core.records import Progress, QuantRecipe
from edge_resnet.images.imagecache import ImageCache
from edge_resnet.quantization.executor import Executor, read_by

__all__ = ["Learned", "learn", "learning_batch"]

#: Adam's rates: of an activation's step (its logarithm), of a bias (in units of its layer's output), of a weight (in int8 steps).
_RANGE_RATE = 5e-3
_BIAS_RATE = 5e-4
_WEIGHT_RATE = 5e-3
#: Networks with more layers take lower rates, because the changes of one step add up over the layers: at these rates ResNet-50,
#: with 53, got worse in its first pass (error 0.0066 to 0.0115), and better at a fifth of them.
_LAYERS = 20
#: Pixels per step of the optimizer: 32 images of 32x32, 8 of 224x224. Fewer are noisy, more are slow and take memory.
_PIXELS = 8 * 224 * 224
_MIN_BATCH, _MAX_BATCH = 4, 32


@dataclass(frozen=True, eq=False)
class Learned:
    """Corrections and ranges of a graph.

    ``first_loss``, ``last_loss``: squared error of the logits over their variance, in the first and the last pass.
    """

    corrections: Corrections
    amax: dict[str, float]
    first_loss: float
    last_loss: float


def learn(
    model: onnx.ModelProto,
    amax: Mapping[str, float],
    images: ImageCache,
    recipe: QuantRecipe,
    *,
    progress: Progress | None = None,
) -> Learned:
    """Start from ``amax`` and ``weight_scales``, and make ``recipe.epochs`` passes over the images, shuffled by its seed.

    ``model``: the FP32 graph with the corrections so far. Nodes in ``recipe.keep_high_precision`` keep their float weights and
    biases.
    """
    student = _Student(model, amax, frozenset(recipe.keep_high_precision))
    batch = learning_batch(model)
    teacher = torch.stack([_teach(student.executor, images, batch, mirror, progress) for mirror in (False, True)])
    spread = float(_centred(teacher[0]).square().mean())
    steps = recipe.epochs * -(-len(images) // batch)
    optimizer = torch.optim.Adam(student.parameters(), betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    rng, losses = np.random.default_rng(recipe.seed), []
    for epoch in range(recipe.epochs):
        order, total = rng.permutation(len(images)), 0.0
        for start in range(0, len(order), batch):
            if progress is not None:
                progress("learn", epoch * len(order) + start, recipe.epochs * len(order))
            positions = order[start : start + batch]
            mirror = int(rng.integers(2))  # a mirrored image is another image to learn from, and the teacher knows its answer
            logits = student.run(_mirrored(images.take(positions), mirror=bool(mirror)))
            loss = _centred(logits - teacher[mirror, positions]).square().mean() / spread
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch types it so
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(positions)
        losses.append(total / len(order))
    if progress is not None:
        progress("learn", recipe.epochs * len(images), recipe.epochs * len(images))
    return Learned(student.corrections(), student.amax(), losses[0], losses[-1])


def learning_batch(model: onnx.ModelProto) -> int:
    """Images per step of the optimizer for this graph's input."""
    _, height, width, _ = (dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim)
    batch: int = min(max(_PIXELS // max(height * width, 1), _MIN_BATCH), _MAX_BATCH)
    return batch


class _Student:
    """The graph with learnable steps, biases and roundings."""

    def __init__(self, model: onnx.ModelProto, amax: Mapping[str, float], keep: frozenset[str]) -> None:
        pairs = tensorrt_pairs(model, keep)
        self.executor = Executor(model, pairs)
        self._logs = {p.range_of: torch.tensor(math.log(amax[p.range_of] / 127)) for p in pairs}
        for tensor, log in self._logs.items():
            log.requires_grad_(tensor != SHIFTED)  # the step of an exact input stays one pixel value
        self._nodes = {node.name: node for node in model.graph.node}
        self._layers = {name: self._layer(name) for name in quantized_weights(model, keep)}

    def _layer(self, name: str) -> _Layer:
        node, values = self._nodes[name], self.executor.values
        weight = values[node.input[1]]
        scales = torch.from_numpy(weight_scales(weight.numpy()))
        bias = values[node.input[2]] if len(node.input) > 2 else torch.zeros(len(weight))
        return _Layer(weight, scales, bias)

    def parameters(self) -> list[dict[str, object]]:
        """The parameter groups for Adam."""
        layers = list(self._layers.values())
        factor = min(1.0, (_LAYERS / len(layers)) ** 1.5)
        return [
            {"params": [log for log in self._logs.values() if log.requires_grad], "lr": factor * _RANGE_RATE},
            {"params": [layer.shift for layer in layers], "lr": factor * _BIAS_RATE},
            {"params": [layer.turn for layer in layers], "lr": factor * _WEIGHT_RATE},
        ]

    def run(self, images: Tensor) -> Tensor:
        """(n, H, W, 3) uint8 → logits of the current INT8, (n, classes)."""
        steps = {tensor: log.exp() for tensor, log in self._logs.items()}
        values = {}
        for name, layer in self._layers.items():
            node = self._nodes[name]
            values[node.input[1]] = layer.weight()
            if len(node.input) > 2:
                values[node.input[2]] = layer.bias()
        return self.executor.run(images, values, read=read_by(steps))

    def amax(self) -> dict[str, float]:
        """The learned range of each tensor."""
        return {tensor: 127 * math.exp(float(log.detach())) for tensor, log in self._logs.items()}

    @torch.no_grad()
    def corrections(self) -> Corrections:
        """The learned weights, rounded, their scales, and the learned biases."""
        return Corrections(
            integers={name: layer.integers().numpy().astype(np.int8) for name, layer in self._layers.items()},
            scales={name: layer.scales.numpy() for name, layer in self._layers.items()},
            biases={name: layer.bias().numpy() for name, layer in self._layers.items() if len(self._nodes[name].input) > 2},
        )


class _Layer:
    """One convolution: weights in int8 steps with the learned deviation of each, and its bias."""

    def __init__(self, weight: Tensor, scales: Tensor, bias: Tensor) -> None:
        shape = (-1, *[1] * (weight.dim() - 1))
        self.scales = scales
        self._scales = scales.view(shape)
        self._steps = weight / self._scales
        # A channel of zeros has no step of its own; option A's padding must stay zero.
        self._alive = (self._steps.abs().amax(dim=tuple(range(1, weight.dim())), keepdim=True) >= 1).float()
        self._bias = bias
        # Of the order of the layer's output for inputs of order one: the mean bias, and the mean sum of weights over √fan-in.
        self._unit = float(bias.abs().mean() + weight.abs().flatten(1).sum(1).mean() / math.sqrt(weight[0].numel()))
        self.turn = torch.zeros_like(weight, requires_grad=True)
        self.shift = torch.zeros_like(bias, requires_grad=True)

    def integers(self) -> Tensor:
        """The weights in int8 steps: whole numbers, whose rounding passes the gradient straight through."""
        turned = self._steps + self.turn * self._alive
        rounded = turned + (torch.round(turned) - turned).detach()
        return torch.clamp(rounded, -127, 127)

    def weight(self) -> Tensor:
        """The weights on their int8 grid."""
        return self.integers() * self._scales

    def bias(self) -> Tensor:
        """The learned bias."""
        return self._bias + self.shift * self._unit


@torch.inference_mode()
def _teach(executor: Executor, images: ImageCache, batch: int, mirror: bool, progress: Progress | None) -> Tensor:
    """FP32's logits of every image, (N, classes)."""
    stage, logits = "teach mirrored" if mirror else "teach", []  # type: str, list[Tensor]
    for pixels in images.batches(batch):
        if progress is not None:
            progress(stage, len(logits) * batch, len(images))
        logits.append(executor.run(_mirrored(pixels, mirror=mirror)))
    if progress is not None:
        progress(stage, len(images), len(images))
    return torch.cat(logits).clone()


def _mirrored(batch: npt.NDArray[np.uint8], *, mirror: bool) -> Tensor:
    """(n, H, W, 3) uint8, mirrored left to right if ``mirror`` is set."""
    return torch.from_numpy(np.ascontiguousarray(batch[:, :, ::-1]) if mirror else batch)


def _centred(logits: Tensor) -> Tensor:
    """Logits minus their mean over the classes, which changes neither softmax nor ranking."""
    return logits - logits.mean(dim=1, keepdim=True)
