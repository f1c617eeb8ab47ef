"""INT8 of networks that are no ResNets: each form computes nearly FP32, the executor computes the form, and what has no place in
INT8 is refused by the name of its node."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import pytest
import torch
from exported import image_batch, logits
from foreignnets import NETWORKS, SIZE, graph_of, onnx_of
from onnx import helper

from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.compiler.foreign import wrap
from edge_resnet.compiler.graph.corrections import apply
from edge_resnet.compiler.graph.fp16 import to_fp16_typed
from edge_resnet.compiler.graph.placement import placement_of, tensorrt_pairs, with_cpu_pairs
from edge_resnet.compiler.graph.qdq import QdqForm, measured_tensors, quantize
from edge_resnet.core.errors import CalibrationError
from edge_resnet.core.records import Preprocess, QuantRecipe
from edge_resnet.quantization.calibrate import collect, table_from
from edge_resnet.quantization.equalize import channel_groups, equalize
from edge_resnet.quantization.executor import Executor

RECIPE = QuantRecipe(method="max", images=16)
IMAGES = image_batch(16, SIZE, seed=3)


@functools.cache
def _content(name: str) -> bytes:
    return wrap(onnx.load_model_from_string(onnx_of(name)), Preprocess(SIZE, SIZE), name).graph.SerializeToString()


def _graph(name: str) -> onnx.ModelProto:
    return onnx.load_model_from_string(_content(name))


def _table(graph: onnx.ModelProto) -> CalibrationTable:
    counted = collect(graph, measured_tensors(graph), [IMAGES], len(IMAGES))
    return table_from(counted.histograms, RECIPE, counted.images, "", "")


def _error(found: np.ndarray, wanted: np.ndarray) -> float:
    """Squared error relative to the variance."""
    return float(np.square(found - wanted).mean() / wanted.var())


@pytest.mark.parametrize("form", ["tensorrt", "u8s8", "u8s7"])
@pytest.mark.parametrize("name", NETWORKS)
def test_each_form_computes_nearly_fp32(name: str, form: QdqForm) -> None:
    """And the two for eight bits differ from each other no more than from FP32."""
    graph = _graph(name)
    quantized = quantize(graph, _table(graph), form)
    assert _error(logits(quantized, IMAGES), logits(graph, IMAGES)) < (0.02 if form == "u8s7" else 0.01)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_executor_computes_the_float_graph(name: str) -> None:
    """Dilations, pools without the padding, joined channels and batch norms among it."""
    graph = _graph(name)
    with torch.inference_mode():
        found = Executor(graph, tensorrt_pairs(graph)).run(torch.from_numpy(IMAGES)).numpy()
    assert found == pytest.approx(logits(graph, IMAGES), abs=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_equalization_changes_no_answer(name: str) -> None:
    """Groups that end at a join, a batch norm or a flattened map keep their channels as they are."""
    graph = _graph(name)
    groups = channel_groups(graph)
    channels = {tensor.name: tensor.dims for tensor in graph.graph.initializer}
    rng = np.random.default_rng(0)
    ranges = {
        tensor: rng.uniform(0.1, 2, channels[f"{group.writers[0]}.weight"][0]).astype(np.float32)
        for group in groups
        for tensor in group.tensors
    }
    found = logits(apply(graph, equalize(graph, ranges, 0.5, 0.5)), IMAGES)
    assert found == pytest.approx(logits(graph, IMAGES), abs=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_strongly_typed_graph_is_written(name: str) -> None:
    """TensorRT 11's form of the quantized graph passes onnx's full check."""
    graph = _graph(name)
    assert to_fp16_typed(quantize(graph, _table(graph), "tensorrt")).graph.node


def test_what_is_joined_has_one_scale() -> None:
    """TensorRT gets one pair behind the join; the CPU pairs in front of it too, with the same range: nothing is rounded twice."""
    graph = _graph("joined")
    pairs = tensorrt_pairs(graph)
    join = next(node for node in graph.graph.node if node.op_type == "Concat")
    joined = [pair for pair in pairs if pair.tensor == join.output[0]]
    assert len(joined) == 1
    assert not any(name == join.name for pair in pairs for name, _ in pair.readers)
    added = [pair for pair in with_cpu_pairs(graph, pairs) if any(name == join.name for name, _ in pair.readers)]
    assert len(added) == len(join.input)
    assert {pair.range_of for pair in added} == {join.output[0]}


def test_an_add_that_no_convolution_ends_in_stays_in_float() -> None:
    """A max pool plus an average pool: TensorRT has nothing to fuse it with."""
    graph = _graph("residual")
    read = {name for pair in tensorrt_pairs(graph) for name, _ in pair.readers}
    adds = [node for node in graph.graph.node if node.op_type == "Add"]
    makers = {output: node.op_type for node in graph.graph.node for output in node.output}
    for add in adds:
        assert (add.name in read) == ("Conv" in {makers[tensor] for tensor in add.input})


def test_the_logits_are_not_quantized() -> None:
    """Where a pool and a Flatten end the network, eight bits would make ties of its answers."""
    graph = _graph("joined")
    last = graph.graph.node[-1]
    assert last.op_type == "Flatten"
    for pairs in (tensorrt_pairs(graph), with_cpu_pairs(graph, tensorrt_pairs(graph))):
        assert not any(pair.tensor == last.input[0] for pair in pairs)


def test_every_node_is_listed() -> None:
    """inspect --quantization shows it: quantized, or in high precision with a reason."""
    placed = placement_of(_graph("dense"))
    assert any("batch norm" in reason for _, reason in placed.high_precision)


_CONV = [helper.make_node("Conv", ["image", "w"], ["a"], name="conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1])]
_END = [helper.make_node("GlobalAveragePool", ["b"], ["c"], name="gap")]


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("LRN", ["a"], ["b"], name="odd", size=3),
        helper.make_node("Sigmoid", ["a"], ["b"], name="odd"),
        helper.make_node("LeakyRelu", ["a"], ["b"], name="odd"),
        helper.make_node("Mul", ["a", "a"], ["b"], name="odd"),
        helper.make_node("Sub", ["a", "m"], ["b"], name="odd"),
        helper.make_node("Transpose", ["a"], ["b"], name="odd", perm=[0, 1, 3, 2]),
        helper.make_node("Concat", ["a", "a"], ["b"], name="odd", axis=2),
        helper.make_node("Add", ["a", "m"], ["b"], name="odd"),
    ],
    ids=lambda node: node.op_type,
)
def test_what_has_no_place_in_int8(node: onnx.NodeProto) -> None:
    """It is refused by the name of its node, and builds in FP32."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(4, 3, 3, 3)).astype(np.float32), "m": rng.normal(size=(1, 4, 1, SIZE)).astype(np.float32)}
    made = wrap(graph_of([*_CONV, node, *_END], "c", weights), Preprocess(SIZE, SIZE), "it")
    with pytest.raises(CalibrationError, match=rf"node odd \({node.op_type}\) has no place in INT8") as error:
        tensorrt_pairs(made.graph)
    assert "--fp32" in error.value.hint
