"""Learns ranges and biases from calibration images, without labels, so that INT8 gives the answers of FP32.

The graph with TensorRT's pairs runs in torch; rounding passes the gradient straight through. Learned are the step of every
activation (Esser et al. 2020) and every bias. The loss is the squared error of the logits, so that errors of different layers may
cancel, which no layer-by-layer method allows. The weights are rounded before. Does not know about files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import torch
from torch import Tensor

from edge_resnet.compiler.graph.corrections import SHIFTED, Corrections, Floats, Integers
from edge_resnet.compiler.graph.placement import quantized_weights, tensorrt_pairs
from edge_resnet.core.records import Progress, QuantRecipe
from edge_resnet.images.imagecache import CachedImages
from edge_resnet.network.training.epoch import uses_bf16
from edge_resnet.quantization.executor import Executor, read_by
from edge_resnet.quantization.simulate import Logits
from edge_resnet.quantization.workers import Workers, workers

__all__ = ["Learned", "Teacher", "learn", "learning_batch"]

#: Adam's rates: of an activation's step (its logarithm), and of a bias (in units of its layer's output).
_RANGE_RATE = 5e-3
_BIAS_RATE = 5e-4
#: Networks with more layers take lower rates, because the changes of one step add up over the layers: at these rates ResNet-50,
#: with 53, got worse in its first pass (error 0.0042 to 0.0049), and better at 0.43 of them (to 0.0035 in two).
_LAYERS = 30
#: Pixels per step of the optimizer: 32 images of 32x32, 8 of 224x224. Fewer are noisy, more are slow and take memory.
_PIXELS = 8 * 224 * 224
_MIN_BATCH, _MAX_BATCH = 4, 32
#: Side of the images from which on the student computes in bfloat16, if the processor does. On CIFAR ResNet-20 its own rounding
#: cost a tenth (error 0.00074 in place of 0.00068), on ResNet-18 a fortieth.
_BF16_SIDE = 128


@dataclass(frozen=True, eq=False)
class Teacher:
    """The ``images`` to learn from, and FP32's ``logits`` of them, (N, classes) float32."""

    images: CachedImages
    logits: Logits


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
    rounded: Corrections,
    teacher: Teacher,
    recipe: QuantRecipe,
    *,
    progress: Progress | None = None,
) -> Learned:
    """Start from ``amax`` and ``rounded``, and make ``recipe.epochs`` passes over the images, shuffled by its seed.

    ``model``: the FP32 graph with the corrections so far. ``rounded``: integers and scales of every quantized layer, which stay,
    and the biases to start from. Nodes in ``recipe.keep_high_precision`` keep their float weights and biases.
    """
    images, batch = teacher.images, learning_batch(model)
    answers = _centred(torch.from_numpy(teacher.logits))
    steps = recipe.epochs * -(-len(images) // batch)
    rng, losses = np.random.default_rng(recipe.seed), []
    with workers(batch) as pool:
        student = _Student(model, amax, recipe, rounded)
        optimizer = torch.optim.Adam(student.groups(), betas=(0.9, 0.99))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
        scale = 1 / float(answers.square().mean())
        for epoch in range(recipe.epochs):
            order, total = rng.permutation(len(images)), 0.0
            for first in range(0, len(order), batch):
                if progress is not None:
                    progress("learn", epoch * len(order) + first, recipe.epochs * len(order))
                positions = order[first : first + batch]
                examples = _Examples(torch.from_numpy(images.take(positions)), answers[positions])
                total += student.learn_from(examples, scale, pool) * len(positions)
                optimizer.step()
                schedule.step()
            losses.append(total / len(order))
    if progress is not None:
        progress("learn", recipe.epochs * len(images), recipe.epochs * len(images))
    return Learned(replace(rounded, biases={**rounded.biases, **student.biases()}), student.amax(), losses[0], losses[-1])


def learning_batch(model: onnx.ModelProto) -> int:
    """Images per step of the optimizer for this graph's input."""
    _, height, width, _ = (dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim)
    batch: int = min(max(_PIXELS // max(height * width, 1), _MIN_BATCH), _MAX_BATCH)
    return batch


@dataclass(frozen=True, eq=False)
class _Examples:
    """``pixels`` (n, H, W, 3) uint8 and the teacher's centred ``logits`` of them (n, classes)."""

    pixels: Tensor
    logits: Tensor

    def split(self, parts: int) -> list[_Examples]:
        """Up to ``parts`` nearly equal parts."""
        pieces = zip(self.pixels.tensor_split(parts), self.logits.tensor_split(parts), strict=True)
        return [_Examples(pixels, logits) for pixels, logits in pieces if len(pixels)]


class _Student:
    """The graph with learnable steps and biases."""

    def __init__(self, model: onnx.ModelProto, amax: Mapping[str, float], recipe: QuantRecipe, start: Corrections) -> None:
        keep = frozenset(recipe.keep_high_precision)
        pairs = tensorrt_pairs(model, keep)
        self._executor = Executor(model, pairs)
        self._logs = {p.range_of: torch.tensor(math.log(amax[p.range_of] / 127)) for p in pairs}
        for tensor, log in self._logs.items():
            log.requires_grad_(tensor != SHIFTED)  # the step of an exact input stays one pixel value
        self._nodes = {node.name: node for node in model.graph.node}
        self._layers = {name: self._layer(name, start) for name in quantized_weights(model, keep)}
        side = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
        self._bf16 = side >= _BF16_SIDE and uses_bf16("auto", torch.device("cpu"))

    def _layer(self, name: str, start: Corrections) -> _Layer:
        node, values = self._nodes[name], self._executor.values
        weight = values[node.input[1]]
        bias = values[node.input[2]] if len(node.input) > 2 else torch.zeros(len(weight))
        if name in start.biases:
            bias = torch.from_numpy(np.array(start.biases[name], np.float32))
        return _Layer(start.integers[name], start.scales[name], bias)

    def groups(self) -> list[dict[str, object]]:
        """The parameter groups for Adam."""
        factor = min(1.0, (_LAYERS / len(self._layers)) ** 1.5)
        return [
            {"params": [log for log in self._logs.values() if log.requires_grad], "lr": factor * _RANGE_RATE},
            {"params": [layer.shift for _, layer in self._biased()], "lr": factor * _BIAS_RATE},
        ]

    def learn_from(self, examples: _Examples, scale: float, pool: Workers) -> float:
        """Set every gradient of the loss over ``examples``, which ``pool`` computes in parts. Returns the loss.

        ``scale``: one over the variance of the teacher's logits.
        """
        parameters = [parameter for group in self.groups() for parameter in group["params"]]  # type: ignore[attr-defined]

        def part_of(part: _Examples) -> tuple[float, Sequence[Tensor]]:
            with torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
                logits = self._run(part.pixels).float()
            loss = (_centred(logits) - part.logits).square().sum() * (scale / examples.logits.numel())
            # A parameter that the answers do not depend on has a gradient of zero.
            return float(loss.detach()), torch.autograd.grad(loss, parameters, materialize_grads=True)

        loss = 0.0
        for number, (share, gradients) in enumerate(pool.map(part_of, examples.split(pool.count))):
            loss += share
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient if number == 0 else parameter.grad + gradient
        return loss

    def _run(self, images: Tensor) -> Tensor:
        """(n, H, W, 3) uint8 → logits of the current INT8, (n, classes)."""
        steps = {tensor: log.exp() for tensor, log in self._logs.items()}
        values = {}
        for name, layer in self._layers.items():
            node = self._nodes[name]
            values[node.input[1]] = layer.weight
            if len(node.input) > 2:
                values[node.input[2]] = layer.bias()
        return self._executor.run(images, values, read=read_by(steps))

    def amax(self) -> dict[str, float]:
        """The learned range of each tensor."""
        return {tensor: 127 * math.exp(float(log.detach())) for tensor, log in self._logs.items()}

    @torch.no_grad()
    def biases(self) -> dict[str, Floats]:
        """The learned biases by node."""
        return {name: layer.bias().numpy() for name, layer in self._biased()}

    def _biased(self) -> list[tuple[str, _Layer]]:
        """Layers that have a bias: option A's shortcut has none."""
        return [(name, layer) for name, layer in self._layers.items() if len(self._nodes[name].input) > 2]


class _Layer:
    """One convolution: its rounded ``weight`` (O, C, h, w), which stays, and its bias (O,)."""

    def __init__(self, integers: Integers, scales: Floats, bias: Tensor) -> None:
        self.weight = torch.from_numpy(integers * scales.reshape(-1, *[1] * (integers.ndim - 1)))
        self._bias = bias
        # Of the order of the layer's output for inputs of order one: the mean bias, and the mean sum of weights over √fan-in.
        sums = self.weight.abs().flatten(1).sum(1).mean()
        self._unit = float(bias.abs().mean() + sums / math.sqrt(self.weight[0].numel()))
        self.shift = torch.zeros_like(bias, requires_grad=True)

    def bias(self) -> Tensor:
        """The learned bias."""
        return self._bias + self.shift * self._unit


def _centred(logits: Tensor) -> Tensor:
    """Logits minus their mean over the classes, which changes neither softmax nor ranking."""
    return logits - logits.mean(dim=1, keepdim=True)
