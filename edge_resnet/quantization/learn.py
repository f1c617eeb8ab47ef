"""Learns ranges, channel factors and biases from calibration images, without labels, so that INT8 gives the answers of FP32.

The FP32 graph with TensorRT's pairs runs in torch; rounding passes the gradient straight through. Learned are the step of every
activation (Esser et al. 2020), a factor for every channel that can be scaled without changing the function (see ``equalize``),
and every bias. A factor needs no gradient of the weights: scaling a channel is the same as giving it a step of its own. The loss
is the squared error of the logits, so that errors of different layers may cancel, which no layer-by-layer method allows. The
weights are FP32's: they are rounded afterwards. Does not know about files.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import Tensor

from edge_resnet.compiler.graph.corrections import SHIFTED, Corrections, Floats
from edge_resnet.compiler.graph.placement import Pair, quantized_weights, tensorrt_pairs
from edge_resnet.core.errors import CalibrationError
from edge_resnet.core.records import Progress, QuantRecipe
from edge_resnet.images.imagecache import CachedImages
from edge_resnet.quantization.covariance import QuantizedGraph
from edge_resnet.quantization.equalize import channel_groups, scale_channels
from edge_resnet.quantization.executor import LARGE_SIDE, Executor, FakeQuantize
from edge_resnet.quantization.simulate import Logits
from edge_resnet.quantization.workers import Workers, workers

__all__ = ["Learned", "Teacher", "learn", "learning_batch"]

_log = logging.getLogger(__name__)

#: Adam's rates: of an activation's step, of a channel's factor (logarithms), and of a bias (in units of its layer's output).
_RANGE_RATE, _FACTOR_RATE, _BIAS_RATE = 2e-3, 2e-2, 2e-4
#: Steps and biases of networks for small images take so many times the rate: there are more steps of the optimizer.
_SMALL = 2.5
#: Networks with more layers take lower rates, because the changes of one step add up over the layers: so many layers over their
#: number, squared for ranges and biases. ResNet-50, with 53, got worse in a pass at two to three times these rates.
_LAYERS = 22
#: Pixels per step of the optimizer: 32 images of 32x32, 8 of 224x224. Fewer are noisy, more are slow and take memory.
_PIXELS = 8 * 224 * 224
_MIN_BATCH, _MAX_BATCH = 4, 32


@dataclass(frozen=True, eq=False)
class Teacher:
    """The ``images`` to learn from, and FP32's ``logits`` of them, (N, classes) float32."""

    images: CachedImages
    logits: Logits


@dataclass(frozen=True, eq=False)
class Learned:
    """``evened``: weights and biases that scale channels and do not change the function. ``biases``: of every quantized layer
    that has one, of the graph with ``evened``. ``amax``: the ranges of its pairs.

    ``first_loss``, ``last_loss``: squared error of the logits over their variance, in the first and the last pass. ``before``,
    ``after``: that of each image that was not learned from, (N,) float32; None without such images.
    """

    evened: Corrections
    biases: dict[str, Floats]
    amax: dict[str, float]
    first_loss: float
    last_loss: float
    before: Floats | None = None
    after: Floats | None = None


def learn(
    graph: QuantizedGraph,
    teacher: Teacher,
    recipe: QuantRecipe,
    judges: Teacher | None = None,
    *,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> Learned:
    """Start from ``graph.amax``, and make ``recipe.epochs`` passes over the images, shuffled by its seed.

    ``graph``: FP32 with the corrections so far; nodes in its ``keep`` keep their biases. ``judges``: images that are not learned
    from. ``device``: the processor by default. A GPU whose memory is too small computes each step in more parts; raises
    CalibrationError if one image is too much for it.
    """
    images, batch = teacher.images, learning_batch(graph.model)
    where = device or torch.device("cpu")
    answers = _centred(torch.from_numpy(teacher.logits))
    steps = recipe.epochs * -(-len(images) // batch)
    rng, losses = np.random.default_rng(recipe.seed), []
    with workers(batch if where.type == "cpu" else 1) as pool:
        student = _Student(graph, where, pool)
        before = None if judges is None else student.errors(judges)
        optimizer = torch.optim.Adam(student.groups, betas=(0.9, 0.99))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
        scale = 1 / float(answers.square().mean())
        for epoch in range(recipe.epochs):
            order, total = rng.permutation(len(images)), 0.0
            for first in range(0, len(order), batch):
                if progress is not None:
                    progress("learn", epoch * len(order) + first, recipe.epochs * len(order))
                positions = order[first : first + batch]
                examples = _Examples(torch.from_numpy(images.take(positions)), answers[positions])
                total += student.learn_from(examples, scale) * len(positions)
                optimizer.step()
                schedule.step()
            losses.append(total / len(order))
        after = None if judges is None else student.errors(judges)
    if progress is not None:
        progress("learn", recipe.epochs * len(images), recipe.epochs * len(images))
    evened = student.evened()
    return Learned(evened, student.biases(), student.amax(), losses[0], losses[-1], before, after)


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
    """The graph with learnable steps, factors and biases."""

    def __init__(self, graph: QuantizedGraph, device: torch.device, pool: Workers) -> None:
        self._model, self._device, self._pool = graph.model, device, pool
        pairs = tensorrt_pairs(graph.model, graph.keep)
        self._executor = Executor(graph.model, pairs, device)
        nodes = {node.name: node for node in graph.model.graph.node}
        self._steps = {
            name: torch.tensor(math.log(graph.amax[name] / 127), device=device, requires_grad=name != SHIFTED)
            for name in dict.fromkeys(pair.range_of for pair in pairs)
        }  # the step of an exact input stays one pixel value
        read = {pair.range_of for pair in pairs}
        self._channels = [group for group in channel_groups(graph.model) if read & set(group.tensors)]
        values = self._executor.values
        counts = [len(values[nodes[group.writers[0]].input[1]]) for group in self._channels]
        self._factors = [torch.zeros(count, device=device, requires_grad=True) for count in counts]
        self._factor_of = {t: each for group, each in zip(self._channels, self._factors, strict=True) for t in group.tensors}
        # Option A's shortcut has no bias.
        layers = [nodes[name] for name in quantized_weights(graph.model, graph.keep)]
        self._biases = {n.name: _Bias(n.input[2], values[n.input[1]], values[n.input[2]]) for n in layers if len(n.input) > 2}
        side = graph.model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
        self._filters = {node.name for node in nodes.values() if node.op_type == "Conv"}
        #: Parts that a step is computed in: one per core, more if a GPU's memory is too small.
        self._parts = pool.count
        depth = min(1.0, _LAYERS / max(1, len(layers)))
        fast = 1.0 if side >= LARGE_SIDE else _SMALL
        learned = (
            ([step for step in self._steps.values() if step.requires_grad], fast * depth**2 * _RANGE_RATE),
            (self._factors, depth * _FACTOR_RATE),
            ([bias.shift for bias in self._biases.values()], fast * depth**2 * _BIAS_RATE),
        )
        #: The parameter groups for Adam.
        self.groups = [{"params": parameters, "lr": rate} for parameters, rate in learned if parameters]
        self._parameters = [parameter for parameters, _ in learned for parameter in parameters]

    def learn_from(self, examples: _Examples, scale: float) -> float:
        """Set every gradient of the loss over ``examples``. Returns the loss.

        ``scale``: one over the variance of the teacher's logits.
        """

        def part_of(part: _Examples) -> tuple[float, Sequence[Tensor]]:
            loss = self._differences(part).square().sum() * (scale / examples.logits.numel())
            # A parameter that the answers do not depend on has a gradient of zero.
            return float(loss.detach()), torch.autograd.grad(loss, self._parameters, materialize_grads=True)

        try:
            return self._add_up(self._pool.map(part_of, examples.split(self._parts)))
        except torch.OutOfMemoryError as error:
            if self._parts >= len(examples.pixels):
                raise CalibrationError(
                    "the GPU's memory is too small to learn from one image", hint="edge-resnet build --device cpu"
                ) from error
            self._parts *= 2
            _log.warning("the GPU's memory is full: each step is computed in %d parts", self._parts)
        return self.learn_from(examples, scale)

    def errors(self, teacher: Teacher) -> Floats:
        """Squared error of the logits of each image over the variance of all, (N,), without learning."""

        @torch.no_grad()
        def part_of(part: _Examples) -> Tensor:
            return self._differences(part).square().mean(1).cpu()

        answers, size = _centred(torch.from_numpy(teacher.logits)), learning_batch(self._model)
        found = []
        for first in range(0, len(answers), size):
            positions = range(first, min(first + size, len(answers)))
            examples = _Examples(torch.from_numpy(teacher.images.take(positions)), answers[first : first + size])
            found += list(self._pool.map(part_of, examples.split(max(self._parts, len(positions) // 4))))
        scaled: Floats = (torch.cat(found) / answers.square().mean()).numpy()
        return scaled

    def evened(self) -> Corrections:
        """Weights and biases with the learned factors."""
        factors = [each.detach().double().exp().cpu().numpy() for each in self._factors]
        return scale_channels(self._model, list(zip(self._channels, factors, strict=True)))

    def biases(self) -> dict[str, Floats]:
        """The learned biases by node, of the graph with ``evened``."""
        factors = {name: each for group, each in zip(self._channels, self._factors, strict=True) for name in group.writers}
        found = {}
        with torch.no_grad():
            for name, bias in self._biases.items():
                learned = bias.value() * factors[name].exp() if name in factors else bias.value()
                found[name] = learned.cpu().numpy()
        return found

    def amax(self) -> dict[str, float]:
        """The learned range of each tensor, of the graph with ``evened``."""
        return {tensor: 127 * math.exp(float(step.detach())) for tensor, step in self._steps.items()}

    def _differences(self, part: _Examples) -> Tensor:
        """The centred logits less the teacher's, (n, classes)."""
        with self._executor.in_half():
            logits = self._run(part.pixels.to(self._device)).float()
        return _centred(logits) - part.logits.to(self._device)

    def _add_up(self, parts: Iterable[tuple[float, Sequence[Tensor]]]) -> float:
        loss = 0.0
        for number, (share, gradients) in enumerate(parts):
            loss += share
            for parameter, gradient in zip(self._parameters, gradients, strict=True):
                parameter.grad = gradient if number == 0 or parameter.grad is None else parameter.grad + gradient
        return loss

    def _run(self, images: Tensor) -> Tensor:
        """(n, H, W, 3) uint8 → logits of the current activations and biases, (n, classes)."""
        steps = {tensor: step.exp() for tensor, step in self._steps.items()}
        by_channel = {
            tensor: step / self._factor_of[tensor].exp() if tensor in self._factor_of else step for tensor, step in steps.items()
        }

        def read(pair: Pair, x: Tensor) -> Tensor:
            # What an Add reads stays float32: in bfloat16 the sum is rounded more coarsely than by INT8.
            only_filters = self._executor.halves and all(reader in self._filters for reader, _ in pair.readers)
            dtype = torch.bfloat16 if only_filters else torch.float32
            quantized: Tensor = FakeQuantize.apply(x, by_channel[pair.range_of], dtype)
            return quantized

        values = {**self._executor.halved, **{bias.tensor: bias.value() for bias in self._biases.values()}}
        return self._executor.run(images, values, read=read)


class _Bias:
    """The bias (O,) of a layer with ``weight`` (O, C, h, w), in the initializer ``tensor``."""

    def __init__(self, tensor: str, weight: Tensor, start: Tensor) -> None:
        self.tensor, self._start = tensor, start
        # Of the order of the layer's output for inputs of order one: the bias, and the sum of weights over √fan-in.
        sums = weight.abs().flatten(1).sum(1) / math.sqrt(weight[0].numel())
        # The median: a channel that was scaled up because it is nearly dead has huge weights.
        self._unit = float((start.abs() + sums).median())
        self.shift = torch.zeros_like(start, requires_grad=True)

    def value(self) -> Tensor:
        """The learned bias."""
        return self._start + self.shift * self._unit


def _centred(logits: Tensor) -> Tensor:
    """Logits minus their mean over the classes, which changes neither softmax nor ranking."""
    return logits - logits.mean(dim=1, keepdim=True)
