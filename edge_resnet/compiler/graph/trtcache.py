"""Ranges → the calibration cache of TensorRT's implicit INT8, which its DLA needs. Knows nothing of Q/DQ, files or devices.

Up to TensorRT 10 a calibrator may read its scales from a text instead of measuring them: a header, then ``tensor: hex`` per line,
the scale amax / 127 as big-endian FP32. Tensors are named as in the ONNX file. TensorRT 11 has no calibrators.
TensorRT scales weights itself then, by each channel's largest: a learned rounding may be rounded once more.
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

#: Operators whose output has the range of their input where nothing was measured: it is the same values, or means of them.
_KEEPS_RANGE = ("MaxPool", "GlobalAveragePool", "Flatten")


def calibration_cache(model: onnx.ModelProto, table: CalibrationTable, tensorrt_version: str) -> str:
    """The cache for the FP32 graph ``model``, corrections included, and the TensorRT of that version, such as ``8.6.1``.

    A line for each tensor that was measured or has another's range: what a Relu reads that of the Relu, for TensorRT computes
    both at once; what a pool reads or writes that of its other side. None for the image before it is normalised and for the
    logits: they stay in float. Raises ConfigError for a version without calibrators, CalibrationError for another graph's table.
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
    """TensorRT's own number for a version: 8.6.1 → 8601, 10.3.0 → 100300."""
    found = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)(\.\d+)*", version)
    if found is None:
        raise ConfigError(f"{version!r} is no version of TensorRT", hint="for example 8.6.1 or 10.3.0: dpkg -l | grep nvinfer")
    major, minor, patch = (int(part) for part in found.groups()[:3])
    if major not in (8, 10):
        hint = "calibrators exist in TensorRT 8 and 10; TensorRT 11 takes the graph of --write-onnx"
        raise ConfigError(f"TensorRT {version} reads no calibration cache", hint=hint)
    return major * (1_000 if major == 8 else 10_000) + minor * 100 + patch


def _check(model: onnx.ModelProto, table: CalibrationTable) -> None:
    made = {output for node in model.graph.node for output in node.output}
    foreign = [name for name in table.amax if name not in made]
    missing = [pair.range_of for pair in tensorrt_pairs(model) if pair.range_of not in table.amax]
    hint = "build the artifact again"
    if foreign:
        raise CalibrationError(f"the calibration table is another graph's: this one has no {foreign[0]}", hint=hint)
    if missing:
        raise CalibrationError(f"the calibration table has no range for {missing[0]}", hint=hint)


def _hex(scale: float) -> str:
    return struct.pack(">f", max(scale, MIN_SCALE)).hex()
