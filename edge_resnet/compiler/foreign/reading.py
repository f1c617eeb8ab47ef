"""Reads an ONNX file that a stranger made, and refuses what is no FP32 classifier of one image. Changes nothing.

What it refuses it names: the input, the output or the node. Knows no rewriting.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from edge_resnet.artifact.graphcheck import OPERATORS
from edge_resnet.compiler.foreign.draft import named
from edge_resnet.core.errors import WeightsError
from edge_resnet.core.files import read_bounded
from edge_resnet.core.text import printable

__all__ = ["OnnxImage", "image_input", "read_onnx"]

#: The largest message of protobuf.
_MAX_BYTES = (1 << 31) - 1
#: DenseNet-201 has 700 nodes, EfficientNet-B7 1,100.
_MAX_NODES = 50_000
#: ONNX Runtime runs nothing older.
_OLDEST = 7
_DOMAINS = ("", "ai.onnx")
_FP32 = "export the network in FP32: model.float(), without quantization"
#: Operators that go before the graph is written: they compute shapes and constants, or nothing.
_DISSOLVED = ("ConstantOfShape", "Shape", "Size", "Gather", "Expand", "Tile", "Range", "Where", "Equal", "Dropout", "Sum")


@dataclass(frozen=True)
class OnnxImage:
    """The input of a graph. ``height``, ``width``: in pixels, None where any will do; ``batch``: None where any will do."""

    name: str
    batch: int | None
    height: int | None
    width: int | None


def read_onnx(path: Path) -> onnx.ModelProto:
    """The model in a file. Raises WeightsError where it cannot be read, or holds what is never built.

    That is: data in other files, int8 or FP16 inside, functions, subgraphs, operators of other domains or unknown ones, and
    weights that are not finite.
    """
    try:
        content = read_bounded(path, _MAX_BYTES, regular=True)
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(f"{path} cannot be read: {reason}", hint="name a file that torch.onnx.export wrote") from error
    try:
        model = onnx.load_model_from_string(content)
    except (DecodeError, ValueError) as error:
        raise WeightsError(f"{path} is no ONNX file", hint="name a file that torch.onnx.export wrote") from error
    refuse(model, str(path))
    return model


def refuse(model: onnx.ModelProto, where: str) -> None:
    """Raise WeightsError for the first fault of a model that ``read_onnx`` lists. ``where``: what the message names."""
    if not model.graph.node:
        raise WeightsError(f"{where} is no ONNX file, or holds no network", hint="name a file that torch.onnx.export wrote")
    for message, hint in _faults(model):
        raise WeightsError(printable(f"{where}: {message}"), hint=hint)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        reason = (str(error).strip().splitlines() or ["it is not valid"])[0]
        raise WeightsError(printable(f"{where}: onnx refuses it: {reason[:200]}"), hint="export the network again") from error


def image_input(model: onnx.ModelProto, where: str) -> OnnxImage:
    """The one input, an image of three channels in float32. Raises WeightsError for anything else, and for several outputs."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    for what, values in (("input", inputs), ("output", list(model.graph.output))):
        if len(values) != 1:
            names = ", ".join(value.name[:40] for value in values[:5]) or "none"
            hint = f"export a network with one {what}: the image in, a value per class out"
            raise WeightsError(printable(f"{where} has {len(values)} {what}s: {names}"), hint=hint)
    name, tensor = inputs[0].name, inputs[0].type.tensor_type
    shown = printable(f"{where}: the input {name[:60]}")
    if tensor.elem_type != TensorProto.FLOAT:
        kind = TensorProto.DataType.Name(tensor.elem_type).lower() if tensor.elem_type in TensorProto.DataType.values() else "?"
        raise WeightsError(f"{shown} is {kind}, not float", hint=_FP32)
    dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    if len(dims) != 4 or any(dim is not None and dim < 1 for dim in dims):
        raise WeightsError(f"{shown} has the shape {_shown(dims)}, not (N, 3, H, W)", hint="export it for images (N, 3, H, W)")
    if dims[1] != 3:
        last = "it seems to be (N, H, W, 3): export it with the channels first" if dims[3] == 3 else "one of three channels, RGB"
        raise WeightsError(f"{shown} has the shape {_shown(dims)}, not (N, 3, H, W)", hint=last)
    if dims[0] not in (None, 1):
        hint = "export it for one image or with a dynamic batch"
        raise WeightsError(f"{shown} has a fixed batch of {dims[0]} images", hint=hint)
    return OnnxImage(name, dims[0], dims[2], dims[3])


def _shown(dims: list[int | None]) -> str:
    return f"({', '.join('?' if dim is None else str(dim) for dim in dims)})"


def _faults(model: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    """What is wrong, and what to do about it."""
    versions = [entry.version for entry in model.opset_import if entry.domain in _DOMAINS]
    if len(versions) != 1:
        yield "it names no opset", "export the network again"
    elif not _OLDEST <= versions[0] <= onnx.defs.onnx_opset_version():
        newest = onnx.defs.onnx_opset_version()
        yield f"opset {versions[0]}: this onnx and ONNX Runtime read {_OLDEST} to {newest}", "export it with opset_version=17"
    if model.functions or model.training_info:
        yield "it holds functions or a training", "export the network alone, in evaluation mode"
    if len(model.graph.node) > _MAX_NODES:
        yield f"{len(model.graph.node)} nodes are more than {_MAX_NODES}", "export a classifier of images"
    if model.graph.sparse_initializer:
        yield "it holds sparse weights", "save dense weights"
    for tensor in model.graph.initializer:
        yield from _tensor_faults(tensor, printable(f"the weights {tensor.name[:60]}"))
    for node in model.graph.node:
        yield from _node_faults(node, versions[0])


def _node_faults(node: onnx.NodeProto, opset: int) -> Iterator[tuple[str, str]]:
    if node.domain not in _DOMAINS:
        yield f"node {named(node)} is an operator of {node.domain[:40]}", "export standard ONNX operators alone"
    elif "Quantize" in node.op_type or node.op_type.startswith("QLinear") or node.op_type.endswith("Integer"):
        yield f"it is quantized already, at node {named(node)}", f"{_FP32}; edge-resnet build --int8 quantizes it"
    elif not onnx.defs.has(node.op_type, max_inclusive_version=opset):
        yield f"opset {opset} has no operator like that of node {named(node)}", "export it with opset_version=17"
    elif node.op_type not in OPERATORS and node.op_type not in _DISSOLVED:
        yield f"node {named(node)} is an operator that edge-resnet does not build", "the docs list those that it does"
    for attribute in node.attribute:
        if attribute.g.node or attribute.graphs:
            yield f"node {named(node)} holds a subgraph", "export it without conditions and loops"
        for tensor in (*attribute.tensors, *([attribute.t] if attribute.HasField("t") else [])):
            yield from _tensor_faults(tensor, f"node {named(node)}")


def _tensor_faults(tensor: onnx.TensorProto, what: str) -> Iterator[tuple[str, str]]:
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        hint = "torch.onnx.export(…, external_data=False), or onnx.save(onnx.load(FILE), NEW) writes one file"
        yield f"{what}: the values are in another file, which is not read", hint
    elif tensor.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE):
        yield f"{what}: the type is {TensorProto.DataType.Name(tensor.data_type)}, not FLOAT", _FP32
    elif tensor.data_type == TensorProto.FLOAT:
        try:
            finite = bool(np.isfinite(numpy_helper.to_array(tensor)).all())
        except ValueError:
            yield f"{what}: the values do not have the shape {tuple(tensor.dims)}", "export the network again"
        else:
            if not finite:
                yield f"{what}: values are not finite numbers", "the training diverged; use another file"
