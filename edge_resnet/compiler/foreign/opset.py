"""Converts a draft to the opset that TensorRT 8.6 reads, by onnx's own converter. Knows no layers."""

from __future__ import annotations

import re

import onnx
from onnx import version_converter

from edge_resnet.artifact.graphcheck import OPSET
from edge_resnet.compiler.foreign.draft import Draft, named
from edge_resnet.core.errors import WeightsError

__all__ = ["convert_opset"]


def convert_opset(draft: Draft) -> None:
    """Write the nodes in opset 17. Raises WeightsError that names the node for which there is no conversion."""
    if draft.opset == OPSET:
        return
    before = draft.opset
    changed = [node for node in draft.nodes if _since(node.op_type, before) != _since(node.op_type, OPSET)]
    if changed:
        try:
            converted = version_converter.convert_version(draft.light(), OPSET)
        except Exception as error:  # the converter raises what its C++ raises
            found = re.search(r"(?:of|for) (\w+)(?: exists)?\s*$", str(error).strip())
            guilty = [node for node in changed if found is None or node.op_type == found.group(1)] or changed
            hint = "export it with opset_version=17"
            raise WeightsError(f"node {named(guilty[0])} of opset {before} has no form in opset {OPSET}", hint=hint) from error
        draft.nodes = list(converted.graph.node)
        for tensor in converted.graph.initializer:
            if tensor.name not in draft.constants:
                draft.constants[tensor.name] = onnx.numpy_helper.to_array(tensor)
    draft.opset = OPSET
    draft.changes.append(f"opset {before} is converted to {OPSET}")


def _since(op_type: str, opset: int) -> int | None:
    """The opset in which the operator took the form that it has in ``opset``; None if it has none there."""
    if not onnx.defs.has(op_type, max_inclusive_version=opset):
        return None
    return int(onnx.defs.get_schema(op_type, max_inclusive_version=opset).since_version)
