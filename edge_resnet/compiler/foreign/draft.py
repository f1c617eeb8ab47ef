"""A graph while it is being rewritten: nodes in order, constants as arrays, one input and one output. Knows no rewriting."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_resnet.core.text import printable

__all__ = ["Array", "Draft", "Shape", "attributes", "named"]

Array: TypeAlias = npt.NDArray[np.generic]
#: One image's: the first dimension is 1.
Shape: TypeAlias = tuple[int, ...]

#: Constants up to this number of elements may be shapes or axes, whose values shape inference and conversion read.
_SMALL = 64


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes by name."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def named(node: onnx.NodeProto) -> str:
    """How messages name a node: by its name, or by what it makes where it has none."""
    name = node.name or f"that makes {next(iter(node.output), '')}"
    return printable(f"{name[:100]} ({node.op_type[:40]})")


@dataclass
class Draft:
    """``nodes`` are in order; ``constants`` are by tensor name; ``input`` has the shape ``image``, ``output`` any."""

    nodes: list[onnx.NodeProto]
    constants: dict[str, Array]
    input: str
    image: Shape
    output: str
    opset: int
    changes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, model: onnx.ModelProto, name: str, image: Shape) -> Draft:
        """A copy of a checked model, whose input ``name`` takes one image of the shape ``image``."""
        nodes = []
        for node in model.graph.node:
            nodes.append(onnx.NodeProto())
            nodes[-1].CopyFrom(node)
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        return cls(nodes, constants, name, image, model.graph.output[0].name, opset)

    def maker(self, tensor: str) -> onnx.NodeProto | None:
        """The node that makes a tensor; None for the input and for constants."""
        return next((node for node in self.nodes if tensor in node.output), None)

    def readers(self, tensor: str) -> list[onnx.NodeProto]:
        """The nodes that read a tensor, in order."""
        return [node for node in self.nodes if tensor in node.input]

    def is_private(self, tensor: str) -> bool:
        """Whether one node alone reads the tensor, and it is not the output."""
        return tensor != self.output and sum(list(node.input).count(tensor) for node in self.nodes) == 1

    def remove(self, node: onnx.NodeProto, becomes: str) -> None:
        """Take a node out; who read its first output reads ``becomes``."""
        self.nodes.remove(node)
        self.redirect(node.output[0], becomes)

    def redirect(self, tensor: str, to: str) -> None:
        """Whoever reads ``tensor`` reads ``to`` instead."""
        for node in self.nodes:
            for index, name in enumerate(node.input):
                if name == tensor:
                    node.input[index] = to
        if self.output == tensor:
            self.output = to

    def replace(self, node: onnx.NodeProto, new: Iterable[onnx.NodeProto]) -> None:
        """Put other nodes in a node's place; the last of them makes what it made."""
        place = self.nodes.index(node)
        self.nodes[place : place + 1] = list(new)

    def constant(self, wish: str, value: Array) -> str:
        """Store a constant under a name like ``wish`` that is free, and return the name."""
        taken, name, count = self._names(), wish, 2
        while name in taken:
            name, count = f"{wish}_{count}", count + 1
        self.constants[name] = value
        return name

    def fresh(self, wish: str) -> str:
        """A name like ``wish`` that no tensor has."""
        taken, name, count = self._names(), wish, 2
        while name in taken:
            name, count = f"{wish}_{count}", count + 1
        return name

    def prune(self) -> None:
        """Drop the nodes that nobody reads, then the constants."""
        wanted, kept = {self.output}, []
        for node in reversed(self.nodes):
            if wanted & set(node.output):
                kept.append(node)
                wanted.update(node.input)
        self.nodes = kept[::-1]
        self.constants = {name: value for name, value in self.constants.items() if name in wanted}

    def shapes(self) -> dict[str, Shape]:
        """The shapes of the tensors for one image, where inference knows the whole shape."""
        graph = onnx.shape_inference.infer_shapes(self.light()).graph
        known: dict[str, Shape] = {name: value.shape for name, value in self.constants.items()}
        for value in (*graph.input, *graph.value_info, *graph.output):
            tensor = value.type.tensor_type
            if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
                known.setdefault(value.name, tuple(dim.dim_value for dim in tensor.shape.dim))
        return known

    def light(self) -> onnx.ModelProto:
        """The graph for one image with only the shapes of larger constants: libraries would copy the weights several times."""
        inputs = [helper.make_tensor_value_info(self.input, TensorProto.FLOAT, self.image)]
        small = []
        for name, value in self.constants.items():
            if value.size > _SMALL:
                inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape))
            else:
                small.append(numpy_helper.from_array(value, name))
        return self._model(inputs, small)

    def whole(self) -> onnx.ModelProto:
        """The graph with all its constants, for one image."""
        inputs = [helper.make_tensor_value_info(self.input, TensorProto.FLOAT, self.image)]
        return self._model(inputs, [numpy_helper.from_array(value, name) for name, value in self.constants.items()])

    def _model(self, inputs: list[onnx.ValueInfoProto], constants: list[onnx.TensorProto]) -> onnx.ModelProto:
        outputs = [helper.make_tensor_value_info(self.output, TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, "network", inputs, outputs, constants)
        opsets = [helper.make_opsetid("", self.opset)]
        version = helper.find_min_ir_version_for(opsets)
        return helper.make_model(graph, opset_imports=opsets, ir_version=max(version, 8))

    def _names(self) -> set[str]:
        return {self.input, *self.constants, *(name for node in self.nodes for name in (*node.input, *node.output))}
