"""Where Q/DQ pairs are placed in a network of convolutions, and why. Does not know about ranges, scales or number formats.

TensorRT fuses Conv + Add + ReLU into one INT8 kernel only if the shortcut's input of the Add is quantized and the main branch is
not; one pair too many or too few makes INT8 slower than FP16 (NVIDIA's notes on quantizing residual networks). ONNX Runtime has
no such kernel and needs every edge quantized, so the form for the CPU adds the main branch, what is concatenated, and the
classifier. An operator whose placement was not thought through is refused by the name of its node.
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
    "BatchNormalization": "batch norm that follows no convolution of its own",
}
#: Operators of the normalisation, which are placed in front of the first convolution alone.
_FRONT = ("Cast", "Transpose", "Sub", "Mul", "Pad")
_LAYERS = (*_TENSORRT_REASONS, "Add", "BatchNormalization", "Concat", "Flatten", "Gemm", "Relu")
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
    """A graph's edges by tensor name. ``ranks``: number of dimensions of each constant."""

    nodes: dict[str, onnx.NodeProto]
    maker: dict[str, onnx.NodeProto]
    readers: dict[str, list[tuple[str, int]]]
    ranks: dict[str, int]


def tensorrt_pairs(model: onnx.ModelProto, keep: frozenset[str] = frozenset()) -> list[Pair]:
    """The pairs on activations that TensorRT fuses best, in graph order. The nodes in ``keep`` stay in high precision.

    Every input of a convolution; the input of every max pool, with the range of its output, so that it runs in INT8; that of an
    average pool on a shortcut, which shares the pair of the block's input; the
    shortcut's input of every residual Add (an identity shares the pair of the block's input); the input of the global average
    pool. What is concatenated gets no pair: TensorRT moves the pair of the result in front of it, with one scale for all parts.
    Raises CalibrationError for a network without a convolution, for a name in ``keep`` that no node has, and for a node that has
    no place in INT8.
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
    """``pairs`` and those that ONNX Runtime needs in addition: the main branch of each Add, each input of a Concat, and the
    classifier's input.

    Without them, its Adds and Concats and the convolutions before them run in float.
    """
    graph = _edges(model)
    by_tensor = {pair.tensor: pair for pair in pairs}
    completed = []
    for tensor, readers in graph.readers.items():
        pair = by_tensor.get(tensor, Pair(tensor, _cpu_range_of(graph, tensor), (), ""))
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
    constants = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    readers: dict[str, list[tuple[str, int]]] = {}
    for node in model.graph.node:
        for index, tensor in enumerate(node.input):
            if tensor not in constants:
                readers.setdefault(tensor, []).append((node.name, index))
    return _Graph(
        nodes={node.name: node for node in model.graph.node},
        maker={output: node for node in model.graph.node for output in node.output},
        readers=readers,
        ranks=constants,
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
    convolved: set[str] = set()  # tensors behind a convolution
    for node in graph.nodes.values():
        if node.op_type == "Conv" or convolved & set(node.input):
            convolved |= set(node.output)
        fault = _fault(graph, node, behind=bool(convolved & set(node.output)))
        if fault is not None:
            raise CalibrationError(
                f"node {node.name} ({node.op_type}) has no place in INT8{fault}",
                hint="edge-resnet build --fp16 or edge-resnet build --fp32 builds the network without INT8",
            )


def _fault(graph: _Graph, node: onnx.NodeProto, *, behind: bool) -> str | None:
    """Why a node cannot be placed, None if it can; ``behind``: it comes after a convolution or is one."""
    activations = [name for name in node.input if name and name not in graph.ranks]
    given = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type in _FRONT:
        return ": it comes after the first convolution" if behind else None if len(activations) == 1 else ": it joins two tensors"
    if node.op_type not in _LAYERS:
        return ""
    if node.op_type in ("Add", "Concat"):
        if len(activations) != len(node.input):
            return ": one of its inputs is a constant"
        return ": it does not join channels" if node.op_type == "Concat" and given["axis"].i not in (1, -3) else None
    if len(activations) != 1:
        return ": its weights are not constants"
    if node.op_type in ("Conv", "Gemm") and graph.ranks[node.input[1]] != (4 if node.op_type == "Conv" else 2):
        return ": its weights are not those of an image"
    usual = {"transB": 1, "transA": 0} if node.op_type == "Gemm" else {"axis": 1} if node.op_type == "Flatten" else {}
    return None if all(name not in given or given[name].i == value for name, value in usual.items()) else ": it has another form"


def _tensorrt_reason(graph: _Graph, tensor: str, name: str, index: int) -> str:
    """Why TensorRT needs the edge quantized; empty if it does not."""
    node = graph.nodes[name]
    if node.op_type == "Add":
        if index != _shortcut(graph, node):
            return ""
        maker = graph.maker.get(tensor)
        return "projection shortcut" if maker is not None and maker.op_type == "Conv" else "identity shortcut"
    return _TENSORRT_REASONS.get(node.op_type, "")


def _shortcut(graph: _Graph, add: onnx.NodeProto) -> int | None:
    """Which input of an Add is the shortcut; None if there is no convolution that TensorRT could fuse it with.

    The main branch ends with a convolution that nobody else reads. Where both do, the shortcut is the one with fewer convolutions
    between the block's input and it.
    """
    fusible = [
        name in graph.maker and graph.maker[name].op_type == "Conv" and len(graph.readers[name]) == 1 for name in add.input
    ]
    if not any(fusible):
        return None
    if not all(fusible):
        return fusible.index(False)
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
    node = graph.nodes[name]
    if node.op_type == "Add":
        return "main branch (CPU)"
    if node.op_type == "Concat":
        return "concatenated (CPU)"
    if node.op_type == "Flatten":  # one that no Gemm reads gives the logits, which are not quantized
        readers = [graph.nodes[reader].op_type for reader, _ in graph.readers.get(node.output[0], [])]
        return "classifier input (CPU)" if "Gemm" in readers else ""
    return "classifier input (CPU)" if node.op_type == "Gemm" and index == 0 else ""


def _range_of(graph: _Graph, tensor: str) -> str:
    """The tensor whose range is taken: the two sides of a MaxPool or a Flatten share one, so that these run on integers.

    A MaxPool's output holds the largest values of its input, not the smallest: where another node reads the input, it must come
    from a Relu.
    """
    shared, maker = tensor, graph.maker.get(tensor)
    readers = graph.readers[tensor]
    if len(readers) == 1 or (maker is not None and maker.op_type == "Relu"):
        for name, _ in readers:
            if graph.nodes[name].op_type == "MaxPool":
                shared = graph.nodes[name].output[0]
    if maker is not None and maker.op_type == "Flatten":
        shared = maker.input[0]
    return shared


def _cpu_range_of(graph: _Graph, tensor: str) -> str:
    """As ``_range_of``, for a pair of the CPU alone: what is concatenated takes the result's range, and is rounded only once."""
    readers = [graph.nodes[name] for name, _ in graph.readers[tensor]]
    if len(readers) != 1 or readers[0].op_type != "Concat":
        return _range_of(graph, tensor)
    joined = readers[0].output[0]
    edges = graph.readers.get(joined, [])
    if any(_tensorrt_reason(graph, joined, *edge) or _cpu_reason(graph, *edge) for edge in edges):
        return _cpu_range_of(graph, joined)
    return tensor


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
