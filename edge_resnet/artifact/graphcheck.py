"""What a graph of an artifact may contain, checked on the bytes of its ONNX file; a device has no onnx.

An inference library runs what a file says: a Loop without an end, weights from another file, an operator that fills the memory.
None of them occurs in a network that edge-resnet writes. Reads protobuf's wire format (protobuf.dev, "Encoding"), and of ONNX the
numbers of fields in onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from edge_resnet.core.errors import ArtifactError
from edge_resnet.core.files import read_bounded

__all__ = ["INPUT", "OPERATORS", "OPSET", "OUTPUT", "check_graph"]

#: Names of a graph's input and output.
INPUT, OUTPUT = "images", "logits"
#: The newest opset that TensorRT 8.6 reads.
OPSET = 17
#: The operators of the exported networks, of their Q/DQ forms, those by which torch versions write the same layers, and those of
#: other classifiers. None of them makes a tensor of a size that the graph does not show.
OPERATORS = frozenset(
    ("Abs", "Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "Conv", "DepthToSpace",
     "DequantizeLinear", "Div", "Elu", "Erf", "Exp", "Flatten", "Gemm", "GlobalAveragePool", "GlobalMaxPool",
     "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization", "LRN", "LayerNormalization", "LeakyRelu", "MatMul",
     "Max", "MaxPool", "Min", "Mul", "Neg", "PRelu", "Pad", "Pow", "QuantizeLinear", "Reciprocal", "ReduceMean", "Relu",
     "Reshape", "Selu", "Sigmoid", "Slice", "Softmax", "Softplus", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub",
     "Tanh", "Transpose", "Unsqueeze")
)  # fmt: skip
_DOMAINS = ("", "ai.onnx")
#: The largest message of protobuf.
_MAX_BYTES = (1 << 31) - 1
#: The CIFAR network of 1202 layers has 170,000 in its Q/DQ form; a file of nothing but small fields would take minutes.
_MAX_FIELDS = 300_000
#: Types of TensorProto whose values may be NaN or infinite, as numpy reads them.
_FLOATS = {1: "<f4", 10: "<f2", 11: "<f8"}
_HINT = "copy the artifact again, or build it again"

_Bytes: TypeAlias = "memoryview[int]"


class _Malformed(Exception):  # noqa: N818 - it never leaves this module
    """The bytes are not the protobuf message they should be."""


def check_graph(path: Path) -> None:
    """Refuse a graph with anything but the layers of a classifier in it.

    Refused are: a file that is cut off, operators beyond ``OPERATORS``, subgraphs (Loop, If, Scan), functions, tensors outside
    the file, and weights that are NaN or infinite: integer arithmetic would make zeros of them, and of every image the first
    class. Raises ArtifactError.
    """
    try:
        fault = _Graph().fault(memoryview(read_bounded(path, _MAX_BYTES, regular=True)))
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror or error}", hint=_HINT) from error
    except _Malformed as error:
        raise ArtifactError(f"{path} is cut off or not an ONNX graph", hint=_HINT) from error
    if fault:
        raise ArtifactError(f"{path} is no network of edge-resnet: {fault}", hint="do not use this artifact")


@dataclass
class _Graph:
    """Walks over one file. Each method returns the first fault, or an empty text."""

    fields: int = 0
    nodes: int = 0

    def fault(self, model: _Bytes) -> str:
        for number, value in self._messages(model):
            if number in (20, 25):
                return "it holds functions or a training"
            if number == 7 and (found := self._graph(value)):
                return found
        if not self.nodes:
            raise _Malformed
        return ""

    def _graph(self, graph: _Bytes) -> str:
        for number, value in self._messages(graph):
            found = ""
            if number == 1:
                found = self._node(value)
            elif number == 5:
                found = self._tensor(value)
            elif number == 15:
                found = "it holds sparse weights"
            if found:
                return found
        return ""

    def _node(self, node: _Bytes) -> str:
        self.nodes += 1
        operators = []
        for number, value in self._messages(node):
            if number == 4:
                operators.append(bytes(value[:40]).decode("utf-8", "replace"))
            elif number == 7 and (domain := bytes(value[:40]).decode("utf-8", "replace")) not in _DOMAINS:
                return f"it uses operators of {domain!r}"
            elif number == 5 and (found := self._attribute(value)):
                return found
        if len(operators) != 1 or operators[0] not in OPERATORS:
            return f"it uses the operator {operators[-1] if operators else ''!r}"
        return ""

    def _attribute(self, attribute: _Bytes) -> str:
        for number, value in self._messages(attribute):
            if number in (6, 11):
                return "it holds a subgraph, as of a loop"
            if number in (22, 23):
                return "it holds sparse weights"
            if number in (5, 10) and (found := self._tensor(value)):
                return found
        return ""

    def _tensor(self, tensor: _Bytes) -> str:
        dtype, values = 0, []
        for number, value in self._fields(tensor):
            if number == 13 or (number == 14 and value != 0):
                return "it holds weights outside the file"
            if number == 2 and isinstance(value, int):
                dtype = value
            elif number in (4, 9, 10) and not isinstance(value, int):
                values.append((number, value))
        for number, value in values:
            kind = {4: "<f4", 9: _FLOATS.get(dtype), 10: "<f8"}[number]
            if kind is not None:
                if len(value) % np.dtype(kind).itemsize:
                    raise _Malformed
                if not np.isfinite(np.frombuffer(value, kind)).all():
                    return "its weights are not finite numbers"
        return ""

    def _messages(self, message: _Bytes) -> Iterator[tuple[int, _Bytes]]:
        for number, value in self._fields(message):
            if not isinstance(value, int):
                yield number, value

    def _fields(self, message: _Bytes) -> Iterator[tuple[int, int | _Bytes]]:
        """Number and value of each field: an int, or the bytes of a text, a message or a packed list."""
        place, end = 0, len(message)
        while place < end:
            self.fields += 1
            if self.fields > _MAX_FIELDS:
                raise _Malformed
            key, place = _varint(message, place)
            number, wire = key >> 3, key & 7
            if wire == 0:
                value, place = _varint(message, place)
                yield number, value
                continue
            if wire == 2:
                size, place = _varint(message, place)
            elif wire in (1, 5):
                size = 8 if wire == 1 else 4
            else:
                raise _Malformed
            if number == 0 or size > end - place:
                raise _Malformed
            yield number, message[place : place + size]
            place += size


def _varint(message: _Bytes, place: int) -> tuple[int, int]:
    """An integer of seven bits a byte, and the place after it."""
    if place < len(message) and message[place] < 0x80:
        return message[place], place + 1
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise _Malformed
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise _Malformed
