"""loglisting.py: the log's listing becomes the inspector's JSON, field by field; another text becomes nothing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.compiler.tensorrt.loglisting import listing_of_log
from edge_resnet.measurement.layers import parse_layers

#: From the log of TensorRT for RTX 1.7, shortened.
LISTING = """Layers:
Name: conv1_U7_myl0_1, LayerType: correlation, Inputs: [ { Name: x, Dimensions: [-1,4,32,32], Strides: [4096,1,128,4], \
StrideOrder: [3,0,2,1], Datatype: Half, Format: (NHWC) Channel major format }, { Name: y, Dimensions: [], Datatype: Int64, \
Format: (Linear) Row major linear format }], Constants: [ { Name: w, Dimensions: [16,4,3,3], Datatype: Half, Format: (NHWC) \
Channel major format }], Outputs: [ { Name: relu, Dimensions: [-1,16,32,32], Datatype: Half, Format: (NHWC) Channel major format \
}], TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: conv1]\x1f[ONNX Layer: relu, TacticName: odd]
Name: __mye16_myl0_2, LayerType: signal, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 1, Metadata: \

I/O Tensors:
 Name: images, IOMode: Input, DataType: UInt8, Dimensions: [-1,32,32,3], ProfileInfo: [ { MinShape: [1,32,32,3] }]

Engine Metadata:
 Multi-Device: Disabled"""


def test_every_field_is_read() -> None:
    """Tensors with their fields, numbers as numbers, brackets and colons in the metadata; the last section is left out."""
    found = json.loads(listing_of_log(LISTING) or "")
    conv, signal = found["Layers"]
    assert conv["LayerType"] == "correlation"
    assert [tensor["Name"] for tensor in conv["Inputs"]] == ["x", "y"]
    assert conv["Inputs"][0]["Dimensions"] == [-1, 4, 32, 32]
    assert conv["Inputs"][1]["Format"] == "(Linear) Row major linear format"
    assert conv["Metadata"] == "[ONNX Layer: conv1]\x1f[ONNX Layer: relu, TacticName: odd]"
    assert (signal["Inputs"], signal["TacticName"], signal["Metadata"]) == ([], "", "")
    assert found["I/O Tensors"][0]["ProfileInfo"] == [{"MinShape": [1, 32, 32, 3]}]
    assert list(found) == ["Layers", "I/O Tensors"]


def test_it_reads_as_a_listing_of_the_inspector() -> None:
    """The report on layers takes it as it is."""
    listing = parse_layers(json.loads(listing_of_log(LISTING) or ""))
    assert listing.tensors == ("images",)
    assert [(layer.multiplies, layer.precision, layer.works) for layer in listing.layers] == [
        (True, "FP16", True),
        (False, "-", False),
    ]


@pytest.mark.parametrize("text", ["", "Layers are fused", "Layers:", "Layers:\n", "Layers:\nconv1", LISTING.replace(" }]", " }")])
def test_another_form_is_no_listing(text: str) -> None:
    """Nothing is guessed: a line that is not understood makes the listing unknown."""
    assert listing_of_log(text) is None


@given(
    st.lists(
        st.sampled_from(["Name: a, ", "Inputs: [ {", " }], ", "Metadata: ", "x", "\n", "[1,2]", "[-]", ": ", ", "]), max_size=12
    )
)
def test_no_text_is_an_exception(parts: list[str]) -> None:
    """A listing or None, whatever the log holds."""
    found = listing_of_log("Layers:\n" + "".join(parts))
    assert found is None or json.loads(found)["Layers"]
