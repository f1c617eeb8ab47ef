"""The end of a classifier: which tensor holds the logits (N, classes). A final softmax goes, because whoever shows probabilities
computes them from logits. Knows no other layers."""

from __future__ import annotations

import math

from onnx import helper

from edge_resnet.compiler.foreign.draft import Draft, Shape, attributes, named
from edge_resnet.core.errors import WeightsError

__all__ = ["find_logits"]

_PASSING = ("Flatten", "Reshape", "Squeeze", "Identity")


def find_logits(draft: Draft) -> str:
    """Make the logits (1, classes) the output of ``draft``, and return the name of the tensor that holds them in the original.

    Raises WeightsError for an output of another shape, and for a final Sigmoid, which answers with several classes.
    """
    shapes = draft.shapes()
    tensor = draft.output
    while (node := draft.maker(tensor)) is not None and node.op_type in _PASSING:
        tensor = node.input[0]
    if node is not None and node.op_type == "Sigmoid":
        raise WeightsError(
            f"the network ends with node {named(node)}, a yes or no for each class", hint="edge-resnet takes one class per image"
        )
    if node is not None and node.op_type in ("Softmax", "LogSoftmax"):
        shape, axis = shapes.get(node.input[0], ()), attributes(node).get("axis", -1 if draft.opset >= 13 else 1)
        if not _over_classes(shape, axis):
            hint = "export a network whose softmax is over the classes"
            raise WeightsError(f"node {named(node)} is over axis {axis} of {shape}, not over the classes", hint=hint)
        draft.output = node.input[0]
        draft.prune()
        draft.changes.append(f"the final node {named(node)} is removed: probabilities are computed from the logits")
    original = draft.output
    shape = shapes.get(original, ())
    if len(shape) < 2 or shape[0] != 1 or math.prod(shape) != shape[1] or shape[1] < 2:
        shown = f"({', '.join(map(str, shape))})" if shape else "an unknown shape"
        hint = "a classifier gives (N, classes) with at least two classes"
        raise WeightsError(f"the output {original[:60]!a} has {shown} for one image", hint=hint)
    if len(shape) > 2:
        flat = draft.fresh(f"{original}.flat")
        draft.nodes.append(helper.make_node("Flatten", [original], [flat], name=flat, axis=1))
        draft.output = flat
    return original


def _over_classes(shape: Shape, axis: int) -> bool:
    """Whether a softmax is over the second dimension; before opset 13 it is over all from there on, which have one element."""
    if len(shape) < 2 or math.prod(shape) != shape[1]:
        return False
    return axis % len(shape) == 1
