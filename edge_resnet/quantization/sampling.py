"""Which values of a tensor a calibration counts: all of a small one, those of every fourth row and column of a large one.

An FP32 graph fuses its residual additions and never leaves the processor's own layout; reading every value of every tensor costs
nearly as much as computing them. Neighbours in a large map tell nearly the same: positions a few rows and columns apart, picked
inside the graph, give the shape of the distribution. Its largest value is taken over all. Knows nothing of histograms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx
from onnx import helper

__all__ = ["LARGE", "Probe", "probed"]

#: Values per picture from which on a tensor is sampled.
LARGE = 1 << 15
#: From one counted row to the next, the first that divides the map and leaves at least so many rows: down to 2,048 values per
#: picture and tensor, 65,536 over 32 pictures, in which a percentile of 99.99 still has six beyond it.
_STEPS = (4, 2)
_FEWEST_ROWS = 7
#: Elements up to which a constant may be a shape, a range or an axis, whose values the inference of shapes reads.
_SMALL = 64


@dataclass(frozen=True)
class Probe:
    """Two outputs of the probed graph for one tensor: the values to count, and where these are a sample, the largest values."""

    values: str
    largest: str | None


def probed(model: onnx.ModelProto, tensors: Sequence[str]) -> tuple[onnx.ModelProto, dict[str, Probe]]:
    """A copy of ``model`` whose outputs are the probes of ``tensors``, and these by tensor; ``model`` is left as it is.

    Sampled are tensors of (N, C, H, W) with at least LARGE values per picture and H and W that a step divides. Of values below
    zero a sample holds the extremes of its own positions alone.
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    del graph.graph.output[:]
    shapes = _shapes(model)
    probes = {}
    for name in dict.fromkeys(tensors):
        step = _step(shapes.get(name, ()))
        probes[name] = _add_sample(graph, name, step) if step > 1 else Probe(name, None)
    outputs = [output for probe in probes.values() for output in (probe.values, probe.largest) if output is not None]
    graph.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs)
    return graph, probes


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes as inferred; a dimension that is not known is 0."""
    graph = onnx.shape_inference.infer_shapes(_without_weights(model)).graph
    known = (*graph.value_info, *graph.input, *graph.output)
    return {value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in known}


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with the shapes of its larger constants alone: the inference would copy 100 MB of weights several times."""
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    for weight in model.graph.initializer:
        if math.prod(weight.dims) > _SMALL:
            light.graph.input.append(helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims))
        else:
            light.graph.initializer.append(weight)
    return light


def _step(shape: tuple[int, ...]) -> int:
    """Rows and columns from one counted position to the next; 1 counts all."""
    if len(shape) != 4:
        return 1
    _, channels, height, width = shape
    fits = [step for step in _STEPS if height % step == width % step == 0 and min(height, width) >= step * _FEWEST_ROWS]
    return fits[0] if channels * height * width >= LARGE and fits else 1


def _add_sample(graph: onnx.ModelProto, name: str, step: int) -> Probe:
    """Append the two poolings: both are kernels of the layout that convolutions leave their results in, a Slice is not."""
    values, largest = f"{name}/counted", f"{name}/largest"
    graph.graph.node.extend(
        [
            helper.make_node("MaxPool", [name], [values], kernel_shape=[1, 1], strides=[step, step]),
            helper.make_node("GlobalMaxPool", [name], [largest]),
        ]
    )
    return Probe(values, largest)
