"""fp16.py: the structure of the FP16-typed graph, that its integers are kept, and what ONNX Runtime computes with it."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from exported import graph, image_batch, logits, small
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.compiler.graph.corrections import with_exact_input
from edge_resnet.compiler.graph.fp16 import MIN_HALF, STRONG_OPSET, to_fp16_typed
from edge_resnet.compiler.graph.qdq import measured_tensors, quantize
from edge_resnet.core.errors import CalibrationError, ExportError
from edge_resnet.core.records import ModelSpec, Preprocess, QuantRecipe
from edge_resnet.network import build_network, load_weights
from edge_resnet.network.export import INPUT, OUTPUT, Deployable, export
from edge_resnet.quantization.calibrate import calibrate

NETWORKS = {
    "A": small("A"),
    "B": small("B"),
    "C": small("C"),
    "plain": small(plain=True),
    "resnet18": ModelSpec("imagenet", 18, classes=10, input_size=32),
}
FORMS = ("fp16", "int8", "exact", "kept")
Array = npt.NDArray[np.generic]


@functools.cache
def table_of(spec: ModelSpec, *, exact: bool = False) -> CalibrationTable:
    """The ranges of a network over 32 smooth images, nothing clipped."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        model = with_exact_input(graph(spec)) if exact else graph(spec)
        onnx.save(model, path)
        recipe = QuantRecipe(method="max", images=32)
        return calibrate(path, measured_tensors(model), [image_batch(32, spec.input_size)], recipe)


@functools.cache
def _weak_bytes(spec: ModelSpec, form: str) -> bytes:
    model = with_exact_input(graph(spec)) if form == "exact" else graph(spec)
    if form == "fp16":
        return model.SerializeToString()
    table = table_of(spec, exact=form == "exact")
    if form == "kept":
        recipe = QuantRecipe(keep_high_precision=("conv1", "layer2.0.conv2"))
        table = CalibrationTable(table.amax, table.signed, recipe, table.images, table.images_digest, table.model_digest)
    return quantize(model, table, "tensorrt").SerializeToString()


def weak(spec: ModelSpec, form: str) -> onnx.ModelProto:
    """A weakly typed network: without pairs, with pairs, with an exact input, with two nodes kept in float."""
    return onnx.load_from_string(_weak_bytes(spec, form))


@pytest.fixture(
    params=[(name, form) for name in NETWORKS for form in FORMS if name != "resnet18" or form == "int8"],
    ids="-".join,
    scope="module",
)
def case(request: pytest.FixtureRequest) -> tuple[onnx.ModelProto, onnx.ModelProto, ModelSpec]:
    """Every network in every form: (weak, strong, spec)."""
    name, form = request.param
    model = weak(NETWORKS[name], form)
    return model, to_fp16_typed(model), NETWORKS[name]


Case = tuple[onnx.ModelProto, onnx.ModelProto, ModelSpec]


def constants(model: onnx.ModelProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def weight_pairs(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The QuantizeLinear nodes that read a stored weight."""
    stored = constants(model)
    return [node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] in stored]


def integers(weight: Array, scale: Array) -> npt.NDArray[np.int8]:
    """The result of QuantizeLinear for a weight, in the precision of the scale."""
    steps = weight / scale.reshape(-1, *[1] * (weight.ndim - 1))
    return np.clip(np.rint(steps.astype(np.float64)), -128, 127).astype(np.int8)


def test_it_is_a_valid_graph_of_opset_19_with_the_same_interface(case: Case) -> None:
    """It passes the full check at the IR version of opset 19, with uint8 images as input and FP32 logits as output."""
    before, after, spec = case
    onnx.checker.check_model(after, full_check=True)
    assert [(entry.domain, entry.version) for entry in after.opset_import] == [("", STRONG_OPSET)]
    assert after.ir_version == 9
    assert (after.graph.input, after.graph.output) == (before.graph.input, before.graph.output)
    assert [value.name for value in (*after.graph.input, *after.graph.output)] == [INPUT, OUTPUT]
    assert not after.graph.value_info
    for batch in (1, 3):
        assert logits(after, image_batch(batch, spec.input_size)).shape == (batch, spec.classes)


def test_everything_is_fp16_between_two_casts(case: Case) -> None:
    """Inferred types are FP32 up to the one cast before the first convolution and FP16 after it, with int8 inside the pairs."""
    before, after, _ = case
    inferred = onnx.shape_inference.infer_shapes(after, check_type=True, strict_mode=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    casts = [node for node in after.graph.node if node.op_type == "Cast"]
    first_conv = next(place for place, node in enumerate(after.graph.node) if node.op_type == "Conv")
    assert [node.attribute[0].i for node in casts] == [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.FLOAT]
    assert casts[2].output[0] == OUTPUT
    place = list(after.graph.node).index(casts[1])
    assert place < first_conv
    assert {types[node.output[0]] for node in list(after.graph.node)[:place]} - {TensorProto.INT8} == {TensorProto.FLOAT}
    assert {types[node.output[0]] for node in list(after.graph.node)[place:-1]} <= {TensorProto.FLOAT16, TensorProto.INT8}
    kinds = [node.op_type for node in after.graph.node]
    assert sorted(kinds) == sorted([*(node.op_type for node in before.graph.node), "Cast", "Cast"])


def test_the_cast_stands_right_before_the_first_pair_or_convolution(case: Case) -> None:
    """The nodes before it normalise the image, in FP32 and with unchanged constants."""
    before, after, _ = case
    nodes = list(after.graph.node)
    place = next(index for index, node in enumerate(nodes) if node.output[0].endswith(".fp16"))
    assert {node.op_type for node in nodes[:place]} - {"QuantizeLinear", "DequantizeLinear"} <= {
        "Cast", "Transpose", "Sub", "Mul", "Pad",
    }  # fmt: skip
    readers = [node.op_type for node in nodes if nodes[place].output[0] in node.input]
    assert readers in (["QuantizeLinear"], ["Conv"])
    was, now = constants(before), constants(after)
    front = {name for node in nodes[: place + 1] if node.op_type in ("Sub", "Mul", "Pad") for name in node.input} & was.keys()
    assert len(front) == 2 or "pad.size" in front
    assert all(was[name].dtype == now[name].dtype and np.array_equal(was[name], now[name]) for name in front)


def test_constants_keep_their_names_and_become_fp16(case: Case) -> None:
    """After the normalisation no FP32 is stored; zero points stay int8; biases and float weights are the nearest FP16."""
    before, after, _ = case
    was, now = constants(before), constants(after)
    assert was.keys() == now.keys()
    kinds = {name: value.dtype for name, value in now.items()}
    floats = [name for name, kind in kinds.items() if kind == np.float32]
    readers = {node.op_type for node in after.graph.node if set(floats) & set(node.input)}
    assert readers <= {"Sub", "Mul"}
    assert all(kind == np.int8 for name, kind in kinds.items() if name.endswith(".zero"))
    on_grid = {node.input[0] for node in weight_pairs(before)}
    for name, value in now.items():
        if value.dtype == np.float16 and name not in on_grid and not name.endswith(".scale"):
            assert np.array_equal(value, was[name].astype(np.float16))


def test_every_weight_keeps_its_integer(case: Case) -> None:
    """Quantized in FP16, each weight of each channel is the same int8 as in FP32, and as in ONNX Runtime."""
    before, after, _ = case
    was, now = constants(before), constants(after)
    assert [node.name for node in weight_pairs(before)] == [node.name for node in weight_pairs(after)]
    for node in weight_pairs(before):
        weight, scale = node.input[:2]
        assert np.array_equal(integers(now[weight], now[scale]), integers(was[weight], was[scale]))
    for node, measured in zip(weight_pairs(after), onnx_runtime_integers(after), strict=True):
        assert np.array_equal(measured, integers(was[node.input[0]], was[node.input[1]]))


def onnx_runtime_integers(model: onnx.ModelProto) -> list[Array]:
    """The int8 weights as ONNX Runtime's QuantizeLinear computes them, in the order of ``weight_pairs``."""
    pairs = weight_pairs(model)
    if not pairs:
        return []
    names = {name for node in pairs for name in node.input}
    outputs = [helper.make_tensor_value_info(node.output[0], TensorProto.INT8, None) for node in pairs]
    stored = [tensor for tensor in model.graph.initializer if tensor.name in names]
    part = helper.make_graph(pairs, "weights", [], outputs, stored)
    session = onnxruntime.InferenceSession(
        helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version).SerializeToString(),
        providers=["CPUExecutionProvider"],
    )
    return list(session.run(None, {}))


def one_convolution(weight: npt.NDArray[np.float32], scales: npt.NDArray[np.float32], step: float = 0.02) -> onnx.ModelProto:
    """A weakly typed graph of one quantized 1x1 convolution: weight (O, I) FP32, scales (O,)."""
    stored = {
        "w": weight.reshape(*weight.shape, 1, 1),
        "w.scale": scales,
        "w.zero": np.zeros(len(scales), np.int8),
        "x.scale": np.float32(step),
        "x.zero": np.int8(0),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x.scale", "x.zero"], ["x.q"], name="x.q"),
        helper.make_node("DequantizeLinear", ["x.q", "x.scale", "x.zero"], ["x.dq"], name="x.dq"),
        helper.make_node("QuantizeLinear", ["w", "w.scale", "w.zero"], ["w.q"], name="w.q", axis=0),
        helper.make_node("DequantizeLinear", ["w.q", "w.scale", "w.zero"], ["w.dq"], name="w.dq", axis=0),
        helper.make_node("Conv", ["x.dq", "w.dq"], ["y"], name="conv"),
    ]
    value = functools.partial(helper.make_tensor_value_info, elem_type=TensorProto.FLOAT)
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()]
    shapes = [["n", weight.shape[1], 1, 1], ["n", weight.shape[0], 1, 1]]
    part = helper.make_graph(nodes, "g", [value("x", shape=shapes[0])], [value("y", shape=shapes[1])], tensors)
    return helper.make_model(part, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@given(
    exponents=st.lists(st.floats(-120, 8), min_size=1, max_size=6),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_law_of_integers_holds_for_scales_of_any_size(exponents: list[float], seed: int) -> None:
    """Scales from FP32's smallest to FP16's largest, with FP16's subnormals and those rounded to zero, keep the integers."""
    scales = np.exp2(np.array(exponents)).astype(np.float32)
    rng = np.random.default_rng(seed)
    weight = (rng.uniform(-130, 130, (len(scales), 8)) * scales[:, None].astype(np.float64)).astype(np.float32)
    model = one_convolution(weight, scales)
    was, now = constants(model), constants(to_fp16_typed(model))
    assert (now["w.scale"] >= MIN_HALF).all()
    assert np.array_equal(integers(now["w"], now["w.scale"]), integers(was["w"], was["w.scale"]))
    assert np.array_equal(onnx_runtime_integers(to_fp16_typed(model))[0], integers(was["w"], was["w.scale"]))


def test_a_dead_channels_weights_stay_tiny() -> None:
    """A scale that FP16 rounds to zero becomes the smallest FP16 number, and the weights stay within 128 times that."""
    scales = np.array([1e-30, 2.9e-8, 1.0], np.float32)
    weight = scales[:, None] * np.array([[127, -127, 3]], np.float32)
    now = constants(to_fp16_typed(one_convolution(weight, scales)))
    assert now["w.scale"].tolist() == [MIN_HALF, MIN_HALF, 1.0]
    assert np.abs(now["w"][:2]).max() == 127 * MIN_HALF


def test_scales_are_the_nearest_fp16(case: Case) -> None:
    """Each scale is the FP32 scale rounded to nearest; no live channel of a trained network changes by more than 0.05 %."""
    before, after, _ = case
    was, now = constants(before), constants(after)
    for name in (name for name in was if name.endswith(".scale")):
        assert np.array_equal(now[name], was[name].astype(np.float16))
        normal = was[name] >= 2.0**-14
        assert (np.abs(now[name][normal] - was[name][normal]) <= was[name][normal] / 2048).all()


def test_the_model_given_is_left_as_it_is_and_the_result_is_always_the_same(case: Case) -> None:
    """The input's bytes do not change, and a second run writes equal bytes."""
    before, after, _ = case
    bytes_before = before.SerializeToString()
    assert to_fp16_typed(before).SerializeToString() == after.SerializeToString()
    assert before.SerializeToString() == bytes_before


@pytest.mark.parametrize(("form", "allowed"), [("fp16", 0.02), ("int8", 0.5), ("exact", 0.5)])
@pytest.mark.parametrize("name", NETWORKS)
def test_it_computes_what_the_weakly_typed_graph_computes(name: str, form: str, allowed: float) -> None:
    """At least 99 answers of 100 are the same, and logits differ by a small share of what they vary by from image to image.

    INT8's share is larger because FP16 in front of a pair moves values over the border of a step, as any rounding there would.
    """
    spec = NETWORKS[name]
    images = image_batch(100, spec.input_size, seed=1)
    wanted, found = logits(weak(spec, form), images), logits(to_fp16_typed(weak(spec, form)), images)
    assert (wanted.argmax(1) == found.argmax(1)).mean() >= 0.99
    assert np.linalg.norm(found - wanted) <= allowed * np.linalg.norm(wanted - wanted.mean(0))


@pytest.mark.parametrize("form", ["fp16", "int8"])
@pytest.mark.parametrize("role", ["weight", "bias"])
def test_a_value_beyond_fp16_is_refused(form: str, role: str) -> None:
    """The error for a weight or bias of 70,000 names the constant and the typing that can hold it."""
    model = weak(small(), form)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == f"layer2.0.conv1.{role}")
    value = numpy_helper.to_array(tensor).copy()
    value.flat[0] = 70_000
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    if form == "int8" and role == "weight":
        scale = next(t for t in model.graph.initializer if t.name == "layer2.0.conv1.weight.scale")
        scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * 0 + np.float32(70_000 / 127), scale.name))
    with pytest.raises((ExportError, CalibrationError), match=r"layer2\.0\.conv1\..*70000|70000") as caught:
        to_fp16_typed(model)
    assert "--fp32" in caught.value.hint


def test_a_range_beyond_fp16_is_refused() -> None:
    """An activation that may reach 70,000 would be infinite in FP16: a CalibrationError names the tensor and a remedy."""
    model = one_convolution(np.ones((1, 1), np.float32), np.ones(1, np.float32), step=70_000 / 127)
    with pytest.raises(CalibrationError, match=r"x\.scale stands for a range of 70000") as caught:
        to_fp16_typed(model)
    assert "--fp32" in caught.value.hint
    to_fp16_typed(one_convolution(np.ones((1, 1), np.float32), np.ones(1, np.float32), step=65_000 / 127))


def test_other_graphs_are_refused() -> None:
    """The errors for a graph without a convolution, and for the CPU's form with integer weights, say so."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    relu = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name="relu")], "g", values[:1], values[1:])
    with pytest.raises(ExportError, match="no convolution"):
        to_fp16_typed(helper.make_model(relu))
    with pytest.raises(ExportError, match="form for the CPU"):
        to_fp16_typed(quantize(graph(small()), table_of(small()), "u8s8"))


def test_a_trained_network_keeps_its_answers(real_data: Path, tmp_path: Path) -> None:
    """CIFAR ResNet-20: at least 99 of 100 predictions equal the weakly typed graph's, and FP16 moves logits less than INT8."""
    spec = ModelSpec("cifar", 20, "A", classes=10, input_size=32)
    network = build_network(spec)
    load_weights(network, spec, str(real_data / "weights/cifar10/resnet20-12fca82f.th"))
    export(Deployable(network, Preprocess()), 32, tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    sheets = {split: _sheet(real_data / "cifar10" / f"{split}_00.webp") for split in ("train", "test")}
    table = calibrate(tmp_path / "model.onnx", measured_tensors(model), [sheets["train"][:200]], QuantRecipe(images=200))
    _compare(model, quantize(model, table, "tensorrt"), [sheets["test"][:500]], min_share=0.99)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "file"), [(18, "resnet18_small_blocks_bnstats.safetensors"), (50, "resnet50_large_blocks_bnstats.safetensors")]
)
def test_imagenet_networks_keep_their_answers(real_data: Path, tmp_path: Path, depth: int, file: str) -> None:
    """ResNet-18 and -50 on 100 images: FP16 keeps at least 99 predictions, INT8 at least 97 (measured: 98 and 98)."""
    from edge_resnet.images.datasets import open_data
    from edge_resnet.images.imageset import balanced_sample, batches

    spec = ModelSpec("imagenet", depth)
    network = build_network(spec)
    load_weights(network, spec, str(real_data / "weights/imagenet" / file))
    export(Deployable(network, Preprocess()), 224, tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    labelled = open_data(str(real_data / "imagenet/sample500.csv"), split="train")
    sample = labelled.subset(balanced_sample(labelled, 132, 0))
    images = [batch.images for batch in batches(sample, Preprocess(), 2)]
    table = calibrate(tmp_path / "model.onnx", measured_tensors(model), images[:16], QuantRecipe(images=32))
    _compare(model, quantize(model, table, "tensorrt"), images[16:], min_share=0.97)


def _compare(model: onnx.ModelProto, int8: onnx.ModelProto, images: list[npt.NDArray[np.uint8]], min_share: float) -> None:
    fp32, quantized = _run(model, images), _run(int8, images)
    spread = np.linalg.norm(fp32 - fp32.mean(0))
    fp16, strong = _run(to_fp16_typed(model), images), _run(to_fp16_typed(int8), images)
    assert (fp16.argmax(1) == fp32.argmax(1)).mean() >= 0.99
    assert np.linalg.norm(fp16 - fp32) < 0.005 * spread
    assert (strong.argmax(1) == quantized.argmax(1)).mean() >= min_share
    assert np.linalg.norm(strong - quantized) < np.linalg.norm(quantized - fp32)


def _run(model: onnx.ModelProto, images: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
    """ONNX Runtime's logits without one optimizer, whose int32 of a bias overflows in FP16, which spoils the logits."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["WeightBiasQuantization"],
    )
    return np.concatenate([session.run(None, {INPUT: batch})[0] for batch in images])


def _sheet(path: Path) -> npt.NDArray[np.uint8]:
    """The images of a sheet of 25 rows with 40 images each."""
    sheet = np.asarray(Image.open(path))
    return np.ascontiguousarray(sheet.reshape(25, 32, 40, 32, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3))
