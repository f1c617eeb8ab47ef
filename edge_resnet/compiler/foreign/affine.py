"""Per-channel y = a * x + b: batch norms, and multiplications and additions of constants. Folded into the layer before them, or
into the normalisation of the image, or written as one batch norm.

Everything is computed in float64 and rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from edge_resnet.compiler.foreign.draft import Draft, Shape, attributes, named
from edge_resnet.core.errors import ConfigError, WeightsError
from edge_resnet.core.records import Preprocess

__all__ = ["fold_affine", "fold_normalisation"]

Doubles = npt.NDArray[np.float64]
_WEIGHTED = ("Conv", "Gemm")


@dataclass(frozen=True, eq=False)
class _Affine:
    """y = factor * x + shift, (C,) each."""

    factor: Doubles
    shift: Doubles

    def then(self, after: _Affine) -> _Affine:
        """Both as one."""
        return _Affine(after.factor * self.factor, after.factor * self.shift + after.shift)


def fold_affine(draft: Draft) -> None:
    """Fold every affine node that follows a convolution or a Gemm of its own into that; merge the others of a row into one.

    Raises WeightsError for a batch norm in training mode, which computes statistics of its batch.
    """
    shapes = draft.shapes()
    for node in list(draft.nodes):
        affine = _affine_of(node, draft, shapes)
        if affine is None:
            continue
        source = _data_input(node, draft)
        before, merged = draft.maker(source), False
        if before is not None and draft.is_private(source):
            if before.op_type in _WEIGHTED and before.input[1] in draft.constants:
                _fold_into(before, affine, draft)
                draft.remove(node, source)
                continue
            earlier = _affine_of(before, draft, shapes)
            if earlier is not None:
                affine, source, merged = earlier.then(affine), _data_input(before, draft), True
                draft.nodes.remove(before)
        if merged or node.op_type == "BatchNormalization" or source == draft.input:
            draft.replace(node, [_batch_norm(node, source, affine, draft)])
    draft.prune()


def fold_normalisation(draft: Draft, preprocess: Preprocess) -> Preprocess:
    """Take an affine node off the image, and return the preprocessing that does the same.

    It stays where the image has other readers, or where the mean would lie outside [0, 1] or the deviation outside (0, 1].
    """
    readers = draft.readers(draft.input)
    node = readers[0] if len(readers) == 1 else None
    affine = None if node is None else _affine_of(node, draft, draft.shapes())
    if node is None or affine is None or not affine.factor.all():
        return preprocess
    scale = affine.factor / (np.array(preprocess.std, np.float64) * 255)
    mean = (np.array(preprocess.mean, np.float64) * 255 - affine.shift / scale) / 255
    try:
        std = 1 / (scale * 255)
        found = replace(preprocess, mean=_three(np.where(np.abs(mean) < 1e-9, 0, mean)), std=_three(std))
    except ConfigError:
        return preprocess
    draft.remove(node, draft.input)
    draft.prune()
    draft.changes.append(f"the normalisation at node {named(node)} is part of the preprocessing")
    return found


def _three(values: Doubles) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _data_input(node: onnx.NodeProto, draft: Draft) -> str:
    names: list[str] = [name for name in node.input if name not in draft.constants]
    return names[0]


def _affine_of(node: onnx.NodeProto, draft: Draft, shapes: dict[str, Shape]) -> _Affine | None:
    """What a node does to each channel of its input; None if it does anything else."""
    if node.op_type == "BatchNormalization":
        return _of_batch_norm(node, draft)
    if node.op_type not in ("Add", "Sub", "Mul", "Div") or len([n for n in node.input if n not in draft.constants]) != 1:
        return None
    source = _data_input(node, draft)
    index = list(node.input).index(source)
    shape, value = shapes.get(source, ()), draft.constants[node.input[1 - index]]
    channels = _per_channel(value, shape)
    if channels is None or (index == 1 and node.op_type == "Div"):
        return None
    ones, zeros = np.ones_like(channels), np.zeros_like(channels)
    if node.op_type == "Add":
        return _Affine(ones, channels)
    if node.op_type == "Sub":
        return _Affine(ones, -channels) if index == 0 else _Affine(-ones, channels)
    if node.op_type == "Div" and not channels.all():
        return None
    return _Affine(channels if node.op_type == "Mul" else 1 / channels, zeros)


def _of_batch_norm(node: onnx.NodeProto, draft: Draft) -> _Affine | None:
    given = attributes(node)
    if given.get("training_mode", 0) or len([name for name in node.output if name]) > 1:
        raise WeightsError(
            f"node {named(node)} is in training mode: it computes with its batch", hint="model.eval() before the export"
        )
    if given.get("spatial", 1) != 1 or not all(name in draft.constants for name in node.input[1:]):
        return None
    scale, bias, mean, variance = (draft.constants[name].astype(np.float64).reshape(-1) for name in node.input[1:5])
    if (variance < 0).any():
        raise WeightsError(f"node {named(node)} has a negative variance", hint="use another file")
    factor = scale / np.sqrt(variance + given.get("epsilon", 1e-5))
    return _Affine(factor, bias - mean * factor)


def _per_channel(value: npt.NDArray[np.generic], shape: Shape) -> Doubles | None:
    """(C,) of a constant that has one value, or one per channel of a tensor (1, C, …); None for any other."""
    if len(shape) not in (2, 4) or not np.issubdtype(value.dtype, np.floating) or value.ndim > len(shape):
        return None
    channels = shape[1]
    full = value.reshape((1,) * (len(shape) - value.ndim) + value.shape).astype(np.float64)
    if full.size == 1:
        return np.full(channels, full.reshape(()))
    return full.reshape(channels) if full.shape == (1, channels, *(1,) * (len(shape) - 2)) else None


def _fold_into(layer: onnx.NodeProto, affine: _Affine, draft: Draft) -> None:
    """Multiply a layer's weights, stored anew, because another layer may read the same."""
    weight = draft.constants[layer.input[1]].astype(np.float64)
    has_bias = len(layer.input) > 2 and layer.input[2]
    bias = draft.constants[layer.input[2]].astype(np.float64).reshape(-1) if has_bias else np.zeros(len(affine.factor))
    folded = weight * affine.factor.reshape(-1, *[1] * (weight.ndim - 1))
    shifted = bias * affine.factor + affine.shift
    names = [
        draft.constant(f"{layer.output[0]}.weight", folded.astype(np.float32)),
        draft.constant(f"{layer.output[0]}.bias", shifted.astype(np.float32)),
    ]
    layer.input[:] = [layer.input[0], *names]


def _batch_norm(node: onnx.NodeProto, source: str, affine: _Affine, draft: Draft) -> onnx.NodeProto:
    """The affine as a batch norm with the mean 0 and the variance 1."""
    count = len(affine.factor)
    values = (affine.factor, affine.shift, np.zeros(count), np.ones(count))
    inputs = [draft.constant(f"{node.output[0]}.{index}", value.astype(np.float32)) for index, value in enumerate(values, 1)]
    return helper.make_node("BatchNormalization", [source, *inputs], [node.output[0]], name=node.name, epsilon=0.0)
