"""corrections.py: records are read back as written, applied corrections are what the graph computes with, and corrections of
another graph are refused."""

from __future__ import annotations

import io
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from exported import graph, image_batch, logits, small
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from edge_resnet.artifact.folder import CORRECTIONS, MANIFEST, Artifact, describe_files, open_artifact, write_json
from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.compiler.graph.corrections import (
    Corrections,
    apply,
    load_corrections,
    read_corrections,
    read_graph,
    write_corrections,
)
from edge_resnet.compiler.graph.qdq import quantize
from edge_resnet.compiler.graph.scales import weight_scales
from edge_resnet.core.errors import ArtifactError, CalibrationError

NODE = "layer1.0.conv1"


def weight_of(model: onnx.ModelProto, node: str = NODE) -> npt.NDArray[np.float32]:
    """The weight that a node reads."""
    name = next(entry.input[1] for entry in model.graph.node if entry.name == node)
    return np.array(next(numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name == name))


def some(model: onnx.ModelProto) -> Corrections:
    """Rounded weights of one node and a bias of another, as learning gives them."""
    weight = weight_of(model)
    scales = weight_scales(weight)
    integers = np.rint(weight / scales.reshape(-1, 1, 1, 1)).astype(np.int8)
    return Corrections({NODE: integers}, {NODE: scales}, {"fc": weight_of(model, "fc") * 2}, {NODE: scales * 3})


def with_file(artifact: Artifact, corrections: Corrections) -> Artifact:
    """The artifact with a corrections file in its folder and its manifest."""
    write_corrections(artifact.folder / CORRECTIONS, corrections)
    manifest = replace(artifact.manifest, files=describe_files(artifact.folder))
    write_json(artifact.folder / MANIFEST, manifest)
    return open_artifact(artifact.folder)


def test_a_record_survives_the_disk(tiny_int8: Path) -> None:
    """Every array is read back with its dtype and values, and so is the flag."""
    artifact = open_artifact(tiny_int8)
    written = replace(some(onnx.load(artifact.model_path)), exact_input=True)
    read = read_corrections(with_file(artifact, written))
    assert read is not None
    assert read.exact_input
    for kind in ("integers", "scales", "floats", "biases"):
        wanted, found = getattr(written, kind), getattr(read, kind)
        assert wanted.keys() == found.keys()
        for node in wanted:
            np.testing.assert_array_equal(found[node], wanted[node])
            assert found[node].dtype == wanted[node].dtype


def test_the_same_record_gives_the_same_bytes(tmp_path: Path) -> None:
    """A build is reproducible to the byte, whatever the order of the nodes."""
    record = some(graph(small()))
    turned = replace(record, floats=dict(reversed(record.floats.items())))
    write_corrections(tmp_path / "a.npz", record)
    write_corrections(tmp_path / "b.npz", turned)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_an_artifact_without_corrections_has_none(tiny_int8: Path) -> None:
    """A file that the manifest does not list is not read."""
    artifact = open_artifact(tiny_int8)
    (tiny_int8 / CORRECTIONS).write_bytes(b"stray")
    assert read_corrections(artifact) is None


def test_corrections_belong_to_the_source(tiny_int8: Path) -> None:
    """Engines with other corrections are never found: the source digest differs."""
    artifact = open_artifact(tiny_int8)
    assert with_file(artifact, some(onnx.load(artifact.model_path))).source_digest() != artifact.source_digest()


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18), b"not a zip at all"])
def test_a_file_that_is_no_record_is_one_error(tiny_int8: Path, content: bytes) -> None:
    """An empty file, no entries, no archive: an ArtifactError that names the file."""
    artifact = open_artifact(tiny_int8)
    (tiny_int8 / CORRECTIONS).write_bytes(content)
    listed = replace(artifact, manifest=replace(artifact.manifest, files=describe_files(tiny_int8)))
    with pytest.raises(ArtifactError, match=CORRECTIONS):
        read_corrections(listed)


def _npy(array: npt.NDArray[np.generic], header: bytes = b"") -> bytes:
    """An array as numpy writes it; ``header`` replaces its dictionary."""
    file = io.BytesIO()
    np.save(file, array)
    content = file.getvalue()
    if not header:
        return content
    return content[:8] + len(header).to_bytes(2, "little") + header + array.tobytes()


def _stored(folder: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(folder / CORRECTIONS, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(f"{name}.npy", content)
    return folder / CORRECTIONS


_EXACT = _npy(np.array(False))
_BIAS = np.ones(4, np.float32)


@pytest.mark.parametrize(
    "entries",
    [
        {},
        {"biases/x": _npy(_BIAS)},
        {"exact_input": _npy(np.array(1))},
        {"exact_input": _npy(np.zeros(2, bool))},
        {"exact_input": _EXACT, "strange/x": _npy(_BIAS)},
        {"exact_input": _EXACT, "biases/x": b""},
        {"exact_input": _EXACT, "biases/x": _npy(_BIAS)[:-1]},
        {
            "exact_input": _EXACT,
            "biases/x": _npy(_BIAS, b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,)}"),
        },
        {"exact_input": _EXACT, "biases/x": _npy(_BIAS, b"{'descr': '<f4', 'fortran_order': False, 'shape': (-4,)}")},
        {"exact_input": _EXACT, "biases/x": _npy(_BIAS, b"{'descr': '|O', 'fortran_order': False, 'shape': (2,)}")},
        {"exact_input": _EXACT, "biases/x": _npy(_BIAS, b"(" * 9000)},
        {"exact_input": _EXACT, "biases/x": _npy(np.ones((2, 2), np.float32))},
        {"exact_input": _EXACT, "biases/x": _npy(np.array(1, np.float32))},
        {"exact_input": _EXACT, "biases/x": _npy(np.ones(4, np.float64))},
        {"exact_input": _EXACT, "biases/x": _npy(np.array([1, np.nan], np.float32))},
        {"exact_input": _EXACT, "floats/x": _npy(np.full((2, 2), np.inf, np.float32))},
        {"exact_input": _EXACT, "scales/x": _npy(_BIAS)},
        {"exact_input": _EXACT, "integers/x": _npy(np.ones((3, 4), np.int8)), "scales/x": _npy(_BIAS)},
        {"exact_input": _EXACT, "integers/x": _npy(np.ones((4, 4), np.int8)), "scales/x": _npy(-_BIAS)},
        {"exact_input": _EXACT, "integers/x": _npy(np.ones((4, 4), np.int8)), "scales/x": _npy(_BIAS * np.nan)},
        {"exact_input": _EXACT, "integers/x": _npy(np.ones((4, 4), np.int32)), "scales/x": _npy(_BIAS)},
    ],
    ids=range(21),
)
def test_arrays_that_are_no_corrections(tmp_path: Path, entries: dict[str, bytes]) -> None:
    """Another size than announced, another shape or type, NaN and infinity, code: one error, and no memory is taken for them."""
    with pytest.raises(ArtifactError, match="holds no corrections") as caught:
        load_corrections(_stored(tmp_path, entries))
    assert "\n" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_nothing_is_unpacked(tmp_path: Path, method: int) -> None:
    """Compressed arrays are refused before they are unpacked: 4 KB would become 4 MB."""
    path = _stored(tmp_path, {"exact_input": _EXACT, "biases/x": _npy(np.zeros(10**6, np.float32))}, method)
    with pytest.raises(ArtifactError, match=r"larger than the file|compressed"):
        load_corrections(path)


@pytest.mark.parametrize(("place", "value"), [(6, 1), (8, 99), (4, 255)], ids=["encrypted", "method 99", "version 255"])
def test_an_archive_that_zipfile_does_not_read(tmp_path: Path, place: int, value: int) -> None:
    """Encrypted, of a method or a version that does not exist."""
    path = _stored(tmp_path, {"exact_input": _EXACT})
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02")
    content[place] = content[directory + place + 2] = value
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="holds no corrections"):
        load_corrections(path)


@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_damaged_corrections_are_one_error_or_none(tmp_path_factory: pytest.TempPathFactory, place: float, value: int) -> None:
    """A changed byte is refused or harmless, and never another exception."""
    path = tmp_path_factory.mktemp("damaged") / CORRECTIONS
    write_corrections(path, Corrections(biases={"x": _BIAS}))
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] = value
    path.write_bytes(content)
    with suppress(ArtifactError):
        load_corrections(path)


@pytest.mark.parametrize("damage", ["input", "weight"])
def test_a_graph_that_onnx_refuses_is_one_error(tiny_int8: Path, damage: str) -> None:
    """A node that reads what no node writes, and weights that are too short."""
    artifact = open_artifact(tiny_int8)
    model = onnx.load(artifact.model_path)
    if damage == "input":
        model.graph.node[5].input[0] = "nowhere"
    else:
        model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]
    onnx.save(model, artifact.model_path)
    with pytest.raises(ArtifactError, match="no ONNX graph") as caught:
        read_graph(artifact)
    assert "\n" not in caught.value.message


def test_integers_without_scales_are_refused(tiny_int8: Path) -> None:
    """The record is not complete."""
    artifact = open_artifact(tiny_int8)
    record = some(onnx.load(artifact.model_path))
    with pytest.raises(ArtifactError, match="without their scales"):
        read_corrections(with_file(artifact, replace(record, scales={})))


def test_applied_weights_are_what_the_graph_holds() -> None:
    """Integers times scales, floats as given, and the replaced bias; the given graph is not changed."""
    model = graph(small())
    before, record = model.SerializeToString(), some(model)
    corrected = apply(model, record)
    expected = record.integers[NODE] * record.scales[NODE].reshape(-1, 1, 1, 1)
    np.testing.assert_array_equal(weight_of(corrected), expected.astype(np.float32))
    np.testing.assert_array_equal(weight_of(corrected, "fc"), record.floats["fc"])
    assert model.SerializeToString() == before
    assert apply(model, None) is model


def test_a_bias_can_be_given_to_a_node_without_one() -> None:
    """Option A's shortcut has no bias; a corrected bias is added, and the graph computes with it."""
    model = graph(small("A"))
    node = next(entry for entry in model.graph.node if entry.op_type == "Conv" and len(entry.input) == 2)
    channels = len(weight_of(model, node.name))
    corrected = apply(model, Corrections(biases={node.name: np.full(channels, 0.5, np.float32)}))
    onnx.checker.check_model(corrected, full_check=True)
    assert np.abs(logits(corrected, image_batch(2, 16)) - logits(model, image_batch(2, 16))).max() > 1e-3


@pytest.mark.parametrize(
    "record",
    [
        Corrections(floats={"layer9.conv1": np.zeros((1, 1, 1, 1), np.float32)}),
        Corrections(floats={NODE: np.zeros((1, 2, 3, 3), np.float32)}),
        Corrections(biases={NODE: np.zeros(3, np.float32)}),
        Corrections(biases={"relu": np.zeros(3, np.float32)}),
    ],
)
def test_another_graphs_corrections_are_refused(record: Corrections) -> None:
    """A node, a shape or a number of biases that the graph does not have is a CalibrationError."""
    with pytest.raises(CalibrationError, match="another graph"):
        apply(graph(small()), record)


def test_learned_scales_are_the_ones_in_the_quantized_graph(tiny_int8: Path) -> None:
    """The Q/DQ pair of a learned weight reproduces exactly its integers."""
    artifact = open_artifact(tiny_int8)
    model = onnx.load(artifact.model_path)
    record, table = some(model), artifact.calibration()
    wider = replace(record, scales={NODE: record.scales[NODE] * 2})
    quantized = quantize(model, table, "tensorrt", wider)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    np.testing.assert_array_equal(constants[f"{NODE}.weight.scale"], wider.scales[NODE])
    scale = wider.scales[NODE].reshape(-1, 1, 1, 1)
    np.testing.assert_array_equal(np.rint(constants[f"{NODE}.weight"] / scale), record.integers[NODE])
    stored = quantize(model, table, "u8s8", wider)
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in stored.graph.initializer}
    np.testing.assert_array_equal(found[f"{NODE}.weight.q"], record.integers[NODE])
    assert isinstance(table, CalibrationTable)
