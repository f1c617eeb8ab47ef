"""Images → ranges in one streaming pass of the FP32 graph. Does not know about Q/DQ, engines or where the images are stored.

The graph runs in ONNX Runtime on all cores with the values of the tensors to be quantized as its outputs (a sample of large
tensors); then the cores count the values, one tensor each. Only one batch of activations is held at any time.
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

__all__ = ["CALIBRATION_BATCH", "LARGE", "Counted", "Probe", "calibrate", "collect", "probed", "shapes_of", "table_from"]

#: Images per run of the graph: enough that the overhead of counting 71 tensors is small, few enough for a small board.
CALIBRATION_BATCH = 4
#: Values per image from which on a tensor is sampled.
LARGE = 1 << 15
#: Every n-th row and column is counted: the first n that divides the map and leaves at least so many rows. That is at least 2,048
#: values per image and tensor, 65,536 over 32 images, of which six still lie beyond a percentile of 99.99.
_STEPS, _MIN_ROWS = (4, 2), 7
#: More threads than this wait for each other more than they count.
_MAX_COUNTERS = 4
#: Constants up to this number of elements may be shapes, ranges or axes, whose values shape inference reads.
_SMALL = 64

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Probe:
    """Two outputs of the probed graph for one tensor: the values to count and, if these are a sample, the largest values."""

    values: str
    largest: str | None


@dataclass(frozen=True, eq=False)
class Counted:
    """One pass over images: ``histograms`` of absolute values by tensor, and the graph's ``logits``, (N, classes) float32."""

    histograms: dict[str, AbsHistogram]
    logits: npt.NDArray[np.float32]

    @property
    def images(self) -> int:
        """The number of images."""
        return len(self.logits)


def calibrate(
    model_path: Path,
    tensors: Sequence[str],
    batches: Iterable[Images],
    recipe: QuantRecipe,
    *,
    progress: Progress | None = None,
) -> CalibrationTable:
    """Measure the range of each of ``tensors`` over ``batches`` of (n, H, W, 3) uint8 RGB of any length.

    ``images_digest`` of the table is over the pixels in order, however they are divided into batches; the ranges do not depend on
    the order. Raises CalibrationError if there is no image, if every image is one flat colour, or an activation is not finite.
    """
    digest = hashlib.sha256()
    counted = collect(model_path, tensors, _hashed(batches, digest), recipe.images, progress=progress)
    return table_from(counted.histograms, recipe, counted.images, digest.hexdigest(), sha256_of(model_path))


def collect(
    model: onnx.ModelProto | Path,
    tensors: Sequence[str],
    batches: Iterable[Images],
    expected: int,
    *,
    on_batch: Callable[[int, Mapping[str, AbsHistogram]], None] | None = None,
    progress: Progress | None = None,
) -> Counted:
    """Histograms of the absolute values per tensor, and the graph's answers to the same images.

    For large tensors they hold a sample of the positions and the largest value of all. ``expected``: how many images the
    progress counts up to. ``on_batch``: called after every batch with the number of images and the histograms so far. Memory does
    not depend on the number of images.
    """
    loaded = onnx.load(model) if isinstance(model, Path) else model
    graph, probes = probed(loaded, tensors)
    graph.graph.output.append(loaded.graph.output[0])
    answers, logits = loaded.graph.output[0].name, []
    histograms = {name: AbsHistogram() for name in probes}
    outputs = [probe.values for probe in probes.values()]
    maxima = [probe.largest for probe in probes.values() if probe.largest is not None]
    session = open_session(graph.SerializeToString())
    input_name = session.get_inputs()[0].name
    count, varied = 0, False
    with ThreadPoolExecutor(min(_MAX_COUNTERS, _cores())) as counters:
        for batch in batches:
            if progress is not None:
                progress("calibrate", count, max(expected, count))
            wanted = (*outputs, *maxima, answers)
            found = dict(zip(wanted, session.run(wanted, {input_name: batch}), strict=True))
            logits.append(found[answers])
            values = [found[name] for name in outputs]
            largest = [found[probe.largest] if probe.largest else None for probe in probes.values()]
            for _ in counters.map(AbsHistogram.add, histograms.values(), values, largest):
                pass  # an error in a thread is raised here
            count += len(batch)
            if on_batch is not None:
                on_batch(count, histograms)
            varied = varied or bool((batch != batch[:, :1, :1]).any())
    if count == 0:
        raise CalibrationError("there is no image to calibrate on", hint="images are a folder, a CSV, an .npz or a name")
    if not varied:
        raise CalibrationError("every image is one flat colour", hint="calibrate on images like those at run time")
    if progress is not None:
        progress("calibrate", count, count)
    return Counted(histograms, np.concatenate(logits))


def table_from(
    histograms: dict[str, AbsHistogram], recipe: QuantRecipe, count: int, images_digest: str, model_digest: str
) -> CalibrationTable:
    """Read every range off the histograms by the recipe's method; another method needs no second pass."""
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


def probed(model: onnx.ModelProto, tensors: Sequence[str]) -> tuple[onnx.ModelProto, dict[str, Probe]]:
    """A copy of ``model`` whose outputs are the probes of ``tensors``, and the probes by tensor; ``model`` is not changed.

    Tensors of (N, C, H, W) are sampled if they have at least LARGE values per image and a step divides H and W. The largest value
    is then exact over all positions, the smallest over the sampled ones only.
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    del graph.graph.output[:]
    shapes = shapes_of(model)
    probes = {}
    for name in dict.fromkeys(tensors):
        step = _step(shapes.get(name, ()))
        probes[name] = _add_sample(graph, name, step) if step > 1 else Probe(name, None)
    outputs = [output for probe in probes.values() for output in (probe.values, probe.largest) if output is not None]
    graph.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs)
    return graph, probes


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Inferred shapes; an unknown dimension is 0."""
    graph = onnx.shape_inference.infer_shapes(_without_weights(model)).graph
    known = (*graph.value_info, *graph.input, *graph.output)
    return {value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in known}


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with only the shapes of its larger constants: inference would copy 100 MB of weights several times."""
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
    """The distance in rows and columns between counted positions; 1 counts all."""
    if len(shape) != 4:
        return 1
    _, channels, height, width = shape
    fits = [step for step in _STEPS if height % step == width % step == 0 and min(height, width) >= step * _MIN_ROWS]
    return fits[0] if channels * height * width >= LARGE and fits else 1


def _add_sample(graph: onnx.ModelProto, name: str, step: int) -> Probe:
    """Append two poolings: both have kernels for the memory layout of convolution outputs, which Slice has not."""
    values, largest = f"{name}/counted", f"{name}/largest"
    graph.graph.node.extend(
        [
            helper.make_node("MaxPool", [name], [values], kernel_shape=[1, 1], strides=[step, step]),
            helper.make_node("GlobalMaxPool", [name], [largest]),
        ]
    )
    return Probe(values, largest)
