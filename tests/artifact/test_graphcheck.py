"""Graphs: what edge-resnet writes is accepted, and nothing that hangs, reads other files, or always answers the first class."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from exported import exported, graph, small
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edge_resnet.artifact.folder import MODEL, Artifact
from edge_resnet.artifact.graphcheck import check_graph
from edge_resnet.compiler.derive import compile_engine, tensorrt_graph
from edge_resnet.core.errors import ArtifactError


def _refusal(folder: Path, content: onnx.ModelProto | bytes) -> str:
    """Why a graph is refused."""
    path = folder / MODEL
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    with pytest.raises(ArtifactError) as caught:
        check_graph(path)
    assert caught.value.hint
    return caught.value.message


@pytest.mark.parametrize("shortcut", ["A", "B", "C"])
@pytest.mark.parametrize("plain", [False, True])
def test_every_network_is_accepted(tmp_path: Path, shortcut: str, plain: bool) -> None:
    """Of each shortcut, with and without them."""
    (tmp_path / MODEL).write_bytes(exported(small(shortcut, plain=plain)))
    check_graph(tmp_path / MODEL)


def test_every_form_is_accepted(tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """The Q/DQ graphs for the CPU and for TensorRT, weakly and strongly typed."""
    folder = compile_engine(tiny_artifacts["int8"], "onnxruntime")
    assert folder is not None
    check_graph(folder / MODEL)
    for precision in ("fp16", "int8"):
        for typing in ("weak", "strong"):
            onnx.save(tensorrt_graph(tiny_artifacts[precision], typing), tmp_path / MODEL)
            check_graph(tmp_path / MODEL)


def _loop() -> onnx.NodeProto:
    """A loop that never ends."""
    true = helper.make_node("Constant", [], ["go"], value=numpy_helper.from_array(np.array(True)))
    values = [helper.make_tensor_value_info(name, kind, []) for name, kind in (("i", TensorProto.INT64), ("c", TensorProto.BOOL))]
    body = helper.make_graph([true], "body", values, [helper.make_tensor_value_info("go", TensorProto.BOOL, [])])
    return helper.make_node("Loop", ["", "on"], [], name="loop", body=body)


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (_loop(), "subgraph"),
        (helper.make_node("Loop", [], ["x"]), "'Loop'"),
        (helper.make_node("ConstantOfShape", ["shape"], ["x"]), "'ConstantOfShape'"),
        (helper.make_node("Conv", ["x"], ["y"], domain="com.example"), "'com.example'"),
        (onnx.NodeProto(), "operator"),
    ],
)
def test_what_is_no_layer_is_refused(tmp_path: Path, node: onnx.NodeProto, reason: str) -> None:
    """An endless loop, operators that take memory for nothing, and code of a plug-in."""
    model = graph(small())
    model.graph.node.append(node)
    assert reason in _refusal(tmp_path, model)


def test_weights_stay_in_the_file(tmp_path: Path) -> None:
    """A tensor of another file is refused, in an initializer and in an attribute; so are functions and sparse weights."""
    outside = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="/etc/passwd")
    model = graph(small())
    model.graph.initializer.append(outside)
    assert "outside the file" in _refusal(tmp_path, model)
    model = graph(small())
    model.graph.node.append(helper.make_node("Constant", [], ["x"], value=outside))
    assert "outside the file" in _refusal(tmp_path, model)
    model = graph(small())
    model.functions.add(name="f", domain="d")
    assert "functions" in _refusal(tmp_path, model)
    model = graph(small())
    model.graph.sparse_initializer.add()
    assert "sparse" in _refusal(tmp_path, model)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["raw", "list", "half", "double"])
def test_weights_are_finite(tmp_path: Path, value: float, kind: str) -> None:
    """NaN in any layer is refused in each way that ONNX stores numbers: rounded to int8 it is zero, and the answer class 0."""
    model = graph(small())
    tensor = model.graph.initializer[len(model.graph.initializer) // 2]
    array = np.array(numpy_helper.to_array(tensor), {"half": np.float16, "double": np.float64}.get(kind, np.float32))
    array.flat[-1] = value
    if kind == "list":
        tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.FLOAT, array.shape, array.ravel().tolist()))
    else:
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    assert "not finite" in _refusal(tmp_path, model)


@pytest.mark.parametrize("content", [b"", b"\0", b"x" * 1000, b"\x80" * 20, b"\x0b\x0c", b"\x08" + b"\x01\x08" * 301_000])
def test_what_is_no_graph_is_refused(tmp_path: Path, content: bytes) -> None:
    """Empty, text, endless numbers, groups, and a million fields of nothing."""
    assert "cut off or not an ONNX graph" in _refusal(tmp_path, content)


@given(share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=25)
def test_a_graph_cut_short_is_refused(tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    """Wherever the file ends too early."""
    content = exported(small())
    cut = content[: int(share * (content.rindex(b"images") - 4))]  # behind the nodes and the weights nothing is left to lose
    _refusal(tmp_path_factory.mktemp("cut"), cut)


@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_a_damaged_graph_is_one_error_or_none(tmp_path_factory: pytest.TempPathFactory, place: float, value: int) -> None:
    """A changed byte is refused or harmless, and never another exception."""
    content = bytearray(exported(small()))
    content[int(place * min(len(content), 4000))] = value
    path = tmp_path_factory.mktemp("damaged") / MODEL
    path.write_bytes(content)
    with suppress(ArtifactError):
        check_graph(path)
