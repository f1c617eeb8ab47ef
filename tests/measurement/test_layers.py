"""The inspector's JSON in both forms, with missing, unknown and damaged fields."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from layerinfo import FORMATS, PROFILE, as_eleven, conv, document, layer, reformat, tensor

from edge_resnet.core.errors import ArtifactError
from edge_resnet.measurement.layers import UNKNOWN, Layer, parse_layers, parse_profile, read_layers, with_times

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = (
    "Name",
    "LayerType",
    "ParameterType",
    "Inputs",
    "Outputs",
    "Weights",
    "TacticName",
    "TacticValue",
    "HasResidual",
    "Metadata",
)


def one(entry: Any) -> Layer:
    """The only layer of an engine with this entry."""
    return parse_layers({"Layers": [entry]}).layers[0]


def test_each_layer_has_its_type_tactic_and_layout() -> None:
    """The layers of the example network."""
    listing = parse_layers(document())
    assert listing.tensors == ("images", "logits")
    assert listing.detailed
    assert listing.timed_ms is None
    assert [found.precision for found in listing.layers] == [
        "UINT8→FP16", "FP16→INT8", "INT8", "INT8", "INT8", "INT8", "FP16", "INT8→FP16", "FP16", "FP16", "FP16", "FP16",
    ]  # fmt: skip
    assert [found.outputs[0].layout for found in listing.layers[:3]] == ["linear", "CHW4", "CHW32"]
    assert listing.layers[2].tactic.startswith("sm80_xmma_fprop")
    assert listing.layers[1].tactic == "0x00000000000003e8"
    assert listing.layers[2].inputs[0].shape == (1, 64, 56, 56)


def test_what_a_layer_does() -> None:
    """Products, moves, work and additions of the example."""
    layers = parse_layers(document()).layers
    assert [found.name.split(" ")[0] for found in layers if found.multiplies] == [
        "conv1", "layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv2", "fc",
    ]  # fmt: skip
    assert [found.kind for found in layers if found.moves] == ["Reformat", "Reformat"]
    assert [found.name for found in layers if not found.works] == ["view"]
    assert [found.name for found in layers if found.adds == "fused"] == ["layer1.0.conv2 + layer1.0.add + layer1.0.relu_1"]
    assert [found.name for found in layers if found.adds == "alone"] == ["PWN(layer1.1.add, layer1.1.relu_1)"]


def test_both_forms_give_the_same_listing() -> None:
    """The engine as TensorRT 11 describes it is read as the same listing."""
    assert parse_layers(as_eleven(document())) == parse_layers(document())


@pytest.mark.parametrize(("expected", "text"), list(FORMATS.items()))
def test_every_format_is_read(expected: tuple[str, str], text: str) -> None:
    """Type and layout are read from the combined field, with or without a full stop at its end."""
    for description in (text, f"{text}."):
        found = one({"Name": "x", "LayerType": "Reformat", "Outputs": [{"Name": "y", "Format/Datatype": description}]}).outputs[0]
        assert (found.dtype, found.layout) == expected


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"Format": "kCHW32", "DataType": "kINT8"}, ("INT8", "CHW32")),
        ({"Format": "LINEAR", "Datatype": "BFloat16"}, ("BF16", "linear")),
        ({"Format": "Row major linear FP32 format (kLINEAR)", "DataType": "Float"}, ("FP32", "linear")),
        ({"Format": "kHWC16", "DataType": "FP8"}, ("FP8", "HWC16")),
        ({"Format": "something new", "DataType": "Int64"}, ("INT64", "something new")),
        ({"DataType": "Complex"}, (UNKNOWN, UNKNOWN)),
        ({}, (UNKNOWN, UNKNOWN)),
    ],
)
def test_the_two_fields_of_11_are_read(entry: dict[str, str], expected: tuple[str, str]) -> None:
    """TensorFormat's own names are read too, an unknown layout is kept as it is, and a missing one is a dash."""
    found = one({"Name": "x", "Inputs": [{"Name": "y", **entry}]}).inputs[0]
    assert (found.dtype, found.layout) == expected


@pytest.mark.parametrize(
    ("tactic", "precision"),
    [
        ("sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw_vect_c_32kcrs", "INT8"),
        ("sm86_xmma_fprop_implicit_gemm_i8f32_i8i32_f32_nhwckrsc_nhwc", "INT8"),
        ("ampere_int8_i16832cudnn_int8_128x128", "INT8"),
        ("turing_i8816cudnn_128x128_ldg16_relu", "INT8"),
        ("sm80_xmma_fprop_implicit_gemm_f16f16_f16f32_f32_nhwckrsc_nhwc", "FP16"),
        ("trt_volta_h884cudnn_256x64_ldg8_relu_exp_small_nhwc_tn_v1", "FP16"),
        ("sm80_xmma_fprop_implicit_gemm_f32f32_tf32f32_f32_nhwckrsc_nhwc", "FP32"),
        ("volta_scudnn_128x64_sliced1x2_ldg4_relu_exp_large_nhwc_tn_v1", "FP32"),
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32", "BF16"),
        ("0x00000000000003e8", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_the_type_from_a_tactics_name(tactic: str, precision: str) -> None:
    """If neither weights nor tensors have a type, as with a dynamic batch size."""
    assert one(conv("c", "-", Weights={}, TacticName=tactic)).precision == precision


def test_weights_decide_before_the_tactic_and_the_tactic_before_tensors() -> None:
    """An INT8 convolution that writes FP16 is INT8; without weights and tactic its input decides, then its output."""
    ends: dict[str, Any] = {"Inputs": [tensor("x", "FP32", "linear")], "Outputs": [tensor("y", "FP16", "linear")]}
    assert one(conv("c", "INT8", **ends)).precision == "INT8"
    assert one(conv("c", "INT8", Weights=None, **ends)).precision == "INT8"
    assert one(conv("c", "INT8", Weights=None, TacticName="", **ends)).precision == "FP32"
    assert one(conv("c", "INT8", Weights=None, TacticName="", Inputs=[], Outputs=ends["Outputs"])).precision == "FP16"


def test_names_alone_are_a_listing() -> None:
    """Engines without detail list names only: the rest is a dash, and reformats are recognised by name."""
    names = ["Reformatting CopyNode for Input Tensor 0 to conv1", "conv1 + relu"]
    listing = parse_layers({"Layers": names, "Bindings": ["images", "logits"]})
    assert not listing.detailed
    assert [(found.name, found.precision, found.tactic) for found in listing.layers] == [(name, "-", "-") for name in names]
    assert [found.moves for found in listing.layers] == [True, False]


def test_a_pool_of_two_inputs_or_a_scale_is_no_addition() -> None:
    """An addition needs two tensors and a name for it; ``address`` and ``padding`` are not such names."""
    two = [tensor("a"), tensor("b")]
    assert one(layer("x.add", "ElementWise", two, two[:1])).adds == "alone"
    assert one(layer("x", "kgen", two, two[:1], Metadata="[ONNX Layer: /layer1/layer1.0/Add]")).adds == "alone"
    assert one(layer("x", "ElementWise", two, two[:1], Operation="kSUM")).adds == "alone"
    for entry in (
        layer("x.add", "ElementWise", two[:1], two[:1]),
        layer("address + padding", "ElementWise", two, two[:1]),
        layer("maxpool.add", "CaskPooling", two, two[:1]),
        reformat("layer1.0.add", ("INT8", "CHW32"), ("INT8", "linear")),
    ):
        assert one(entry).adds == ""


def test_convert_is_no_convolution() -> None:
    """A change of type is not a product."""
    assert not one({"Name": "x", "LayerType": "Convert"}).multiplies
    assert one({"Name": "x", "LayerType": "conv"}).multiplies
    assert one({"Name": "x", "ParameterType": "Convolution"}).multiplies


def test_times_go_to_the_layers_of_that_name() -> None:
    """Milliseconds and percent are the profile's; a view has no time."""
    listing = with_times(parse_layers(document()), parse_profile(PROFILE))
    assert listing.timed_ms == pytest.approx(0.2)
    timed = {found.name: found.time for found in listing.layers}
    assert timed.pop("view") is None
    assert timed["conv1 + relu"].milliseconds == 0.04  # type: ignore[union-attr]
    for entry in PROFILE[1:]:
        assert timed[entry["name"]].percent == pytest.approx(entry["percentage"])  # type: ignore[union-attr]


def test_layers_of_one_name_keep_their_order() -> None:
    """The first time goes to the first, the second to the second, and the third has none."""
    listing = with_times(parse_layers({"Layers": ["x", "x", "x"]}), [("x", 1.0), ("x", 3.0)])
    assert [found.time and (found.time.milliseconds, found.time.percent) for found in listing.layers] == [(1, 25), (3, 75), None]


def test_a_profile_of_zero_times() -> None:
    """If every time is zero, so is every percentage."""
    listing = with_times(parse_layers({"Layers": ["x"]}), [("x", 0.0)])
    assert listing.layers[0].time is not None
    assert listing.layers[0].time.percent == 0.0


@pytest.mark.parametrize(
    "content", ['{"Layers": [', "", "\x00\x01", '{"Bindings": []}', "[]", "7", '{"Layers": {}}', "[" * 100_000]
)
def test_a_damaged_listing_has_a_hint(tmp_path: Path, content: str) -> None:
    """The error names the file, and the hint the command that writes it again."""
    path = tmp_path / "layers.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"layers\.json") as caught:
        read_layers(path)
    assert "trtexec --exportLayerInfo" in caught.value.hint


@pytest.mark.parametrize(
    "content", ["{", "{}", "[]", '[{"count": 3}]', '[{"name": "x", "averageMs": "1"}]', '[{"name": "x", "averageMs": NaN}]']
)
def test_a_damaged_profile_has_a_hint(tmp_path: Path, content: str) -> None:
    """The error names the profile, not the listing beside it."""
    (tmp_path / "layers.json").write_text(json.dumps(document()), encoding="utf-8")
    (tmp_path / "profile.json").write_text(content, encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"profile\.json") as caught:
        read_layers(tmp_path / "layers.json", tmp_path / "profile.json")
    assert "trtexec" in caught.value.hint


def test_a_missing_file_and_a_binary_file(tmp_path: Path) -> None:
    """Each is an ArtifactError."""
    with pytest.raises(ArtifactError, match="no file"):
        read_layers(tmp_path / "none.json")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_layers(tmp_path)
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ArtifactError, match="damaged"):
        read_layers(tmp_path / "x.json")


@settings(max_examples=25)
@example([""])
@given(st.lists(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6) | JSON, max_size=4))
@example([""])
@example(["one\nname"])
def test_no_field_is_trusted(entries: list[Any]) -> None:
    """Whatever a listing holds, each name or record gives a layer whose texts are one line and not empty."""
    listing = parse_layers({"Layers": entries, "Bindings": entries, "I/O Tensors": entries})
    assert len(listing.layers) == sum(isinstance(entry, (str, dict)) for entry in entries)
    for found in listing.layers:
        assert all((found.name, found.kind, found.precision, found.tactic))
        assert "\n" not in f"{found.name}{found.kind}{found.tactic}"


@pytest.mark.parametrize("parse", [parse_layers, parse_profile])
@settings(max_examples=25)
@given(content=JSON)
def test_any_document_is_read_or_refused(parse: Callable[[object], object], content: Any) -> None:
    """A document that is neither a listing nor a profile raises nothing but ArtifactError."""
    with suppress(ArtifactError):
        parse(content)


@settings(max_examples=25)
@given(st.sets(st.sampled_from(FIELDS)), st.dictionaries(st.text(min_size=20, max_size=24), JSON, max_size=3))
def test_unknown_and_missing_fields_change_no_other(gone: set[str], new: dict[str, Any]) -> None:
    """A layer with fields removed and added is the layer of the fields that stayed."""
    whole = conv("c", HasResidual=1)
    less = {key: value for key, value in whole.items() if key not in gone}
    assert one({**less, **new}) == one(less)
    known, found = one(whole), one(less)
    assert found.inputs == (() if "Inputs" in gone else known.inputs)
    assert found.weights == (UNKNOWN if "Weights" in gone else "INT8")
    assert found.name == (UNKNOWN if "Name" in gone else "c")


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1e3)), min_size=1, max_size=9))
def test_percents_are_of_the_whole(times: list[tuple[str, float]]) -> None:
    """The percentages of all layers sum to 100, and to less if the listing lacks some."""
    listing = with_times(parse_layers({"Layers": [name for name, _ in times]}), times)
    percents = sum(found.time.percent for found in listing.layers if found.time)
    assert percents == pytest.approx(100 if listing.timed_ms else 0)
    partial = with_times(parse_layers({"Layers": ["a"]}), times)
    assert sum(found.time.percent for found in partial.layers if found.time) <= 100.0001


@pytest.mark.parametrize(
    ("precision", "types", "adds"), [("fp16", {"FP16": 54}, ("fused", 16)), ("int8", {"INT8": 53, "FP16": 1}, ("alone", 16))]
)
def test_plans_of_myelin_are_read(real_data: Path, precision: str, types: dict[str, int], adds: tuple[str, int]) -> None:
    """Two real plans of ResNet-50: every product with its type, every residual Add, no move, and layouts in short."""
    listing = read_layers(real_data / "tensorrt_logs" / f"rtx-1.7-resnet50-{precision}.layers.json")
    assert Counter(found.precision for found in listing.layers if found.multiplies) == types
    assert Counter(found.adds for found in listing.layers if found.adds) == dict([adds])
    assert not [found.name for found in listing.layers if found.moves]
    assert {found.outputs[0].layout for found in listing.layers if found.outputs} <= {"HWC", "linear", "transposed"}
    assert sum(not found.works for found in listing.layers) == (16 if precision == "int8" else 0), "signals and waits"


def test_a_hash_is_not_a_type() -> None:
    """The tactic of a kernel that Myelin made ends in a hash, which may spell a type."""
    entry = layer("__myl_Fc_myl0_1", "fusion", [], [], TacticName="__myl_Fc_0x0bf16a")
    assert (one(entry).multiplies, one(entry).precision) == (True, UNKNOWN)


@pytest.mark.parametrize(
    ("kind", "name", "does"),
    [
        ("correlation", "conv1_U6_myl0_1", "multiplies"),
        ("gemm", "fc_myl0_3", "multiplies"),
        ("fusion", "__myl_FcAddRelu_myl0_2", "multiplies"),
        ("kgen", "__myl_ReshMulSum_myl0_23", "multiplies"),
        ("kgen", "__myl_CastTran_myl0_4", "moves"),
        ("kgen", "__myl_RounCast_myl0_4", "works"),
        ("kgen", "__myl_MulSumless_myl0_4", "works"),
        ("Constant", "__myl_FcAdd_myl0_2", "nothing"),
        ("shape_call", "__mye1096_0_myl0_0", "nothing"),
        ("signal", "__mye17030_myl0_5", "nothing"),
    ],
)
def test_what_a_layer_of_myelin_does(kind: str, name: str, does: str) -> None:
    """By its kind, and for kernels that were made for a list of operators by that list."""
    found = Layer(name, kind)
    assert found.multiplies == (does == "multiplies")
    assert found.moves == (does == "moves")
    assert found.works == (does != "nothing")


@pytest.mark.parametrize(
    ("second", "adds"), [(("Int64", []), ""), (("Half", [64, 64, 3, 3]), ""), (("Half", [1, 64, 56, 56]), "fused")]
)
def test_a_summand_has_the_outputs_shape(second: tuple[str, list[int]], adds: str) -> None:
    """A convolution of Myelin may also read a dynamic shape, or weights that another layer prepared: they are not added."""
    reads = [{"Name": "x", "Datatype": "Half", "Dimensions": [1, 64, 56, 56]}]
    reads.append({"Name": "y", "Datatype": second[0], "Dimensions": second[1]})
    writes = [{"Name": "z", "Datatype": "Half", "Dimensions": [1, 64, 56, 56]}]
    assert one(layer("conv_myl0_1", "correlation", reads, writes)).adds == adds
