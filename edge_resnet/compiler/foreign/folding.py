"""Computes what does not depend on the image: constants, and shapes, which are taken for one image.

A shape that names the batch becomes a constant so; ``rewriting`` makes it hold for any batch where it can. Knows no layers.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edge_resnet.compiler.foreign.draft import Array, Draft, Shape, attributes, named
from edge_resnet.core.errors import WeightsError
from edge_resnet.runtime.onnxruntime import open_session

__all__ = ["fold_constants"]

#: Elements of all constants that are computed: those of a graph's weights fit a message of protobuf.
_MAX_ELEMENTS = 1 << 29
_HINT = "fold the constants when you export it"


def fold_constants(draft: Draft) -> None:
    """Replace every node whose inputs are constants, or that asks for a known shape, by its value.

    Raises WeightsError where the values would not fit the memory of an artifact, or ONNX Runtime cannot compute them.
    """
    while True:
        shapes = draft.shapes()
        known = [node for node in draft.nodes if _is_constant(node, draft, shapes)]
        if not known:
            return
        computed: list[onnx.NodeProto] = []
        for node in known:
            value = _direct(node, draft, shapes)
            if value is None:
                computed.append(node)
            else:
                draft.constants[node.output[0]] = value
        if computed:
            _check_size(computed, draft, shapes)
            draft.constants.update(_computed(computed, draft))
        gone = {id(node) for node in known}
        draft.nodes = [node for node in draft.nodes if id(node) not in gone]
        draft.prune()


def _is_constant(node: onnx.NodeProto, draft: Draft, shapes: dict[str, Shape]) -> bool:
    if node.op_type in ("Shape", "Size"):
        return node.input[0] in shapes
    return all(name in draft.constants for name in node.input if name)


def _direct(node: onnx.NodeProto, draft: Draft, shapes: dict[str, Shape]) -> Array | None:
    """The value of the commonest nodes, without a session; None for others."""
    given = attributes(node)
    if node.op_type == "Shape":
        shape = shapes[node.input[0]]
        return np.array(shape[slice(given.get("start", 0), given.get("end"))], np.int64)
    if node.op_type == "Size":
        return np.array(math.prod(shapes[node.input[0]]), np.int64)
    if node.op_type == "ConstantOfShape":
        shape = tuple(int(size) for size in draft.constants[node.input[0]])
        fill = numpy_helper.to_array(given["value"]).reshape(()) if "value" in given else np.array(0, np.float32)
        _refuse_large(sum(value.size for value in draft.constants.values()) + math.prod(shape), node)
        return np.full(shape, fill, fill.dtype)
    if node.op_type == "Constant" and "value" in given:
        return np.asarray(numpy_helper.to_array(given["value"]))
    return None


def _check_size(nodes: list[onnx.NodeProto], draft: Draft, shapes: dict[str, Shape]) -> None:
    total = sum(value.size for value in draft.constants.values())
    for node in nodes:
        if node.op_type == "Constant":
            continue
        if node.output[0] not in shapes:
            raise WeightsError(f"the size of what node {named(node)} computes is unknown", hint=_HINT)
        total += math.prod(shapes[node.output[0]])
        _refuse_large(total, node)


def _refuse_large(total: int, node: onnx.NodeProto) -> None:
    if total > _MAX_ELEMENTS:
        raise WeightsError(f"with node {named(node)} the constants take more than 2 GiB", hint=_HINT)


def _computed(nodes: list[onnx.NodeProto], draft: Draft) -> dict[str, Array]:
    """The values of nodes all of whose inputs are constants, in one run without inputs."""
    outputs = [name for node in nodes for name in node.output if name]
    read = dict.fromkeys(name for node in nodes for name in node.input if name)
    graph = helper.make_graph(
        nodes, "constants", [], [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(draft.constants[name], name) for name in read],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", draft.opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=max(helper.find_min_ir_version_for(opsets), 8))
    try:
        values = open_session(model.SerializeToString()).run(outputs, {})
    except Exception as error:  # onnxruntime's exceptions share no base but Exception
        raise WeightsError(f"node {named(nodes[0])} or one after it cannot be computed", hint=_HINT) from error
    return dict(zip(outputs, values, strict=True))
