"""Which layers read the first convolution's output, and whether they are cheap enough to stay in high precision.

Rounding that tensor costs more than rounding any other: a third of the error of CIFAR ResNet-20 and of ResNet-50. All later
layers work on what is left of it. Does not know about ranges.
"""

from __future__ import annotations

import math

import onnx

from edge_resnet.quantization.calibrate import shapes_of

__all__ = ["cheap_stem_readers"]


def cheap_stem_readers(model: onnx.ModelProto, max_share: float) -> tuple[str, ...]:
    """Names of the convolutions that read the first one's output, and of the MaxPool between them, in graph order.

    Empty if the convolutions make up more than ``max_share`` percent of the network's multiply-adds.
    """
    nodes = list(model.graph.node)
    first = next((node for node in nodes if node.op_type == "Conv"), None)
    if first is None or max_share <= 0:
        return ()
    behind, found = {first.output[0]}, []
    for node in nodes:  # in topological order
        if node is first or not behind & set(node.input):
            continue
        if node.op_type in ("Relu", "MaxPool"):
            behind.add(node.output[0])
        if node.op_type in ("Conv", "MaxPool"):
            found.append(node)
    costs = _multiply_adds(model)
    share = 100 * sum(costs.get(node.name, 0) for node in found) / max(1, sum(costs.values()))
    return tuple(node.name for node in found) if 0 < share <= max_share else ()


def _multiply_adds(model: onnx.ModelProto) -> dict[str, int]:
    """Multiply-adds for one image by name, of every Conv and Gemm."""
    weights = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    shapes = shapes_of(model)
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    return {node.name: weights.get(node.input[1], 0) * math.prod(shapes[node.output[0]][2:]) for node in layers}
