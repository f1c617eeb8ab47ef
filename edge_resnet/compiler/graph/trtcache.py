"""Ranges → the calibration cache of TensorRT's implicit INT8, which the DLA needs. Does not know about Q/DQ, files or devices.

Up to TensorRT 10, a calibrator may read its scales from a text instead of measuring them: a header, then a line ``tensor: hex``
per tensor, with the scale amax / 127 as big-endian FP32. Tensors have their names in the ONNX file. TensorRT 11 has no
calibrators. TensorRT scales the weights itself, by the largest weight of each channel: a learned rounding may be rounded again.
"""

from __future__ import annotations

import re
import struct

import onnx

from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.compiler.graph.placement import tensorrt_pairs
from edge_resnet.compiler.graph.scales import MIN_SCALE
from edge_resnet.core.errors import CalibrationError, ConfigError

__all__ = ["calibration_cache"]

#: Operators whose output gets the range of their input if it was not measured: it holds the same values, or means of them.
_KEEPS_RANGE = ("MaxPool", "AveragePool", "GlobalAveragePool", "Flatten")


def calibration_cache(model: onnx.ModelProto, table: CalibrationTable, tensorrt_version: str) -> str:
    """The cache for the FP32 graph ``model``, corrections included, and the TensorRT of that version, such as ``8.6.1``.

    There is a line for each tensor that was measured or takes another tensor's range: the input of a Relu takes that of its
    output, because TensorRT computes both at once; the input and output of a pool share one. There is none for the image before
    it is normalised, nor for the logits, which stay in float. Raises ConfigError for a version without calibrators,
    CalibrationError for the table of another graph.
    """
    header = f"TRT-{_digits(tensorrt_version)}-EntropyCalibration2"
    _check(model, table)
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for tensor in node.input:
            readers.setdefault(tensor, []).append(node)
    amax = dict(table.amax)
    for node in reversed(model.graph.node):
        for reader in readers.get(node.output[0], []):
            if reader.op_type in ("Relu", "MaxPool") and reader.output[0] in amax:
                amax.setdefault(node.output[0], amax[reader.output[0]])
    for node in model.graph.node:
        if node.op_type in _KEEPS_RANGE and node.input[0] in amax:
            amax.setdefault(node.output[0], amax[node.input[0]])
    tensors = [output for node in model.graph.node for output in node.output if output in amax]
    return "\n".join([header, *(f"{tensor}: {_hex(amax[tensor] / 127)}" for tensor in tensors)]) + "\n"


def _digits(version: str) -> int:
    """TensorRT's number for a version: 8.6.1 → 8601, 10.3.0 → 100300."""
    found = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)(\.\d+)*", version)
    if found is None:
        raise ConfigError(f"{version!r} is not a version of TensorRT", hint="for example 8.6.1 or 10.3.0: dpkg -l | grep nvinfer")
    major, minor, patch = (int(part) for part in found.groups()[:3])
    if major not in (8, 10):
        hint = "TensorRT 8 and 10 have calibrators; TensorRT 11 takes the graph of --write-onnx"
        raise ConfigError(f"TensorRT {version} reads no calibration cache", hint=hint)
    return major * (1_000 if major == 8 else 10_000) + minor * 100 + patch


def _check(model: onnx.ModelProto, table: CalibrationTable) -> None:
    made = {output for node in model.graph.node for output in node.output}
    foreign = [name for name in table.amax if name not in made]
    missing = [pair.range_of for pair in tensorrt_pairs(model) if pair.range_of not in table.amax]
    hint = "build the artifact again"
    if foreign:
        raise CalibrationError(f"the calibration table belongs to another graph: this one has no {foreign[0]}", hint=hint)
    if missing:
        raise CalibrationError(f"the calibration table has no range for {missing[0]}", hint=hint)


def _hex(scale: float) -> str:
    return struct.pack(">f", max(scale, MIN_SCALE)).hex()
