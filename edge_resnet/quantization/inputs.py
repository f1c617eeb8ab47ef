"""Makes a graph's first quantization exact: pixel - 128 is an int8 already. Knows nothing of ranges and of weights learned.

A picture normalised by mean and std does not lie on an int8 grid: of 256 values per channel about 210 remain, a fifth of all the
INT8 error of a network for 32x32 pictures. Shifting by 128 instead puts every pixel on an integer; but a convolution pads with
zero, and zero must stay the mean. So the picture is padded before it is shifted, and the first convolution pads no more.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edge_resnet.core.errors import CalibrationError

__all__ = ["EXACT_AMAX", "SHIFTED", "with_exact_input"]

#: The tensor that holds pixel - 128, and its range: a step of int8 is then one pixel value.
SHIFTED = "shift"
EXACT_AMAX = 127.0


def with_exact_input(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose picture is padded, shifted to pixel - 128 and read by a first convolution with the same function.

    Sub(mean), Mul(scale), Conv(pads) become Sub(mean), Pad, Sub(128 - mean), Conv: the scale moves into the weights, the shift
    into the bias. Raises CalibrationError where the graph does not begin that way.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    subtract, multiply, convolve = _beginning(graph)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    mean = numpy_helper.to_array(constants[subtract.input[1]]).astype(np.float64).reshape(1, -1, 1, 1)
    scale = numpy_helper.to_array(constants[multiply.input[1]]).astype(np.float64).reshape(1, -1, 1, 1)
    weight = numpy_helper.to_array(constants[convolve.input[1]]).astype(np.float64) * scale
    bias = (weight * (128 - mean)).sum(axis=(1, 2, 3))
    if len(convolve.input) > 2:
        bias += numpy_helper.to_array(constants[convolve.input[2]])
    pads = next(attribute for attribute in convolve.attribute if attribute.name == "pads")
    top, left, bottom, right = pads.ints
    pads.ints[:] = [0, 0, 0, 0]
    new = {
        convolve.input[1]: weight.astype(np.float32),
        f"{convolve.name}.bias": bias.astype(np.float32),
        "pad.size": np.array([0, 0, top, left, 0, 0, bottom, right], np.int64),
        "shift.weight": (128 - mean).astype(np.float32),
    }
    kept = [tensor for tensor in graph.initializer if tensor.name not in {*new, multiply.input[1]}]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *(numpy_helper.from_array(value, name) for name, value in new.items())])
    convolve.input[:] = [SHIFTED, convolve.input[1], f"{convolve.name}.bias"]
    place = list(graph.node).index(multiply)
    graph.node.remove(multiply)
    graph.node.insert(place, helper.make_node("Pad", [subtract.output[0], "pad.size"], ["pad"], name="pad"))
    graph.node.insert(place + 1, helper.make_node("Sub", ["pad", "shift.weight"], [SHIFTED], name=SHIFTED))
    return changed


def _beginning(graph: onnx.GraphProto) -> tuple[onnx.NodeProto, onnx.NodeProto, onnx.NodeProto]:
    """The nodes that normalise and the first convolution."""
    first = next((place for place, node in enumerate(graph.node) if node.op_type == "Conv"), 0)
    before = list(graph.node)[max(0, first - 2) : first + 1]
    if [node.op_type for node in before] != ["Sub", "Mul", "Conv"]:
        raise CalibrationError("the graph does not begin with Sub, Mul, Conv", hint="leave exact_input out of the recipe")
    subtract, multiply, convolve = before
    return subtract, multiply, convolve
