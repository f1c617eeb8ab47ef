"""An ONNX file that cannot be built is refused with what is wrong in it: the input, the output or the node by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from foreignnets import SIZE, graph_of, onnx_of
from onnx import TensorProto, helper, numpy_helper

from edge_resnet.compiler.foreign import image_input, read_onnx, wrap
from edge_resnet.core.errors import WeightsError
from edge_resnet.core.records import Preprocess


def _model() -> onnx.ModelProto:
    return onnx.load_model_from_string(onnx_of("plain"))


def _second_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("angle", TensorProto.FLOAT, ["n", 1]))


def _second_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(
        helper.make_tensor_value_info(model.graph.node[0].output[0], TensorProto.FLOAT, ["n", 8, SIZE, SIZE])
    )


def _reshaped(*dims: object) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.FLOAT, list(dims)))

    return change


def _typed(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8


def _external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.append(onnx.StringStringEntryProto(key="location", value="../../secret"))


def _quantized(model: onnx.ModelProto) -> None:
    scale, zero = numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(np.int8(0), "z")
    model.graph.initializer.extend([scale, zero])
    model.graph.node.insert(0, helper.make_node("QuantizeLinear", ["image", "s", "z"], ["q"], name="rounds"))


def _unknown(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Convolute"


def _named(model: onnx.ModelProto, op_type: str) -> None:
    model.graph.node[1].op_type, model.graph.node[1].name = op_type, "odd"


def _foreign_domain(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.example"


def _halves(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))


def _not_finite(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.CopyFrom(numpy_helper.from_array(np.full(tuple(tensor.dims), np.nan, np.float32), tensor.name))


def _old(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 5


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (_second_input, "2 inputs: image, angle"),
        (_second_output, "2 outputs"),
        (_reshaped("n", SIZE, SIZE, 3), r"not \(N, 3, H, W\)"),
        (_reshaped("n", 1, SIZE, SIZE), r"not \(N, 3, H, W\)"),
        (_reshaped("n", 3, SIZE), r"not \(N, 3, H, W\)"),
        (_reshaped(8, 3, SIZE, SIZE), "fixed batch of 8"),
        (_typed, "uint8, not float"),
        (_external, "in another file"),
        (_quantized, "quantized already, at node rounds"),
        (_unknown, "no operator like that of node"),
        (lambda model: _named(model, "NonZero"), r"node odd \(NonZero\)"),
        (_foreign_domain, "operator of com.example"),
        (_halves, "FLOAT16"),
        (_not_finite, "not finite"),
        (_old, "opset 5"),
    ],
)
def test_what_is_refused(change: Callable[[onnx.ModelProto], None], match: str, tmp_path: Path) -> None:
    """With exit code 2 and what to do instead."""
    model = _model()
    change(model)
    path = tmp_path / "network.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(WeightsError, match=match) as error:
        image_input(read_onnx(path), str(path))
    assert (error.value.exit_code, bool(error.value.hint)) == (2, True)


@pytest.mark.parametrize("content", [b"", b"no protobuf at all", b"\x08\x08", bytes(1000), b"\xff" * 50])
def test_what_is_no_onnx_file(content: bytes, tmp_path: Path) -> None:
    """And a folder, and nothing."""
    path = tmp_path / "network.onnx"
    path.write_bytes(content)
    for tried in (path, tmp_path, tmp_path / "missing"):
        with pytest.raises(WeightsError) as error:
            read_onnx(tried)
        assert error.value.hint


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    """Never a traceback, never a network."""
    content, path = onnx_of("joined"), tmp_path / "network.onnx"
    for size in range(0, len(content) - 1, max(len(content) // 60, 1)):
        path.write_bytes(content[:size])
        with pytest.raises(WeightsError):
            wrap(read_onnx(path), Preprocess(SIZE, SIZE), "it")


def test_batch_norms_in_training_mode_are_refused() -> None:
    """They would compute with the batch."""
    ones = {name: np.ones(3, np.float32) for name in "smvb"}
    nodes = [
        helper.make_node("BatchNormalization", ["image", *"sbmv"], ["a", "x", "y"], name="norm", training_mode=1),
        helper.make_node("GlobalAveragePool", ["a"], ["pooled"], name="gap"),
    ]
    with pytest.raises(WeightsError, match=r"node norm .*training mode"):
        wrap(graph_of(nodes, "pooled", ones), Preprocess(SIZE, SIZE), "it")


def test_a_yes_or_no_for_each_class_is_refused() -> None:
    """Its classes exclude nothing, and a probability over all of them would be wrong."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["a"], name="gap"),
        helper.make_node("Sigmoid", ["a"], ["b"], name="each"),
    ]
    with pytest.raises(WeightsError, match=r"node each .*yes or no"):
        wrap(graph_of(nodes, "b"), Preprocess(SIZE, SIZE), "it")


def test_constants_that_would_fill_the_memory_are_refused() -> None:
    """A file of a few bytes that asks for a terabyte."""
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["w"], name="bomb"),
        helper.make_node("Conv", ["image", "w"], ["a"], name="conv"),
        helper.make_node("GlobalAveragePool", ["a"], ["b"], name="gap"),
    ]
    with pytest.raises(WeightsError, match=r"node bomb .*2 GiB"):
        wrap(graph_of(nodes, "b", {"size": np.array([1 << 38, 3, 1, 1], np.int64)}), Preprocess(SIZE, SIZE), "it")
