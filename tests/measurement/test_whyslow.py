"""Each cause that keeps INT8 from being faster: found where it exists, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layerinfo import PROFILE, as_eleven, conv, document, layer, reformat, tensor

from edge_resnet.measurement.layers import LayerListing, parse_layers, parse_profile, read_layers, with_times
from edge_resnet.measurement.whyslow import Slowdown, why_not_faster

HALF = tensor("half", "FP16", "HWC8")


def listing(*entries: Any, times: tuple[float, ...] = ()) -> LayerListing:
    """An engine with these layers, and with times in their order if given."""
    parsed = parse_layers({"Layers": list(entries)})
    if not times:
        return parsed
    return with_times(parsed, zip((found.name for found in parsed.layers), times, strict=True))


def causes(found: tuple[Slowdown, ...]) -> list[str]:
    """The causes in order."""
    return [finding.cause for finding in found]


def test_the_example_has_every_cause_of_the_layers() -> None:
    """Each cause names its layers, with their time from the profile."""
    found = {finding.cause: finding for finding in why_not_faster(with_times(parse_layers(document()), parse_profile(PROFILE)))}
    assert list(found) == ["float_products", "moves", "adds", "float_others"]
    assert found["float_products"].layers == ("layer1.1.conv2", "fc")
    assert found["float_products"].percent == pytest.approx(28)
    assert found["float_products"].text == "left in FP16: 2 layers"
    assert len(found["moves"].layers) == 2
    assert found["moves"].percent == pytest.approx(8)
    assert found["adds"].layers == ("PWN(layer1.1.add, layer1.1.relu_1)",)
    assert found["adds"].percent == pytest.approx(6)
    assert found["float_others"].layers == ("avgpool",)


def test_both_forms_have_the_same_causes() -> None:
    """The description of TensorRT 11 gives the same causes."""
    assert why_not_faster(parse_layers(as_eleven(document()))) == why_not_faster(parse_layers(document()))


def test_an_engine_all_in_int8_has_no_cause() -> None:
    """Convolutions with fused Adds, and a pool, all in INT8."""
    pool = layer("maxpool", "CaskPooling", [tensor("x")], [tensor("y")])
    assert why_not_faster(listing(conv("a"), pool, conv("b + add", HasResidual=1)), "8.7") == ()


def test_without_a_profile_no_time_is_claimed() -> None:
    """The layers are still named."""
    found = why_not_faster(parse_layers(document()))
    assert [finding.percent for finding in found] == [None] * 4
    assert all(finding.layers for finding in found)


def test_a_share_of_time_needs_all_times() -> None:
    """If one layer of two has no time, the share is unknown."""
    parsed = listing(conv("a"), conv("b", "FP16"), conv("c", "FP16"))
    (found,) = why_not_faster(with_times(parsed, [("a", 1.0), ("b", 1.0)]))
    assert (found.cause, found.percent) == ("float_products", None)


def test_floats_of_two_types_are_both_named() -> None:
    """FP32 comes first."""
    (found,) = why_not_faster(listing(conv("a"), conv("b", "FP16"), conv("c", "FP32")))
    assert found.text == "left in FP32 and FP16: 2 layers"
    (found,) = why_not_faster(listing(conv("a"), conv("b", "FP32")))
    assert found.text == "left in FP32: 1 layer"


def test_an_engine_without_int8_has_one_cause() -> None:
    """It was built for another precision, and the remedy is to build it with --int8."""
    (found,) = why_not_faster(listing(conv("a", "FP16"), reformat("b", ("FP16", "HWC8"), ("FP32", "linear")), conv("b", "FP32")))
    assert (found.cause, found.layers, found.remedy) == ("no_int8", ("a", "b"), "edge-resnet build --int8")


@pytest.mark.parametrize(
    ("capability", "text"),
    [("5.3", "no INT8"), ("5.0", "no INT8"), ("6.0", "no INT8"), ("6.2", "no INT8"), ("6.1", "no tensor"), ("7.0", "no tensor")],
)
def test_hardware_without_int8_comes_first(capability: str, text: str) -> None:
    """The cause names the capability, and the remedy what to build instead."""
    found = why_not_faster(parse_layers(document()), capability)
    assert found[0].cause == "hardware"
    assert text in found[0].text
    assert capability in found[0].text
    assert "--fp16" in found[0].remedy
    assert found[1:] == why_not_faster(parse_layers(document()))


@pytest.mark.parametrize("capability", [None, "7.2", "7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "10.0", "11.0", "12.0", "what"])
def test_hardware_with_int8_or_unknown_is_no_cause(capability: str | None) -> None:
    """Every GPU that JetPack 6 and 7 run on has it."""
    assert "hardware" not in causes(why_not_faster(parse_layers(document()), capability))


def test_a_listing_of_names_is_a_cause() -> None:
    """What cannot be judged is not called good; reformats are still recognised by name."""
    found = why_not_faster(parse_layers({"Layers": ["Reformatting CopyNode for Input Tensor 0 to a", "a"]}))
    assert causes(found) == ["no_detail", "moves"]
    assert "detailed" in found[0].remedy


def test_dynamic_batch_sizes_hide_types() -> None:
    """A convolution is still judged by its weights; a layer that cannot be judged is named."""
    hidden = tensor("x", "-", "-", (-1, 64, 7, 7))
    pool = layer("pool", "CaskPooling", [hidden], [hidden])
    (found,) = why_not_faster(listing(conv("a", Inputs=[hidden], Outputs=[hidden]), pool, layer("v", "NoOp", [hidden], [hidden])))
    assert (found.cause, found.layers) == ("no_detail", ("pool",))


def test_a_small_batch_is_a_cause_only_with_times() -> None:
    """It takes batch 1 and at least 80 % of the time in INT8; without times or with dynamic or larger batches it is none."""
    fast = (conv("a"), conv("b"), reformat("c", ("INT8", "CHW32"), ("INT8", "linear")))
    (moved, small) = why_not_faster(listing(*fast, times=(4.0, 4.0, 2.0)))
    assert (moved.cause, small.cause) == ("moves", "small_batch")
    assert small.percent == pytest.approx(80)
    assert "the batch is 1, and 80 %" in small.text
    assert "small_batch" not in causes(why_not_faster(listing(*fast)))
    assert "small_batch" not in causes(why_not_faster(listing(*fast, times=(4.0, 3.9, 2.0))))
    for batch in (8, -1):
        larger = conv("a", shape=(batch, 64, 7, 7))
        assert "small_batch" not in causes(why_not_faster(listing(larger, times=(1.0,))))


def test_an_addition_is_counted_once() -> None:
    """An addition in FP16 is not also counted among the others in FP16."""
    found = why_not_faster(listing(conv("a"), layer("x.add", "ElementWise", [HALF, HALF], [HALF])))
    assert causes(found) == ["adds"]


ENTRIES = st.sampled_from(
    [
        conv("a"), conv("b", "FP16"), conv("c", "FP32"), conv("d", "-"), reformat("e", ("FP16", "HWC8"), ("INT8", "CHW32")), "f",
        layer("g.add", "kgen", [HALF, HALF], [HALF]), layer("h", "CaskPooling", [HALF], [HALF]), layer("i", "NoOp", [], []),
    ]
)  # fmt: skip


@settings(max_examples=25)
@given(st.lists(ENTRIES, max_size=8), st.sampled_from([None, "5.3", "8.7"]))
def test_no_layer_has_two_causes(entries: list[Any], capability: str | None) -> None:
    """Each cause occurs at most once, and no layer is counted under two causes."""
    parsed = listing(*entries)
    found = why_not_faster(parsed, capability)
    assert len(set(causes(found))) == len(found)
    named = [name for finding in found for name in finding.layers]
    assert len(named) <= len(entries)
    assert set(named) <= {one.name for one in parsed.layers}
    assert all(finding.text for finding in found)


def test_a_real_plan_of_myelin_has_its_causes(real_data: Path) -> None:
    """ResNet-50 in INT8: sixteen Adds alone, for which there is no remedy, and 53 convolutions that write FP32."""
    listing = read_layers(real_data / "tensorrt_logs" / "rtx-1.7-resnet50-int8.layers.json")
    found = {finding.cause: finding for finding in why_not_faster(listing, "8.6")}
    assert {cause: len(finding.layers) for cause, finding in found.items()} == {
        "float_products": 1, "adds": 16, "wide_outputs": 53, "float_others": 34,
    }  # fmt: skip
    assert found["adds"].remedy == ""
    assert "--fp16" in found["wide_outputs"].remedy
