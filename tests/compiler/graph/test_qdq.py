"""qdq.py: the structure of both forms, laws of the scales, and what ONNX Runtime makes of the graphs and computes."""

from __future__ import annotations

import functools
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from exported import exported, graph, image_batch, logits, small
from onnx import numpy_helper
from PIL import Image

from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.compiler.graph.placement import tensorrt_pairs, with_cpu_pairs
from edge_resnet.compiler.graph.qdq import QdqForm, measured_tensors, quantize
from edge_resnet.compiler.graph.scales import weight_scales
from edge_resnet.core.errors import CalibrationError
from edge_resnet.core.records import ModelSpec, Preprocess, QuantRecipe
from edge_resnet.network import build_network, load_weights
from edge_resnet.network.export import INPUT, OPSET, Deployable, export
from edge_resnet.quantization.calibrate import calibrate

FORMS: tuple[QdqForm, ...] = ("tensorrt", "u8s8", "u8s7")
CPU_FORMS: tuple[QdqForm, ...] = ("u8s8", "u8s7")
NETWORKS = {
    "A": small("A"),
    "B": small("B"),
    "C": small("C"),
    "plain": small(plain=True),
    "resnet18": ModelSpec("imagenet", 18, classes=10, input_size=32),
}
#: int8 logits may miss FP32 by this share of what the logits vary by from image to image. Measured: at most 0.31, 0.34, 0.76.
ALLOWED = {"tensorrt": 0.4, "u8s8": 0.4, "u8s7": 0.85}
Array = npt.NDArray[np.generic]
Case = tuple[ModelSpec, QdqForm]


@functools.cache
def table_of(spec: ModelSpec) -> CalibrationTable:
    """The ranges of a network over 32 smooth images, nothing clipped."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(exported(spec))
        recipe = QuantRecipe(method="max", images=32)
        return calibrate(path, measured_tensors(graph(spec)), [image_batch(32, spec.input_size)], recipe)


@pytest.fixture(
    params=[
        # The large network in one form of the CPU's: the other differs in the largest integer.
        pytest.param((name, form), marks=pytest.mark.slow if (name, form) == ("resnet18", "u8s8") else ())
        for name in NETWORKS
        for form in FORMS
    ],
    ids="-".join,
    scope="module",
)
def case(request: pytest.FixtureRequest) -> Case:
    """Every network in every form."""
    name, form = request.param
    return NETWORKS[name], form


@pytest.fixture(params=NETWORKS, scope="module")
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    """Every network."""
    return NETWORKS[request.param]


def int8(spec: ModelSpec, form: QdqForm) -> onnx.ModelProto:
    return onnx.load_from_string(_int8(spec, form))


@functools.cache
def _int8(spec: ModelSpec, form: QdqForm) -> bytes:
    content: bytes = quantize(graph(spec), table_of(spec), form).SerializeToString()
    return content


def constants(model: onnx.ModelProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def nodes(model: onnx.ModelProto, *ops: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type in ops]


def makers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {output: node for node in model.graph.node for output in node.output}


def axis_of(node: onnx.NodeProto) -> int | None:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), None)


def test_the_graph_is_valid_and_loads(case: Case) -> None:
    """Either form passes the checker in full and runs in ONNX Runtime at batch 1 and 3, its interface unchanged."""
    spec, form = case
    model = int8(spec, form)
    onnx.checker.check_model(model, full_check=True)
    assert (model.graph.input, model.graph.output) == (graph(spec).graph.input, graph(spec).graph.output)
    assert [entry.version for entry in model.opset_import] == [OPSET]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        assert session.run(None, {INPUT: image_batch(batch, spec.input_size)})[0].shape == (batch, 10)


def test_every_pair_is_where_the_placement_says(case: Case) -> None:
    """The edges that read a dequantized activation are those of the placement, and each reads the tensor it read before."""
    spec, form = case
    before, after = graph(spec), int8(spec, form)
    pairs = tensorrt_pairs(before)
    pairs = pairs if form == "tensorrt" else with_cpu_pairs(before, pairs)
    made = makers(after)
    found = {}
    for node in after.graph.node:
        for index, tensor in enumerate(node.input):
            if node.op_type != "QuantizeLinear" and tensor in made and made[tensor].op_type == "DequantizeLinear":
                source = made.get(made[tensor].input[0])
                if source is not None and source.input[0] in makers(before):
                    found[node.name, index] = source.input[0]
    assert found == {edge: pair.tensor for pair in pairs for edge in pair.readers}


def test_tensorrts_form_has_what_its_oldest_parser_reads(spec: ModelSpec) -> None:
    """Q and DQ have three inputs, FP32 scales above zero, int8 zero points of zero; one scale, or one per channel on axis 0."""
    model = int8(spec, "tensorrt")
    stored = constants(model)
    pairs = nodes(model, "QuantizeLinear", "DequantizeLinear")
    assert len(pairs) == 2 * (len(tensorrt_pairs(graph(spec))) + len(nodes(model, "Conv")))
    for node in pairs:
        assert len(node.input) == 3
        scale, zero = stored[node.input[1]], stored[node.input[2]]
        assert (scale.dtype, zero.dtype) == (np.float32, np.int8)
        assert scale.shape == zero.shape
        assert (scale >= np.finfo(np.float32).tiny).all()
        assert not zero.any()
        assert scale.ndim == (0 if axis_of(node) is None else 1)


def test_tensorrts_form_keeps_float_weights_and_biases(spec: ModelSpec) -> None:
    """Each Conv reads Q → DQ of its own float weight, scaled per output channel, and its float bias as it was."""
    before, after = graph(spec), int8(spec, "tensorrt")
    stored, made, original = constants(after), makers(after), {node.name: node for node in before.graph.node}
    for conv in nodes(after, "Conv"):
        dequantize = made[conv.input[1]]
        quantize_node = made[dequantize.input[0]]
        assert [axis_of(dequantize), axis_of(quantize_node)] == [0, 0]
        assert dequantize.input[1:] == quantize_node.input[1:]
        assert quantize_node.input[0] == original[conv.name].input[1]
        assert np.array_equal(stored[quantize_node.input[1]], weight_scales(stored[quantize_node.input[0]]))
        assert conv.input[2:] == original[conv.name].input[2:]
    assert nodes(after, "Gemm") == nodes(before, "Gemm")
    for name, value in constants(before).items():
        assert np.array_equal(stored[name], value)


@pytest.mark.parametrize("form", CPU_FORMS)
def test_the_cpu_form_stores_integers_alone(spec: ModelSpec, form: QdqForm) -> None:
    """Conv and Gemm read int8 weights and int32 biases, no float weight is left, and no weight leaves ±127 or ±63."""
    model = int8(spec, form)
    stored, made = constants(model), makers(model)
    limit = {"u8s8": 127, "u8s7": 63}[form]
    for node in nodes(model, "Conv", "Gemm"):
        weight, bias = (stored[made[tensor].input[0]] for tensor in node.input[1:])
        assert (weight.dtype, bias.dtype) == (np.int8, np.int32)
        assert np.abs(weight.astype(int)).max() == limit
    floats = {name for name, value in stored.items() if value.dtype == np.float32 and value.ndim > 1}
    assert floats == {"sub.weight", "mul.weight"}


@pytest.mark.parametrize("form", CPU_FORMS)
def test_the_cpu_form_dequantizes_to_the_float_weights(spec: ModelSpec, form: QdqForm) -> None:
    """Every stored weight and bias is within half a step of the float one, or of its channel's clip; the bias's scale is the
    input's times the weight's."""
    before, model = graph(spec), int8(spec, form)
    floats, stored, made = constants(before), constants(model), makers(model)
    original = {node.name: node for node in before.graph.node}
    for node in nodes(model, "Conv", "Gemm"):
        for index in (1, 2):
            integers, scale, zero = (stored[name] for name in made[node.input[index]].input)
            step = scale.reshape(-1, *[1] * (integers.ndim - 1)).astype(np.float64)
            names = original[node.name].input
            wanted = floats[names[index]] if index < len(names) else np.zeros(len(integers))
            if index == 1:  # weight_scales may clip the largest
                largest = 63 if form == "u8s7" else 127
                wanted = np.clip(wanted, -largest * step, largest * step)
            assert (np.abs(integers * step - wanted) <= step * 0.50001 + 1e-6 * np.abs(wanted)).all()
            assert not zero.any()
        weight_scale, bias_scale = (stored[made[node.input[index]].input[1]] for index in (1, 2))
        input_scale = stored[made[node.input[0]].input[1]]
        assert np.allclose(bias_scale, weight_scale * input_scale, rtol=1e-6, atol=0)


@pytest.mark.parametrize("form", CPU_FORMS)
def test_the_cpu_forms_activations_are_unsigned(spec: ModelSpec, form: QdqForm) -> None:
    """Activations are uint8: zero point 0 and 255 steps where no value is negative, 128 and 127 steps where some are."""
    model, table = int8(spec, form), table_of(spec)
    stored = constants(model)
    range_of = {pair.tensor: pair.range_of for pair in with_cpu_pairs(graph(spec), tensorrt_pairs(graph(spec)))}
    assert "mul" in table.signed
    for node in nodes(model, "QuantizeLinear"):
        measured = range_of[node.input[0]]
        scale, zero = stored[node.input[1]], stored[node.input[2]]
        signed = measured in table.signed
        assert not signed or makers(graph(spec))[measured].op_type in ("Mul", "Conv")
        assert (zero.dtype, int(zero)) == (np.uint8, 128 if signed else 0)
        assert float(scale) == pytest.approx(table.amax[measured] / (127 if signed else 255), rel=1e-6)


@pytest.mark.parametrize("form", CPU_FORMS)
def test_onnx_runtime_runs_the_cpu_form_on_integers(spec: ModelSpec, form: QdqForm, tmp_path: Path) -> None:
    """After ONNX Runtime's own fusions every Conv is a QLinearConv, every Add a QLinearAdd, and only normalisation is float."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(int8(spec, form).SerializeToString(), options, providers=["CPUExecutionProvider"])
    ops = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    before = graph(spec)
    assert ops["QLinearConv"] == len(nodes(before, "Conv"))
    assert ops["QLinearAdd"] == len(nodes(before, "Add"))
    assert ops["QGemm"] == ops["QLinearGlobalAveragePool"] == ops["QuantizeLinear"] == 1
    moves = {"Cast", "Transpose", "Sub", "Mul", "Flatten", "MaxPool", "NhwcMaxPool"}
    assert set(ops) <= moves | {"QLinearConv", "QLinearAdd", "QGemm", "QLinearGlobalAveragePool", "QuantizeLinear"}


def misfit(spec: ModelSpec, model: onnx.ModelProto) -> float:
    """How far a graph's logits are from FP32's on new images, as a share of what FP32's vary by."""
    images = image_batch(32, spec.input_size, seed=1)
    wanted = logits(exported(spec), images)
    return float(np.linalg.norm(logits(model, images) - wanted) / np.linalg.norm(wanted - wanted.mean(0)))


@pytest.mark.parametrize("form", CPU_FORMS)
def test_the_cpu_form_normalises_a_row_at_a_time(form: QdqForm) -> None:
    """Mean and scale span the image's width, which ONNX Runtime computes faster, and not a bit of the logits changes."""
    spec = NETWORKS["A"]
    wide = quantize(graph(spec), table_of(spec), form)
    narrow = onnx.ModelProto()
    narrow.CopyFrom(wide)
    seen = []
    for tensor in narrow.graph.initializer:
        if tensor.name in ("sub.weight", "mul.weight"):
            values = numpy_helper.to_array(tensor)
            seen.append(values.shape)
            assert (values == values[..., :1]).all()
            tensor.CopyFrom(numpy_helper.from_array(values[..., :1].copy(), tensor.name))
    assert seen == [(1, 3, 1, spec.input_size)] * 2
    images = image_batch(8, spec.input_size)
    assert np.array_equal(logits(wide, images), logits(narrow, images))


def test_int8_logits_are_near_fp32(case: Case) -> None:
    """On images outside the calibration set the logits follow FP32 from image to image."""
    spec, form = case
    assert misfit(spec, int8(spec, form)) < ALLOWED[form]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("factor", [1 / 8, 256])
def test_a_spoilt_range_shows_in_the_logits(form: QdqForm, factor: float) -> None:
    """The bound above notices one range of the table that is far too small or too large."""
    table = table_of(small())
    spoilt = replace(table, amax={**table.amax, "layer1.0.relu_1": table.amax["layer1.0.relu_1"] * factor})
    assert misfit(small(), quantize(graph(small()), spoilt, form)) > ALLOWED[form]


@pytest.mark.parametrize("form", FORMS)
def test_hard_channels_neither_overflow_nor_divide_by_zero(form: QdqForm) -> None:
    """Channels of tiny, denormal and zero weights keep their biases, large ones too, in range and to six digits."""
    model = graph(small())
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    weight, bias = (numpy_helper.to_array(stored[f"conv1.{role}"]).copy() for role in ("weight", "bias"))
    weight[0], bias[0] = weight[0] * 1e-12, 3.0
    weight[1], bias[1] = weight[1] * 1e-41, -2.0
    weight[2], bias[2] = 0, 1.5
    weight[3], bias[3] = weight[3] * 1e-36, 0
    for role, value in (("weight", weight), ("bias", bias)):
        stored[f"conv1.{role}"].CopyFrom(numpy_helper.from_array(value, f"conv1.{role}"))
    images = image_batch(8, 16)
    quantized = quantize(model, table_of(small()), form)
    wanted = logits(model, images)
    assert np.abs(logits(quantized, images) - wanted).max() < 0.05 * np.abs(wanted).max()
    scale = constants(quantized)["conv1.weight.scale"]
    assert np.isfinite(scale).all()
    assert (scale >= np.finfo(np.float32).tiny).all()
    if form != "tensorrt":
        kept = constants(quantized)["conv1.bias.q"] * constants(quantized)["conv1.bias.scale"].astype(np.float64)
        assert kept[:4] == pytest.approx(bias[:4], rel=1e-6)
        assert np.abs(constants(quantized)["conv1.bias.q"].astype(np.int64)).max() <= 2**30


@pytest.mark.parametrize("form", FORMS)
def test_a_tensor_that_is_nearly_zero_gets_a_scale_above_zero(form: QdqForm) -> None:
    """A denormal range does not become a scale that a GPU flushes to zero."""
    table = replace(table_of(small()), amax=dict.fromkeys(table_of(small()).amax, 1e-44))
    model = quantize(graph(small()), table, form)
    for node in nodes(model, "QuantizeLinear", "DequantizeLinear"):
        assert (constants(model)[node.input[1]] >= np.float32(np.finfo(np.float32).tiny) * 0.999).all()


@pytest.mark.parametrize("form", FORMS)
def test_the_model_given_is_left_as_it_is_and_the_result_is_always_the_same(form: QdqForm) -> None:
    """The input's bytes do not change, and two runs write equal bytes."""
    model = graph(small("C"))
    before = model.SerializeToString()
    first = quantize(model, table_of(small("C")), form).SerializeToString()
    assert model.SerializeToString() == before
    assert quantize(model, table_of(small("C")), form).SerializeToString() == first


@pytest.mark.parametrize("form", FORMS)
def test_names_are_unique_and_nothing_is_stored_in_vain(form: QdqForm) -> None:
    """No two nodes, tensors or constants share a name, and every constant is read."""
    model = int8(NETWORKS["resnet18"], form)
    made = [output for node in model.graph.node for output in node.output] + list(constants(model))
    assert len(made) == len(set(made)) == len(model.graph.node) + len(model.graph.initializer)
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    assert constants(model).keys() <= {tensor for node in model.graph.node for tensor in node.input}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("missing", ["mul", "layer1.0.relu", "layer2.0.downsample.0", "avgpool"])
def test_a_table_that_lacks_a_tensor_is_refused(form: QdqForm, missing: str) -> None:
    """The missing tensor is named, unless the form needs no range of it."""
    table = table_of(small())
    lacking = replace(table, amax={name: amax for name, amax in table.amax.items() if name != missing})
    if form == "tensorrt" and missing == "avgpool":
        quantize(graph(small()), lacking, form)
        return
    with pytest.raises(CalibrationError, match=f"no range for {missing}"):
        quantize(graph(small()), lacking, form)


@pytest.mark.parametrize("form", FORMS)
def test_nodes_kept_in_high_precision_stay_float(form: QdqForm) -> None:
    """The named nodes read what they read before; all others are quantized; an unknown name is refused."""
    table = table_of(small())
    kept = {"conv1", "layer2.0.add", "fc"}
    model = quantize(graph(small()), replace(table, recipe=QuantRecipe(keep_high_precision=tuple(kept))), form)
    before = {node.name: node for node in graph(small()).graph.node}
    after = {node.name: node for node in model.graph.node}
    assert all(after[name] == before[name] for name in kept)
    assert all(node.input[1] != before[node.name].input[1] for node in nodes(model, "Conv") if node.name not in kept)
    with pytest.raises(CalibrationError, match="conv99"):
        quantize(graph(small()), replace(table, recipe=QuantRecipe(keep_high_precision=("conv99",))), form)


def test_the_tensors_to_measure_serve_every_form(spec: ModelSpec) -> None:
    """They are tensors of the graph, in its order, each once, and no range measured is left unused."""
    names = measured_tensors(graph(spec))
    made = [output for node in graph(spec).graph.node for output in node.output]
    assert len(set(names)) == len(names)
    assert [made.index(name) for name in names] == sorted(made.index(name) for name in names)
    assert set(names) == {pair.range_of for pair in with_cpu_pairs(graph(spec), tensorrt_pairs(graph(spec)))}


class Trained(NamedTuple):
    """A network with its ranges, and its classes of images that it was neither trained nor calibrated on."""

    model: onnx.ModelProto
    table: CalibrationTable
    images: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.int64]


@pytest.fixture(scope="module")
def trained(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """CIFAR ResNet-20, its ranges over 200 train images, and its classes of 500 test images."""
    spec = ModelSpec("cifar", 20, "A", classes=10, input_size=32)
    path = tmp_path_factory.mktemp("trained") / "model.onnx"
    network = build_network(spec)
    load_weights(network, spec, str(real_data / "weights" / "cifar10" / "resnet20-12fca82f.th"))
    export(Deployable(network, Preprocess()), 32, path)
    model = onnx.load(path)
    recipe = QuantRecipe(images=200, percentile=99.999)
    table = calibrate(path, measured_tensors(model), [_cifar(real_data, "train", 200)], recipe)
    images = _cifar(real_data, "test", 500)
    return Trained(model, table, images, logits(model, images).argmax(1))


@pytest.mark.parametrize(("form", "min_share"), [("tensorrt", 0.98), ("u8s8", 0.98), ("u8s7", 0.97)])
def test_a_trained_network_keeps_its_answers(form: QdqForm, min_share: float, trained: Trained) -> None:
    """On 500 test images at least 98 of 100 answers are FP32's (97 with seven-bit weights), as many as with other tools."""
    found = logits(quantize(trained.model, trained.table, form), trained.images).argmax(1)
    assert (found == trained.classes).mean() >= min_share


def _cifar(real_data: Path, split: str, count: int) -> npt.NDArray[np.uint8]:
    """The first images of a part; a sheet has 25 rows of 40."""
    sheet = np.asarray(Image.open(real_data / "cifar10" / f"{split}_00.webp"))
    return np.ascontiguousarray(sheet.reshape(25, 32, 40, 32, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3)[:count])
