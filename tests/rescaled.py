"""A network that plain post-training quantization breaks: the same function with very different ranges per channel."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper


def rescaled(
    model: onnx.ModelProto, largest: float, blocks: tuple[str, ...] = ("layer1.0", "layer2.0", "layer3.0")
) -> onnx.ModelProto:
    """Multiply the channels of each block's first convolution by 1 to ``largest``, and divide the second's input by the same.

    ReLU is positively homogeneous, so the logits do not change; one int8 step per tensor then fits only the largest channel.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    nodes = {node.name: node for node in changed.graph.node}
    constants = {tensor.name: tensor for tensor in changed.graph.initializer}

    def scale(name: str, factor: np.ndarray, shape: tuple[int, ...]) -> None:
        tensor = constants[name]
        value = numpy_helper.to_array(tensor) * factor.reshape(shape)
        tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))

    for block in blocks:
        first, second = nodes[f"{block}.conv1"], nodes[f"{block}.conv2"]
        channels = constants[first.input[1]].dims[0]
        factor = np.random.default_rng(channels).permutation(np.geomspace(1, largest, channels))
        scale(first.input[1], factor, (-1, 1, 1, 1))
        scale(first.input[2], factor, (-1,))
        scale(second.input[1], 1 / factor, (1, -1, 1, 1))
    return changed
