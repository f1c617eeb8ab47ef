"""Writes layers in the one form that TensorRT 8.6, the Q/DQ placement and the learning of ranges know, for any batch.

Sum becomes Add, a mean over rows and columns GlobalAveragePool, a Reshape to a row Flatten, MatMul Gemm with weights (out, in),
automatic padding explicit. Reshapes keep the batch, whatever number of images it was written for. Knows no constants' arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import onnx
from onnx import helper

from edge_resnet.compiler.foreign.draft import Draft, Shape, attributes, named
from edge_resnet.core.errors import WeightsError

__all__ = ["dissolve", "rewrite"]

_BATCH_1 = "export it with a dynamic batch, and flatten with torch.flatten(x, 1)"

_Rule = Callable[[Draft, onnx.NodeProto, dict[str, Shape]], None]


def dissolve(draft: Draft) -> None:
    """Take out what computes nothing: Identity, Dropout, and Cast of float to float.

    Raises WeightsError for a Dropout in training mode, and for a Cast to another type.
    """
    for node in list(draft.nodes):
        if node.op_type == "Dropout":
            training = draft.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
            if training is not None and bool(training):
                raise WeightsError(f"node {named(node)} is in training mode", hint="model.eval() before the export")
        elif node.op_type == "Cast" and attributes(node).get("to") != onnx.TensorProto.FLOAT:
            raise WeightsError(f"node {named(node)} computes in another type than float", hint="export the network in FP32")
        elif node.op_type not in ("Identity", "Cast"):
            continue
        draft.remove(node, node.input[0])
    draft.prune()


def rewrite(draft: Draft) -> None:
    """Apply every rule to every node. Raises WeightsError for a node that holds for one image alone."""
    shapes = draft.shapes()
    for node in list(draft.nodes):
        if rule := _RULES.get(node.op_type):
            rule(draft, node, shapes)
    draft.prune()


def _sum(draft: Draft, node: onnx.NodeProto, shapes: dict[str, Shape]) -> None:  # noqa: ARG001 - rules have one signature
    if len(node.input) == 1:
        draft.remove(node, node.input[0])
        return
    left, nodes = node.input[0], []
    for index, right in enumerate(node.input[1:], 1):
        last = index == len(node.input) - 1
        made = node.output[0] if last else draft.fresh(f"{node.output[0]}.{index}")
        nodes.append(helper.make_node("Add", [left, right], [made], name=node.name if last else f"{node.name}.{index}"))
        left = made
    draft.replace(node, nodes)


def _reduce_mean(draft: Draft, node: onnx.NodeProto, shapes: dict[str, Shape]) -> None:
    given = attributes(node)
    shape = shapes.get(node.input[0], ())
    axes = given.get("axes")
    if len(node.input) > 1 and node.input[1] in draft.constants:
        axes = [int(axis) for axis in draft.constants[node.input[1]]]
    if len(shape) != 4 or not axes or sorted(axis % 4 for axis in axes) != [2, 3]:
        return
    if given.get("keepdims", 1):
        draft.replace(node, [helper.make_node("GlobalAveragePool", [node.input[0]], list(node.output), name=node.name)])
        return
    pooled = draft.fresh(f"{node.output[0]}.pooled")
    draft.replace(
        node,
        [
            helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], name=node.name),
            helper.make_node("Flatten", [pooled], list(node.output), name=f"{node.name}.flatten", axis=1),
        ],
    )


def _average_pool(draft: Draft, node: onnx.NodeProto, shapes: dict[str, Shape]) -> None:
    _explicit_pads(draft, node, shapes)
    shape, given = shapes.get(node.input[0], ()), attributes(node)
    whole = len(shape) == 4 and list(given["kernel_shape"]) == list(shape[2:])
    if whole and not any(given.get("pads", ())) and shapes.get(node.output[0], ())[2:] == (1, 1):
        draft.replace(node, [helper.make_node("GlobalAveragePool", [node.input[0]], list(node.output), name=node.name)])


def _reshape(draft: Draft, node: onnx.NodeProto, shapes: dict[str, Shape]) -> None:
    """Reshape, Flatten, Squeeze and Unsqueeze: the order of the values stays, so that the two shapes say everything."""
    before, after = shapes.get(node.input[0]), shapes.get(node.output[0])
    if before is None or after is None:
        raise WeightsError(f"the shapes at node {named(node)} are not known", hint=_BATCH_1)
    if before == after:
        draft.remove(node, node.input[0])
    elif not before or not after or before[0] != 1 or after[0] != 1:
        raise WeightsError(f"node {named(node)} moves the batch: it takes one image alone", hint=_BATCH_1)
    elif after == (1, math.prod(before)):
        draft.replace(node, [helper.make_node("Flatten", [node.input[0]], list(node.output), name=node.name, axis=1)])
    else:
        shape = draft.constant(f"{node.output[0]}.shape", np.array((0, *after[1:]), np.int64))
        draft.replace(node, [helper.make_node("Reshape", [node.input[0], shape], list(node.output), name=node.name)])


def _matmul(draft: Draft, node: onnx.NodeProto, shapes: dict[str, Shape]) -> None:
    weight = draft.constants.get(node.input[1])
    if weight is None or weight.ndim != 2 or len(shapes.get(node.input[0], ())) != 2:
        return
    stored = draft.constant(f"{node.output[0]}.weight", np.ascontiguousarray(weight.T))
    draft.replace(node, [helper.make_node("Gemm", [node.input[0], stored], list(node.output), name=node.name, transB=1)])


def _gemm(draft: Draft, node: onnx.NodeProto, shapes: dict[str, Shape]) -> None:  # noqa: ARG001 - rules have one signature
    """Weights (out, in) and a bias (out,), both with their factors in them."""
    given, inputs = attributes(node), list(node.input)
    weight = draft.constants.get(inputs[1])
    bias = draft.constants.get(inputs[2]) if len(inputs) > 2 and inputs[2] else None
    if weight is None or given.get("transA", 0) or (bias is None and len(inputs) > 2 and inputs[2]):
        return
    turned = weight if given.get("transB", 0) else weight.T
    scaled = np.ascontiguousarray(turned.astype(np.float64) * given.get("alpha", 1.0)).astype(np.float32)
    names = [inputs[0], draft.constant(f"{node.output[0]}.weight", scaled)]
    if bias is not None:
        if bias.size not in (1, len(scaled)):
            return
        added = np.broadcast_to(bias.reshape(-1) * np.float64(given.get("beta", 1.0)), (len(scaled),))
        names.append(draft.constant(f"{node.output[0]}.bias", added.astype(np.float32)))
    draft.replace(node, [helper.make_node("Gemm", names, list(node.output), name=node.name, transB=1)])


def _conv(draft: Draft, node: onnx.NodeProto, shapes: dict[str, Shape]) -> None:
    """Explicit padding; a Pad of zeros in front becomes part of it."""
    _explicit_pads(draft, node, shapes)
    front = draft.maker(node.input[0])
    if front is None or front.op_type != "Pad" or not draft.is_private(node.input[0]):
        return
    pads, given = _zeros_around(front, draft), attributes(node)
    if pads is None or len(shapes.get(front.input[0], ())) != 4:
        return
    own = given.get("pads", [0, 0, 0, 0])
    _set_attribute(node, "pads", [one + other for one, other in zip(own, pads, strict=True)])
    draft.remove(front, front.input[0])


def _zeros_around(pad: onnx.NodeProto, draft: Draft) -> list[int] | None:
    """Rows and columns of zeros that a Pad adds: top, left, bottom, right; None if it adds anything else."""
    given = attributes(pad)
    sizes, fill = given.get("pads"), given.get("value", 0.0)
    if sizes is None and len(pad.input) > 1 and pad.input[1] in draft.constants:
        sizes = [int(size) for size in draft.constants[pad.input[1]]]
        if len(pad.input) > 2 and pad.input[2]:
            fill = float(draft.constants[pad.input[2]].reshape(())) if pad.input[2] in draft.constants else None
    plain = given.get("mode", b"constant") == b"constant" and fill == 0 and not any(pad.input[3:])
    if not plain or sizes is None or len(sizes) != 8 or any(sizes[index] for index in (0, 1, 4, 5)) or min(sizes) < 0:
        return None
    return [sizes[2], sizes[3], sizes[6], sizes[7]]


def _explicit_pads(draft: Draft, node: onnx.NodeProto, shapes: dict[str, Shape]) -> None:
    """``auto_pad`` as numbers, by the definition in ONNX's documentation of the operators."""
    given = attributes(node)
    automatic = given.get("auto_pad", b"NOTSET")
    if automatic == b"NOTSET":
        return
    before, after = shapes.get(node.input[0], ()), shapes.get(node.output[0], ())
    kernel = given.get("kernel_shape") or list(draft.constants.get(node.input[1], np.empty(())).shape[2:])
    if len(before) != 4 or len(after) != 4 or len(kernel) != 2:
        raise WeightsError(f"the padding of node {named(node)} is not known", hint="export it with explicit padding")
    strides, dilations = given.get("strides", [1, 1]), given.get("dilations", [1, 1])
    first, last = [], []
    for axis in range(2):
        reach = (after[2 + axis] - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1
        total = max(reach - before[2 + axis], 0) if automatic != b"VALID" else 0
        small, large = total // 2, total - total // 2
        first.append(large if automatic == b"SAME_LOWER" else small)
        last.append(small if automatic == b"SAME_LOWER" else large)
    _set_attribute(node, "auto_pad", None)
    _set_attribute(node, "pads", first + last)


def _pool(draft: Draft, node: onnx.NodeProto, shapes: dict[str, Shape]) -> None:
    _explicit_pads(draft, node, shapes)


def _set_attribute(node: onnx.NodeProto, name: str, value: list[int] | None) -> None:
    for attribute in [attribute for attribute in node.attribute if attribute.name == name]:
        node.attribute.remove(attribute)
    if value is not None:
        node.attribute.append(helper.make_attribute(name, value))


#: Operator → what is done to its nodes.
_RULES: Mapping[str, _Rule] = MappingProxyType(
    {
        "AveragePool": _average_pool,
        "Conv": _conv,
        "Flatten": _reshape,
        "Gemm": _gemm,
        "MatMul": _matmul,
        "MaxPool": _pool,
        "ReduceMean": _reduce_mean,
        "Reshape": _reshape,
        "Squeeze": _reshape,
        "Sum": _sum,
        "Unsqueeze": _reshape,
    }
)
