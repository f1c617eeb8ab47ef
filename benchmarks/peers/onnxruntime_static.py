"""ONNX Runtime's quantize_static with the options that TensorRT's form needs; all else is its default.

Histogram calibrators keep every activation of every image. If that would exceed ``memory_gib``, they get the images in strides,
by an option that is named after min-max (CalibStridedMinMax) but works for them too.
"""

from __future__ import annotations

from math import prod
from typing import Any

import onnx
from measured import Images, Task, normalisation, run

#: Images per stride.
STRIDE = 10


class _Images:
    """Serves one image at a time, because a smaller last batch stops the histogram calibrators."""

    def __init__(self, images: Images, name: str) -> None:
        self._images, self._name = images, name
        self.set_range(0, len(images))

    def __len__(self) -> int:
        return len(self._images)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Serve this part next."""
        self._next, self._end = start_index, end_index

    def get_next(self) -> dict[str, Images] | None:
        """The next image by input name, None after the last."""
        if self._next >= self._end:
            return None
        self._next += 1
        return {self._name: self._images[self._next - 1 : self._next]}


def quantize(task: Task) -> dict[str, Any]:
    """``options``: ``method`` (MinMax, Percentile, Entropy) and ``memory_gib``."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    graph = onnx.load(task.model).graph
    images, method = task.load_images(), task.options["method"]
    extra = {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "AddQDQPairToWeight": True,
        "QuantizeBias": False,
        "OpTypesToExcludeOutputQuantization": sorted({node.op_type for node in graph.node}),
        "QDQOpTypePerChannelSupportToAxis": {"Conv": 0, "Gemm": 0},
        "DedicatedQDQPair": False,
        "ForceQuantizeNoInputCheck": True,
        "QDQDisableWeightAdjustForInt32Bias": True,
    }
    needed_gib = len(images) * _activations(task) / 2**30
    strided = method != "MinMax" and needed_gib > task.options["memory_gib"]
    if strided:
        extra["CalibStridedMinMax"] = STRIDE
        images = images[: len(images) // STRIDE * STRIDE]
    quantize_static(
        task.model,
        task.output,
        _Images(images, graph.input[0].name),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=task.options.get("op_types"),
        nodes_to_exclude=normalisation(task.model),
        calibrate_method=CalibrationMethod[method],
        extra_options=extra,
    )
    return {"note": f"strided {STRIDE}, {needed_gib:.0f} GiB without"} if strided else {}


def _activations(task: Task) -> int:
    """Bytes of all float activations of one image, which a histogram calibrator keeps."""
    model = onnx.load(task.model)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = [[dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in inferred.value_info]
    return sum(4 * prod(shape) for shape in shapes)


if __name__ == "__main__":
    run(quantize, ["onnxruntime.quantization"])
