"""placement.py: laws of the pairs for families, shortcuts and depths, and golden listings of eight networks."""

from __future__ import annotations

import difflib
from collections import Counter
from pathlib import Path

import onnx
import pytest
from exported import exported, exported_here, graph, small
from onnx import helper

from edge_resnet.compiler.graph.corrections import with_exact_input
from edge_resnet.compiler.graph.placement import Pair, placement_of, quantized_weights, tensorrt_pairs, with_cpu_pairs
from edge_resnet.core.errors import CalibrationError
from edge_resnet.core.records import ModelSpec

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
#: The pairs do not depend on the size of the images; small ones export faster.
RESNET18, RESNET50 = (ModelSpec("imagenet", depth, input_size=32) for depth in (18, 50))
CIFAR20A = ModelSpec("cifar", 20, "A", classes=10, input_size=16)
NETWORKS = {
    "resnet18": RESNET18,
    "resnet50": RESNET50,
    "cifar20a": CIFAR20A,
    "cifar8b": small("B"),
    "cifar8c": small("C"),
    "plain8": small(plain=True),
    "resnet18a": ModelSpec("imagenet", 18, "A", classes=10, input_size=32),
    "resnet18c": ModelSpec("imagenet", 18, "C", classes=10, input_size=32),
}
GOLDENS = {
    **{f"resnet{depth}": ModelSpec("imagenet", depth, input_size=32) for depth in (18, 34, 50, 101, 152)},
    "cifar20a": CIFAR20A,
    "cifar32a": ModelSpec("cifar", 32, "A", classes=10, input_size=16),
    "plain20": ModelSpec("cifar", 20, plain=True, classes=10, input_size=16),
}
#: ResNet-152 has 240 MB.
LARGE = ("resnet101", "resnet152")
Edge = tuple[str, int]


@pytest.fixture(params=NETWORKS, scope="module")
def network(request: pytest.FixtureRequest) -> onnx.ModelProto:
    """Each network's graph."""
    return graph(NETWORKS[request.param])


def edges(pairs: list[Pair]) -> list[Edge]:
    return [edge for pair in pairs for edge in pair.readers]


def nodes(model: onnx.ModelProto, *ops: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if not ops or node.op_type in ops]


def by_name(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {node.name: node for node in model.graph.node}


def maker(model: onnx.ModelProto, tensor: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if tensor in node.output)


def golden_text(name: str) -> str:
    """The listing of a network as its golden file holds it."""
    content = (exported_here if name in LARGE else exported)(GOLDENS[name])
    model = onnx.load_from_string(content)
    return "\n".join(placement_of(model).lines()) + "\n"


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in GOLDENS])
def test_the_listing_is_the_golden_one(name: str) -> None:
    """Every pair with its readers and reason, every weight and what stays in float are those of the reviewed file.

    A change shows as a diff; write the files anew with `PYTHONPATH=tests python tests/compiler/graph/test_placement.py`.
    """
    golden = GOLDEN / f"placement_{name}.txt"
    found, wanted = golden_text(name).splitlines(), golden.read_text(encoding="utf-8").splitlines()
    assert found == wanted, "\n".join(difflib.unified_diff(wanted, found, golden.name, "found", lineterm="", n=1))


def test_the_goldens_are_those_of_the_table() -> None:
    """No golden file is superfluous, and none is missing."""
    assert {path.stem.removeprefix("placement_") for path in GOLDEN.glob("placement_*.txt")} == set(GOLDENS)


def test_the_listing_counts_what_it_lists(network: onnx.ModelProto) -> None:
    """The numbers in the first line count the lines below, which are the pairs and weights of the placement."""
    shown = placement_of(network)
    assert list(shown.pairs) == tensorrt_pairs(network)
    assert [node for node, _ in shown.weights] == quantized_weights(network)
    assert set(shown.for_cpu) == set(with_cpu_pairs(network, list(shown.pairs))) - set(shown.pairs)
    lines = shown.lines()
    weights, activations = len(shown.weights), len(shown.pairs)
    assert lines[0] == f"{weights + activations} pairs: {weights} weights, {activations} activations"
    assert lines[1 : 1 + activations] == [str(pair) for pair in shown.pairs]
    assert lines[1 + activations].startswith("weights")
    assert lines[-1 - len(shown.for_cpu)] == f"{len(shown.for_cpu)} activations more for the CPU"


def test_every_node_is_in_the_listing_or_follows_a_kernel(network: onnx.ModelProto) -> None:
    """A node reads integers, or is in high precision for a reason, or is a kernel's Relu: none is missing or listed twice."""
    shown = placement_of(network)
    quantized = {name for name, _ in edges(list(shown.pairs))}
    floats = [name for names, _ in shown.high_precision for name in names]
    assert len(floats) == len(set(floats))
    assert quantized.isdisjoint(floats)
    assert {node.name for node in nodes(network, "Relu")} == by_name(network).keys() - quantized - set(floats)


def test_weights_are_listed_with_their_output_channels(network: onnx.ModelProto) -> None:
    """The number beside a weight is its first dimension, which is also its number of scales."""
    dims = {tensor.name: tensor.dims[0] for tensor in network.graph.initializer if tensor.dims}
    assert dict(placement_of(network).weights) == {node.name: dims[node.input[1]] for node in nodes(network, "Conv")}


def test_the_listing_says_what_the_recipe_keeps() -> None:
    """A kept node is not in the pairs and weights, and is listed alone with its reason."""
    shown = placement_of(graph(small()), frozenset(["layer2.0.conv2", "conv1"]))
    assert (("conv1", "layer2.0.conv2"), "kept by the recipe") in shown.high_precision
    assert {"conv1", "layer2.0.conv2"}.isdisjoint(node for node, _ in shown.weights)
    assert all("kept" not in reason for _, reason in placement_of(graph(small())).high_precision)


def test_an_exact_inputs_nodes_are_normalisation_too() -> None:
    """The padded and shifted image of an exact input stays in FP32 for the same reason as the normalised one."""
    shown = placement_of(with_exact_input(graph(small())))
    assert shown.high_precision[0][0] == ("cast", "transpose", "sub", "pad", "shift")
    assert shown.pairs[0].tensor == "shift"


def test_numbers_stand_before_the_lines_they_belong_to() -> None:
    """Ranges are in front of activations, scales in front of weights, and nothing else changes."""
    shown = placement_of(graph(small()))
    ranges = {pair.tensor: f"<{pair.tensor}>" for pair in (*shown.pairs, *shown.for_cpu)}
    scales = {node: f"[{node}]" for node, _ in shown.weights}
    plain, numbered = shown.lines(), shown.lines(ranges, scales)
    assert [
        line.removeprefix(f"<{line[1:].split('>')[0]}>  ") if line[0] == "<" else line for line in numbered if line[0] != "["
    ] == [line for line in plain if " channels" not in line]
    assert "[conv1]  conv1 : 16 channels" in numbered
    assert "<layer2.0.downsample.0>  layer2.0.downsample.0 -> layer2.0.add[1] : projection shortcut" in numbered


@pytest.mark.parametrize(("spec", "weights", "activations"), [(RESNET18, 20, 22), (RESNET50, 53, 55)], ids=["18", "50"])
def test_imagenet_networks_get_this_many_pairs(spec: ModelSpec, weights: int, activations: int) -> None:
    """ResNet-18 gets 20 + 22 pairs, as many as NVIDIA's Model Optimizer 0.47 puts on it at batch 1; ResNet-50 gets 53 + 55."""
    model = graph(spec)
    assert (len(quantized_weights(model)), len(tensorrt_pairs(model))) == (weights, activations)


def test_each_add_has_one_quantized_input_and_it_is_the_shortcut(network: onnx.ModelProto) -> None:
    """The input left in float is the output of the block's last convolution, so TensorRT fuses the Add into it."""
    quantized = edges(tensorrt_pairs(network))
    for add in nodes(network, "Add"):
        block = add.name.removesuffix(".add")
        last = max(node.name for node in nodes(network, "Conv") if node.name.startswith(f"{block}.conv"))
        float_inputs = [index for index in (0, 1) if (add.name, index) not in quantized]
        assert len(float_inputs) == 1
        assert maker(network, add.input[float_inputs[0]]).name == last


def test_the_order_of_an_adds_inputs_does_not_matter() -> None:
    """With the two inputs of every Add exchanged, the same tensors are quantized."""
    for spec in (small("A"), small("B"), small("C")):
        straight, swapped = graph(spec), graph(spec)
        for add in nodes(swapped, "Add"):
            add.input[:] = list(reversed(add.input))
        assert [pair.tensor for pair in tensorrt_pairs(swapped)] == [pair.tensor for pair in tensorrt_pairs(straight)]


def test_an_identity_shortcut_shares_the_pair_of_the_blocks_input(network: onnx.ModelProto) -> None:
    """If nothing is on the shortcut, one pair feeds the block's first convolution and the Add; its reason says so."""
    for pair in tensorrt_pairs(network):
        adds = [name for name, _ in pair.readers if by_name(network)[name].op_type == "Add"]
        if adds and "downsample" not in pair.tensor:
            block = adds[0].removesuffix(".add")
            assert f"{block}.conv1" in [name for name, _ in pair.readers]
            assert pair.reason == "conv input, identity shortcut"


@pytest.mark.parametrize(("option", "projections"), [("A", 2), ("B", 2), ("C", 3)])
def test_a_projection_is_quantized_at_its_output(option: str, projections: int) -> None:
    """Options B and C, and option A's fixed convolution, get their pair between the shortcut's convolution and the Add."""
    model = graph(small(option))
    shortcuts = [pair for pair in tensorrt_pairs(model) if pair.reason == "projection shortcut"]
    assert len(shortcuts) == projections
    for pair in shortcuts:
        assert maker(model, pair.tensor).op_type == "Conv"
        assert "downsample" in pair.tensor
        assert [by_name(model)[name].op_type for name, _ in pair.readers] == ["Add"]


def test_a_plain_network_has_no_add_and_no_shortcut() -> None:
    """The plain twin's pairs are the inputs of its convolutions and of its average pool, one each."""
    pairs = tensorrt_pairs(graph(small(plain=True)))
    assert Counter(pair.reason for pair in pairs) == {"conv input": 7, "last block's output": 1}


def test_nothing_stands_between_a_convolution_or_an_add_and_its_relu(network: onnx.ModelProto) -> None:
    """In both forms no Relu reads a dequantized tensor; TensorRT's pairs feed only Conv, MaxPool, Add and the average pool."""
    pairs = tensorrt_pairs(network)
    named = by_name(network)
    assert {named[name].op_type for name, _ in edges(pairs)} <= {"Conv", "MaxPool", "Add", "GlobalAveragePool"}
    assert "Relu" not in {named[name].op_type for name, _ in edges(with_cpu_pairs(network, pairs))}


def test_every_convolution_and_pool_reads_integers(network: onnx.ModelProto) -> None:
    """Each Conv's, MaxPool's and GlobalAveragePool's data input has a pair, and every Conv's weight too."""
    quantized = set(edges(tensorrt_pairs(network)))
    assert {(node.name, 0) for node in nodes(network, "Conv", "MaxPool", "GlobalAveragePool")} <= quantized
    assert quantized_weights(network) == [node.name for node in nodes(network, "Conv")]


def test_pairs_read_what_their_readers_read(network: onnx.ModelProto) -> None:
    """Each edge is one of the graph's, no edge and no tensor has two pairs, and the pairs follow the graph's order."""
    named = by_name(network)
    for pairs in (tensorrt_pairs(network), with_cpu_pairs(network, tensorrt_pairs(network))):
        assert all(named[name].input[index] == pair.tensor for pair in pairs for name, index in pair.readers)
        assert len(set(edges(pairs))) == len(edges(pairs))
        made = [output for node in network.graph.node for output in node.output]
        places = [made.index(pair.tensor) for pair in pairs]
        assert places == sorted(set(places))


def test_both_sides_of_a_max_pool_have_one_range() -> None:
    """The pool's input takes the range of its output, so that it runs on integers; every other tensor has its own range."""
    borrowed = {pair.tensor: pair.range_of for pair in tensorrt_pairs(graph(RESNET18)) if pair.range_of != pair.tensor}
    assert borrowed == {"relu": "maxpool"}


def test_the_cpu_form_adds_to_tensorrts_and_takes_nothing_away(network: onnx.ModelProto) -> None:
    """In addition to TensorRT's edges, both inputs of each Add and the classifier's input are quantized, and nothing else."""
    pairs = tensorrt_pairs(network)
    added = set(edges(with_cpu_pairs(network, pairs))) - set(edges(pairs))
    wanted = {(node.name, 0) for node in nodes(network, "Flatten", "Gemm")}
    wanted |= {(add.name, index) for add in nodes(network, "Add") for index in (0, 1)} - set(edges(pairs))
    assert added == wanted
    assert set(edges(pairs)) <= set(edges(with_cpu_pairs(network, pairs)))


@pytest.mark.parametrize("kept", ["conv1", "maxpool", "layer1.0.conv2", "layer1.0.add", "layer2.0.downsample.0", "avgpool", "fc"])
def test_a_node_kept_in_high_precision_loses_its_pairs_and_no_other_does(kept: str) -> None:
    """In both forms the edges into the named node and its weight are not quantized; every other edge still is."""
    model, keep = graph(RESNET18), frozenset([kept])
    everything, without = tensorrt_pairs(model), tensorrt_pairs(model, keep)
    assert set(edges(without)) == {edge for edge in edges(everything) if edge[0] != kept}
    on_cpu = set(edges(with_cpu_pairs(model, everything)))
    assert set(edges(with_cpu_pairs(model, without, keep))) == {edge for edge in on_cpu if edge[0] != kept}
    assert kept not in quantized_weights(model, keep, classifier=True)


def test_the_classifiers_weight_is_quantized_only_on_request() -> None:
    """TensorRT keeps the Gemm in float; the form for the CPU quantizes it."""
    model = graph(small())
    assert "fc" not in quantized_weights(model)
    assert quantized_weights(model, classifier=True) == [*quantized_weights(model), "fc"]


def test_a_name_that_no_node_has_is_refused() -> None:
    """The error names a misspelt node, even beside a correct one."""
    with pytest.raises(CalibrationError, match="layer9"):
        tensorrt_pairs(graph(small()), frozenset(["conv1", "layer9.0.conv1"]))


def test_a_network_without_a_convolution_is_refused() -> None:
    """It has nothing to quantize, and the hint says what to build instead."""
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    relu = helper.make_node("Relu", ["x"], ["y"], name="relu")
    with pytest.raises(CalibrationError, match="no convolution") as caught:
        tensorrt_pairs(helper.make_model(helper.make_graph([relu], "g", values[:1], values[1:])))
    assert "--fp16" in caught.value.hint


if __name__ == "__main__":
    for name in GOLDENS:
        (GOLDEN / f"placement_{name}.txt").write_text(golden_text(name), encoding="utf-8")
