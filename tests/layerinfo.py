"""Handmade listings of an engine's layers in the forms of TensorRT 8 to 10 and of 11; none comes from a device."""

from __future__ import annotations

from typing import Any

__all__ = ["FORMATS", "PROFILE", "as_eleven", "conv", "document", "layer", "reformat", "tensor"]

#: Type and layout → the description of a tensor by the inspector of TensorRT 8 to 10.
FORMATS = {
    ("INT8", "CHW32"): "Thirty-two wide channel vectorized row major Int8 format",
    ("INT8", "CHW4"): "Four wide channel vectorized row major Int8 format",
    ("INT8", "linear"): "Row major Int8 format",
    ("FP16", "HWC8"): "Channel major FP16 format where channel % 8 == 0",
    ("FP16", "CHW2"): "Two wide channel vectorized row major FP16 format",
    ("FP16", "linear"): "Row major linear FP16 format",
    ("FP32", "linear"): "Row major linear FP32",
    ("UINT8", "linear"): "Row major linear UInt8 format",
    ("-", "-"): "N/A due to dynamic shapes",
}
#: The name of each type in a field of its own.
_TYPES = {"INT8": "Int8", "FP16": "Half", "FP32": "Float", "UINT8": "UInt8", "-": "N/A due to dynamic shapes"}
_INT8_TACTIC = "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw_vect_c_32kcrs_tilesize128x64x64"
_FP16_TACTIC = "sm80_xmma_fprop_implicit_gemm_f16f16_f16f16_f16_nhwckrsc_nhwc_tilesize64x64x64"


def tensor(name: str, dtype: str = "INT8", layout: str = "CHW32", shape: tuple[int, ...] = (1, 64, 56, 56)) -> dict[str, Any]:
    """A tensor as TensorRT 8 to 10 describes it."""
    return {"Name": name, "Location": "Device", "Dimensions": list(shape), "Format/Datatype": FORMATS[dtype, layout]}


def layer(name: str, kind: str, inputs: list[Any], outputs: list[Any], **fields: Any) -> dict[str, Any]:
    """Any layer, with the fields that the inspector gives all of them."""
    common = {"Name": name, "LayerType": kind, "Inputs": inputs, "Outputs": outputs, "StreamId": 0}
    return {**common, "TacticValue": "0x0000000000000000", "Metadata": "", **fields}


def conv(name: str, dtype: str = "INT8", *, shape: tuple[int, ...] = (1, 64, 56, 56), **fields: Any) -> dict[str, Any]:
    """A convolution in one type."""
    layout = {"INT8": "CHW32", "FP16": "HWC8", "FP32": "linear", "-": "-"}[dtype]
    tactic = {"INT8": _INT8_TACTIC, "FP16": _FP16_TACTIC, "FP32": "sm80_xmma_fprop_f32f32_f32f32_f32_nchwkcrs", "-": ""}[dtype]
    ends = [tensor(f"{name}.in", dtype, layout, shape)], [tensor(f"{name}.out", dtype, layout, shape)]
    known = {"ParameterType": "Convolution", "Weights": {"Type": _TYPES[dtype], "Count": 36864}, "TacticName": tactic}
    return layer(name, "CaskConvolution", *ends, **{**known, **fields})


def reformat(name: str, reads: tuple[str, str], writes: tuple[str, str]) -> dict[str, Any]:
    """A copy that changes the type or the layout."""
    full = f"Reformatting CopyNode for Input Tensor 0 to {name}"
    ends = [tensor(f"{name}.before", *reads)], [tensor(f"{name}.after", *writes)]
    return layer(full, "Reformat", *ends, ParameterType="Reformat", Origin="REFORMAT", TacticValue="0x00000000000003e8")


def document() -> dict[str, Any]:
    """A short INT8 network with every cause, as TensorRT 8 to 10 describes it."""
    half, int8 = tensor("half", "FP16", "HWC8"), tensor("int8")
    return {
        "Layers": [
            layer("mul", "PointWiseV2", [tensor("images", "UINT8", "linear")], [tensor("mul", "FP16", "linear")]),
            reformat("conv1", ("FP16", "linear"), ("INT8", "CHW4")),
            conv("conv1 + relu"),
            layer("maxpool", "CaskPooling", [int8], [int8], TacticName="sm50_xmma_pooling_tiled_INT8NC32HW_Max"),
            conv("layer1.0.conv1 + layer1.0.relu"),
            conv("layer1.0.conv2 + layer1.0.add + layer1.0.relu_1", HasResidual=1),
            conv("layer1.1.conv2", "FP16", HasResidual=0),
            reformat("layer1.1.add", ("INT8", "CHW32"), ("FP16", "HWC8")),
            layer("PWN(layer1.1.add, layer1.1.relu_1)", "PointWiseV2", [half, half], [half], Operations=["iPlus(arg0, arg1)"]),
            layer("avgpool", "CaskPooling", [half], [tensor("avgpool", "FP16", "linear")]),
            layer("view", "NoOp", [half], [half]),
            layer("fc", "CaskGemmMatrixMultiply", [half], [tensor("logits", "FP32", "linear")], TacticName="sm80_h16816gemm_f16"),
        ],
        "Bindings": ["images", "logits"],
    }


def as_eleven(old: dict[str, Any]) -> dict[str, Any]:
    """The same engine as TensorRT 11 describes it: types separate from formats, and inputs and outputs as records."""
    described = {text: pair for pair, text in FORMATS.items()}

    def renewed(entry: dict[str, Any]) -> dict[str, Any]:
        dtype, _ = described[entry["Format/Datatype"]]
        kept = {key: value for key, value in entry.items() if key != "Format/Datatype"}
        return {**kept, "Format": entry["Format/Datatype"], "DataType": _TYPES[dtype]}

    layers = [
        {**entry, "Inputs": [renewed(x) for x in entry["Inputs"]], "Outputs": [renewed(x) for x in entry["Outputs"]]}
        for entry in old["Layers"]
    ]
    tensors = [
        {"Name": name, "IOMode": mode, "DataType": "Float", "Dimensions": [-1], "Location": "Device", "IsShapeInferenceIO": False,
         "ProfileInfo": [{"MinShape": [1], "OptShape": [1], "MaxShape": [8], "Format": "Row major linear FP32 format (kLINEAR)"}]}
        for name, mode in zip(old["Bindings"], ("Input", "Output"), strict=True)
    ]  # fmt: skip
    return {"Layers": layers, "I/O Tensors": tensors, "Engine Metadata": {}}


#: A profile of that network in trtexec's form: a header, then an entry per layer. The times are invented and sum to 0.2 ms.
PROFILE: list[dict[str, Any]] = [
    {"count": 1000},
    *(
        {"name": entry["Name"], "timeMs": 1000 * taken, "averageMs": taken, "medianMs": taken, "percentage": 500 * taken}
        for entry, taken in zip(
            (entry for entry in document()["Layers"] if entry["LayerType"] != "NoOp"),
            (0.004, 0.006, 0.04, 0.01, 0.03, 0.03, 0.05, 0.01, 0.012, 0.002, 0.006),
            strict=True,
        )
    ),
]
