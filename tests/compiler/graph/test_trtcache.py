"""trtcache.py: the cache's header and lines, read back; which range each tensor has; what is refused."""

from __future__ import annotations

import functools
import struct
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from exported import graph, image_batch, small
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.compiler.graph.corrections import EXACT_AMAX, with_exact_input
from edge_resnet.compiler.graph.placement import tensorrt_pairs
from edge_resnet.compiler.graph.qdq import measured_tensors
from edge_resnet.compiler.graph.trtcache import calibration_cache
from edge_resnet.core.errors import CalibrationError, ConfigError
from edge_resnet.core.records import ModelSpec, QuantRecipe
from edge_resnet.quantization.calibrate import calibrate

NETWORKS = {
    "A": small("A"),
    "B": small("B"),
    "C": small("C"),
    "plain": small(plain=True),
    "resnet18": ModelSpec("imagenet", 18, classes=10, input_size=32),
}


@functools.cache
def table_of(spec: ModelSpec, *, exact: bool = False) -> CalibrationTable:
    """The ranges of a network over 8 smooth images, nothing clipped."""
    model = with_exact_input(graph(spec)) if exact else graph(spec)
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, Path(folder) / "model.onnx")
        recipe = QuantRecipe(method="max", images=8)
        return calibrate(Path(folder) / "model.onnx", measured_tensors(model), [image_batch(8, spec.input_size)], recipe)


@pytest.fixture(params=NETWORKS, scope="module")
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    """Every network."""
    return NETWORKS[request.param]


def read(cache: str) -> tuple[str, dict[str, float]]:
    """Header and scale by tensor, as ``struct.unpack('!f', bytes.fromhex(…))`` reads them; each tensor once, in order."""
    header, *lines = cache.splitlines()
    pairs = [line.rsplit(": ", 1) for line in lines]
    scales = {tensor: struct.unpack("!f", bytes.fromhex(text))[0] for tensor, text in pairs}
    assert len(scales) == len(lines)
    assert all(len(text) == 8 for _, text in pairs)
    assert cache.endswith("\n")
    return header, scales


def scales_of(model: onnx.ModelProto, table: CalibrationTable) -> dict[str, float]:
    return read(calibration_cache(model, table, "8.6.1"))[1]


@pytest.mark.parametrize(
    ("version", "digits"),
    [
        ("8.5.2", "8502"), ("8.6.1", "8601"), ("8.6.1.6", "8601"), ("8.6.2", "8602"),
        ("10.0.1", "100001"), ("10.3.0", "100300"), ("10.7.0.23", "100700"), ("10.16.1", "101601"),
    ],
)  # fmt: skip
def test_the_header_is_the_versions_number(version: str, digits: str) -> None:
    """Major * 1000 in TensorRT 8 and * 10000 in 10, then minor * 100 and patch; a build number is left out."""
    header, _ = read(calibration_cache(graph(small()), table_of(small()), version))
    assert header == f"TRT-{digits}-EntropyCalibration2"


@pytest.mark.parametrize("version", ["11.0.0", "11.4.1.2", "9.3.0", "7.2.3", "12.0.0"])
def test_a_version_without_calibrators_is_refused(version: str) -> None:
    """The error names the version, and the hint the form that this TensorRT takes."""
    with pytest.raises(ConfigError, match=version.replace(".", r"\.")) as caught:
        calibration_cache(graph(small()), table_of(small()), version)
    assert "--write-onnx" in caught.value.hint


@pytest.mark.parametrize("version", ["", "8", "8.6", "8.6.x", "v8.6.1", "8.6.1-1+cuda12", "8.6.1.", "eight"])
def test_what_is_no_version_is_refused(version: str) -> None:
    """A version without its patch number would give a header that TensorRT ignores silently."""
    with pytest.raises(ConfigError, match="not a version of TensorRT") as caught:
        calibration_cache(graph(small()), table_of(small()), version)
    assert "8.6.1" in caught.value.hint


def test_measured_tensors_have_their_range(spec: ModelSpec) -> None:
    """The scale read back is the table's amax / 127 in FP32."""
    scales = scales_of(graph(spec), table_of(spec))
    for tensor, amax in table_of(spec).amax.items():
        assert scales[tensor] == np.float32(amax / 127)


def test_every_tensor_from_the_normalised_image_to_the_logits_has_a_line(spec: ModelSpec) -> None:
    """All but the image before its last normalisation and the logits, in graph order."""
    model = graph(spec)
    made = [output for node in model.graph.node for output in node.output]
    assert made[:4] == ["cast", "transpose", "sub", "mul"]
    assert list(scales_of(model, table_of(spec))) == made[3:-1]


def test_what_a_relu_reads_has_the_relus_range(spec: ModelSpec) -> None:
    """Convolution and Relu, Add and Relu are one kernel: both tensors share one range, the one after the Relu."""
    model = graph(spec)
    scales = scales_of(model, table_of(spec))
    relus = [node for node in model.graph.node if node.op_type == "Relu"]
    assert relus
    assert all(scales[node.input[0]] == scales[node.output[0]] for node in relus)


def test_both_sides_of_a_max_pool_and_of_a_flatten_share_a_range() -> None:
    """conv1, its Relu and the max pool have the pool's range; Flatten has what it reads."""
    scales = scales_of(graph(NETWORKS["resnet18"]), table_of(NETWORKS["resnet18"]))
    assert scales["conv1"] == scales["relu"] == scales["maxpool"]
    assert scales["flatten"] == scales["avgpool"]


def test_the_shortcuts_projection_keeps_its_own_range() -> None:
    """A downsampling convolution feeds the Add without a Relu: its range is its own, measured."""
    table = table_of(small("B"))
    scales = scales_of(graph(small("B")), table)
    assert scales["layer2.0.downsample.0"] == np.float32(table.amax["layer2.0.downsample.0"] / 127)
    assert scales["layer2.0.conv2"] == np.float32(table.amax["layer2.0.conv2"] / 127)


def test_a_table_for_tensorrt_alone_is_enough(spec: ModelSpec) -> None:
    """Without the ranges that only the CPU's form needs, a pool's output takes its input's, and main branches have no line."""
    needed = {pair.range_of for pair in tensorrt_pairs(graph(spec))}
    table = table_of(spec)
    scales = scales_of(graph(spec), replace(table, amax={name: amax for name, amax in table.amax.items() if name in needed}))
    last = next(node for node in graph(spec).graph.node if node.op_type == "GlobalAveragePool")
    assert scales["flatten"] == scales["avgpool"] == scales[last.input[0]]
    adds = [node for node in graph(spec).graph.node if node.op_type == "Add"]
    assert all(sum(tensor in scales for tensor in node.input) == 1 for node in adds)
    assert all(node.output[0] in scales for node in adds)


def test_an_exact_inputs_first_range_is_its_last_tensors() -> None:
    """The shifted image, pixel - 128, has a step of one; what comes before it has no line."""
    model = with_exact_input(graph(small()))
    table = table_of(small(), exact=True)
    scales = scales_of(model, replace(table, amax={**table.amax, "shift": EXACT_AMAX}))
    assert scales["shift"] == 1.0
    assert scales.keys().isdisjoint({"cast", "transpose", "sub", "pad", "logits"})


def test_nothing_else_changes_the_text() -> None:
    """The same graph and table give the same text, whatever the order of the table; the model is not changed."""
    model, table = graph(small("C")), table_of(small("C"))
    before = model.SerializeToString()
    turned = replace(table, amax=dict(reversed(table.amax.items())))
    assert calibration_cache(model, table, "10.3.0") == calibration_cache(model, turned, "10.3.0")
    assert model.SerializeToString() == before


@given(amax=st.floats(2.0**-149, 2.0**127, width=32))
def test_scales_of_any_size_come_back(amax: float) -> None:
    """From a denormal range to FP32's largest the scale read is amax / 127, but for those that a GPU would flush to zero."""
    table = table_of(small())
    scale = scales_of(graph(small()), replace(table, amax={**table.amax, "mul": amax}))["mul"]
    assert scale == max(np.float32(amax / 127), np.finfo(np.float32).tiny)


def test_a_table_of_another_graph_is_refused() -> None:
    """The error names a range without a tensor in the graph, and a tensor without a range in the table."""
    table = table_of(small())
    with pytest.raises(CalibrationError, match=r"belongs to another graph: this one has no layer2\.0\.downsample\.0"):
        calibration_cache(graph(small(plain=True)), table, "8.6.1")
    lacking = replace(table, amax={name: amax for name, amax in table.amax.items() if name != "layer1.0.relu"})
    with pytest.raises(CalibrationError, match=r"no range for layer1\.0\.relu"):
        calibration_cache(graph(small()), lacking, "8.6.1")


def test_a_network_without_a_convolution_is_refused() -> None:
    """It has nothing to quantize."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    relu = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name="relu")], "g", values[:1], values[1:])
    with pytest.raises(CalibrationError, match="no convolution"):
        calibration_cache(helper.make_model(relu), replace(table_of(small()), amax={"y": 1.0}), "8.6.1")
