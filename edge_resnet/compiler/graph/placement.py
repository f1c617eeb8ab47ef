"""Where Q/DQ pairs are placed in a residual network, and why. Does not know about ranges, scales or number formats.

TensorRT fuses Conv + Add + ReLU into one INT8 kernel only if the shortcut's input of the Add is quantized and the main branch is
not; one pair too many or too few makes INT8 slower than FP16 (NVIDIA's notes on quantizing residual networks). ONNX Runtime has
no such kernel and needs every edge quantized, so the form for the CPU adds the main branch and the classifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import onnx

from edge_resnet.core.errors import CalibrationError

__all__ = ["Pair", "Placement", "placement_of", "quantized_weights", "tensorrt_pairs", "with_cpu_pairs"]

_TENSORRT_REASONS = {
    "Conv": "conv input",
    "MaxPool": "pool input",
    "AveragePool": "pool input",
    "GlobalAveragePool": "last block's output",
}
_NORMALISATION = "the image is normalised in FP32: pixels and means are exact there"
_CLASSIFIER = "classifier, float as NVIDIA's Model Optimizer leaves it at batch 1"
#: Why a node that reads no Q/DQ pair stays in float. A Relu or an Add is computed by the kernel of the convolution before it.
_FLOAT_REASONS = {
    **dict.fromkeys(("Cast", "Transpose", "Sub", "Mul", "Pad"), _NORMALISATION),
    **dict.fromkeys(("Flatten", "Gemm"), _CLASSIFIER),
}
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Pair:
    """The Q/DQ pair on one activation. ``tensor``: what is quantized. ``range_of``: the tensor whose range it takes. ``readers``:
    the edges (node, input index) that read the dequantized values. ``reason``: why the pair is there."""

    tensor: str
    range_of: str
    readers: tuple[tuple[str, int], ...]
    reason: str

    def __str__(self) -> str:
        measured = "" if self.range_of == self.tensor else f" (range of {self.range_of})"
        readers = ", ".join(f"{name}[{index}]" for name, index in self.readers)
        return f"{self.tensor}{measured} -> {readers} : {self.reason}"


@dataclass(frozen=True)
class Placement:
    """The whole placement. ``pairs``: TensorRT's pairs on activations. ``weights``: (node, output channels) of quantized weights.
    ``high_precision``: (nodes, reason). ``for_cpu``: the pairs that the form for the CPU adds, or that more nodes read there."""

    pairs: tuple[Pair, ...]
    weights: tuple[tuple[str, int], ...]
    high_precision: tuple[tuple[tuple[str, ...], str], ...]
    for_cpu: tuple[Pair, ...]

    def lines(self, ranges: Mapping[str, str] = _NOTHING, scales: Mapping[str, str] = _NOTHING) -> list[str]:
        """The listing: a line per pair, per weight and per reason to stay in float, each part under a title.

        ``ranges``: tensor → text in front of its line. ``scales``: node → text in front of its line.
        """
        return [
            f"{len(self.pairs) + len(self.weights)} pairs: {len(self.weights)} weights, {len(self.pairs)} activations",
            *(_before(ranges, pair.tensor, str(pair)) for pair in self.pairs),
            "weights, a scale per output channel",
            *(_before(scales, node, f"{node} : {channels} channels") for node, channels in self.weights),
            "in high precision",
            *(f"{', '.join(nodes)} : {reason}" for nodes, reason in self.high_precision),
            "every bias : it is added to sums of 32 bits",
            f"{len(self.for_cpu)} activations more for the CPU",
            *(_before(ranges, pair.tensor, str(pair)) for pair in self.for_cpu),
        ]


@dataclass(frozen=True)
class _Graph:
    """A graph's edges by tensor name."""

    nodes: dict[str, onnx.NodeProto]
    maker: dict[str, onnx.NodeProto]
    readers: dict[str, list[tuple[str, int]]]


def tensorrt_pairs(model: onnx.ModelProto, keep: frozenset[str] = frozenset()) -> list[Pair]:
    """The pairs on activations that TensorRT fuses best, in graph order. The nodes in ``keep`` stay in high precision.

    Every input of a convolution; the input of every max pool, with the range of its output, so that it runs in INT8; that of an
    average pool on a shortcut, which shares the pair of the block's input; the
    shortcut's input of every residual Add (an identity shares the pair of the block's input); the input of the global average
    pool. Raises CalibrationError for a network without a convolution, and for a name in ``keep`` that no node has.
    """
    graph = _edges(model)
    _check(graph, keep)
    pairs = []
    for tensor, readers in graph.readers.items():
        wanted = [(edge, _tensorrt_reason(graph, tensor, *edge)) for edge in readers if edge[0] not in keep]
        reasons = {edge: reason for edge, reason in wanted if reason}
        if reasons:
            pairs.append(Pair(tensor, _range_of(graph, tensor), tuple(reasons), ", ".join(dict.fromkeys(reasons.values()))))
    return pairs


def with_cpu_pairs(model: onnx.ModelProto, pairs: list[Pair], keep: frozenset[str] = frozenset()) -> list[Pair]:
    """``pairs`` and those that ONNX Runtime needs in addition: the main branch of each Add, and the classifier's input.

    Without them, its residual Adds and the convolutions before them run in float.
    """
    graph = _edges(model)
    by_tensor = {pair.tensor: pair for pair in pairs}
    completed = []
    for tensor, readers in graph.readers.items():
        pair = by_tensor.get(tensor, Pair(tensor, _range_of(graph, tensor), (), ""))
        open_edges = [edge for edge in readers if edge[0] not in keep and edge not in pair.readers]
        extra = {edge: reason for edge in open_edges if (reason := _cpu_reason(graph, *edge))}
        if pair.readers or extra:
            reasons = dict.fromkeys(filter(None, (pair.reason, *extra.values())))
            completed.append(Pair(tensor, pair.range_of, (*pair.readers, *extra), ", ".join(reasons)))
    return completed


def quantized_weights(model: onnx.ModelProto, keep: frozenset[str] = frozenset(), *, classifier: bool = False) -> list[str]:
    """Names of the nodes whose weights are quantized: every convolution, and the Gemm if ``classifier``."""
    ops = ("Conv", "Gemm") if classifier else ("Conv",)
    return [node.name for node in model.graph.node if node.op_type in ops and node.name not in keep]


def placement_of(model: onnx.ModelProto, keep: frozenset[str] = frozenset()) -> Placement:
    """The whole placement of a graph, as inspect prints it and the golden files hold it. Raises what tensorrt_pairs raises."""
    pairs = tensorrt_pairs(model, keep)
    channels = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer if tensor.dims}
    names = set(quantized_weights(model, keep))
    return Placement(
        pairs=tuple(pairs),
        weights=tuple((node.name, channels[node.input[1]]) for node in model.graph.node if node.name in names),
        high_precision=_high_precision(model, pairs, keep),
        for_cpu=tuple(pair for pair in with_cpu_pairs(model, pairs, keep) if pair not in pairs),
    )


def _edges(model: onnx.ModelProto) -> _Graph:
    constants = {tensor.name for tensor in model.graph.initializer}
    readers: dict[str, list[tuple[str, int]]] = {}
    for node in model.graph.node:
        for index, tensor in enumerate(node.input):
            if tensor not in constants:
                readers.setdefault(tensor, []).append((node.name, index))
    return _Graph(
        nodes={node.name: node for node in model.graph.node},
        maker={output: node for node in model.graph.node for output in node.output},
        readers=readers,
    )


def _check(graph: _Graph, keep: frozenset[str]) -> None:
    if not any(node.op_type == "Conv" for node in graph.nodes.values()):
        raise CalibrationError(
            "the network has no convolution to quantize",
            hint="edge-resnet build --fp32 or edge-resnet build --fp16 quantizes nothing",
        )
    unknown = sorted(keep - graph.nodes.keys())
    if unknown:
        raise CalibrationError(
            f"no node of the network is named {unknown[0]}", hint="edge-resnet inspect --quantization lists the names"
        )


def _tensorrt_reason(graph: _Graph, tensor: str, name: str, index: int) -> str:
    """Why TensorRT needs the edge quantized; empty if it does not."""
    node = graph.nodes[name]
    if node.op_type == "Add":
        if index != _shortcut(graph, node):
            return ""
        return "projection shortcut" if graph.maker[tensor].op_type == "Conv" else "identity shortcut"
    return _TENSORRT_REASONS.get(node.op_type, "")


def _shortcut(graph: _Graph, add: onnx.NodeProto) -> int:
    """Which input of a residual Add is the shortcut: the one with fewer convolutions between the block's input and it."""
    left, right = (_convolutions_back(graph, tensor) for tensor in add.input)
    return 0 if left < right else 1


def _convolutions_back(graph: _Graph, tensor: str) -> int:
    """Number of convolutions between the block's input, which two nodes read, and ``tensor``."""
    count = 0
    while len(graph.readers[tensor]) == 1 and tensor in graph.maker:
        node = graph.maker[tensor]
        count += node.op_type == "Conv"
        tensor = node.input[0]
    return count


def _cpu_reason(graph: _Graph, name: str, index: int) -> str:
    """Why ONNX Runtime needs an edge quantized that TensorRT keeps in float; empty if it does not."""
    op = graph.nodes[name].op_type
    if op == "Add":
        return "main branch (CPU)"
    return "classifier input (CPU)" if op == "Flatten" or (op == "Gemm" and index == 0) else ""


def _range_of(graph: _Graph, tensor: str) -> str:
    """The tensor whose range is taken: the two sides of a MaxPool or a Flatten share one, so that these run on integers."""
    shared = tensor
    for name, _ in graph.readers[tensor]:
        if graph.nodes[name].op_type == "MaxPool":
            shared = graph.nodes[name].output[0]
    if tensor in graph.maker and graph.maker[tensor].op_type == "Flatten":
        shared = graph.maker[tensor].input[0]
    return shared


def _high_precision(model: onnx.ModelProto, pairs: list[Pair], keep: frozenset[str]) -> tuple[tuple[tuple[str, ...], str], ...]:
    """The nodes that stay in float, grouped by reason."""
    quantized = {name for pair in pairs for name, _ in pair.readers}
    by_reason: dict[str, list[str]] = {}
    for node in model.graph.node:
        if node.name in keep:
            by_reason.setdefault("kept by the recipe", []).append(node.name)
        elif node.name not in quantized and node.op_type in _FLOAT_REASONS:
            by_reason.setdefault(_FLOAT_REASONS[node.op_type], []).append(node.name)
    return tuple((tuple(nodes), reason) for reason, nodes in by_reason.items())


def _before(numbers: Mapping[str, str], name: str, text: str) -> str:
    return f"{numbers[name]}  {text}" if numbers else text
