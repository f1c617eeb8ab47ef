"""Images → ranges: one streaming pass of the FP32 graph. Knows nothing of Q/DQ, engines or where the images lie.

The graph runs in ONNX Runtime with the values of the tensors to be quantized as its outputs (large tensors: a sample of them), on
all cores; then all cores count the values, a tensor each. One batch of activations is all that is held at any time.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.core.errors import CalibrationError
from edge_resnet.core.files import sha256_of
from edge_resnet.core.records import Progress, QuantRecipe
from edge_resnet.quantization.histogram import AbsHistogram
from edge_resnet.quantization.ranges import read_amax
from edge_resnet.runtime.onnxruntime import open_session

__all__ = ["CALIBRATION_BATCH", "LARGE", "Probe", "calibrate", "collect", "probed", "table_from"]

#: Images per run of the graph: enough that counting 71 tensors is seldom a matter of starting, few enough for a small board.
CALIBRATION_BATCH = 4

#: More threads than this wait for each other more than they count.
_MAX_COUNTERS = 4

Images = npt.NDArray[np.uint8]


def calibrate(
    model_path: Path,
    tensors: Sequence[str],
    batches: Iterable[Images],
    recipe: QuantRecipe,
    *,
    progress: Progress | None = None,
) -> CalibrationTable:
    """Measure the range of each of ``tensors`` over ``batches`` of (n, H, W, 3) uint8 RGB, the last of any length.

    ``images_digest`` of the table is over the pixels in their order, whatever the batches; the ranges do not depend on the order.
    Raises CalibrationError where there is no image, where every image is one flat colour, or an activation is not finite.
    """
    digest = hashlib.sha256()
    histograms, count = collect(model_path, tensors, _hashed(batches, digest), recipe.images, progress=progress)
    return table_from(histograms, recipe, count, digest.hexdigest(), sha256_of(model_path))


def collect(
    model: onnx.ModelProto | Path,
    tensors: Sequence[str],
    batches: Iterable[Images],
    expected: int,
    *,
    watch: Callable[[int, Mapping[str, AbsHistogram]], None] | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, AbsHistogram], int]:
    """Histograms of the absolute values per tensor, and the number of images they were counted over.

    Of large tensors they hold a sample of the positions and the largest value of all (sampling.py).
    ``expected``: how many images the progress counts up to. ``watch``: called after
    every batch with the images so far. Memory does not depend on the number of images.
    """
    graph, probes = probed(onnx.load(model) if isinstance(model, Path) else model, tensors)
    histograms = {name: AbsHistogram() for name in probes}
    outputs = [probe.values for probe in probes.values()]
    tops = [probe.largest for probe in probes.values() if probe.largest is not None]
    session = open_session(graph.SerializeToString())
    feed = session.get_inputs()[0].name
    count, varied = 0, False
    with ThreadPoolExecutor(min(_MAX_COUNTERS, _cores())) as counters:
        for batch in batches:
            if progress is not None:
                progress("calibrate", count, max(expected, count))
            found = dict(zip((*outputs, *tops), session.run((*outputs, *tops), {feed: batch}), strict=True))
            values = [found[name] for name in outputs]
            largest = [found[probe.largest] if probe.largest else None for probe in probes.values()]
            for _ in counters.map(AbsHistogram.add, histograms.values(), values, largest):
                pass  # an error of a count is raised here
            count += len(batch)
            if watch is not None:
                watch(count, histograms)
            varied = varied or bool((batch != batch[:, :1, :1]).any())
    if count == 0:
        raise CalibrationError("there is no image to calibrate on", hint="--calib-data takes a folder, a CSV, an .npz or a name")
    if not varied:
        raise CalibrationError("every image is one flat colour", hint="take images like those at run time")
    if progress is not None:
        progress("calibrate", count, count)
    return histograms, count


def table_from(
    histograms: dict[str, AbsHistogram], recipe: QuantRecipe, count: int, images_digest: str, model_digest: str
) -> CalibrationTable:
    """Read every range off the histograms by the recipe's method; another method costs no second pass."""
    return CalibrationTable(
        amax={name: read_amax(histogram, recipe) for name, histogram in histograms.items()},
        signed=tuple(name for name, histogram in histograms.items() if histogram.signed),
        recipe=recipe,
        images=count,
        images_digest=images_digest,
        model_digest=model_digest,
    )


def _hashed(batches: Iterable[Images], digest: hashlib._Hash) -> Iterable[Images]:
    for batch in batches:
        digest.update(np.ascontiguousarray(batch).data)
        yield batch


def _cores() -> int:
    return len(os.sched_getaffinity(0))


#: Values per image from which on a tensor is sampled.
LARGE = 1 << 15


#: From one counted row to the next, the first that divides the map and leaves at least so many rows: down to 2,048 values per
#: image and tensor, 65,536 over 32 images, in which a percentile of 99.99 still has six beyond it.
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

    Sampled are tensors of (N, C, H, W) with at least LARGE values per image and H and W that a step divides. Of values below
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
