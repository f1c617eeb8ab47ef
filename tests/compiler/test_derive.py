"""Engines are derived once, from the artifact's source alone; files for TensorRT's tools are written whole or not at all."""

from __future__ import annotations

import errno
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from exported import image_batch, logits
from onnx import TensorProto, numpy_helper
from tiny import tiny_options

from edge_resnet.artifact.enginecache import find_engine
from edge_resnet.artifact.folder import (
    CALIBRATION,
    CORRECTIONS,
    MANIFEST,
    MODEL,
    Artifact,
    describe_files,
    open_artifact,
    write_json,
)
from edge_resnet.compiler import derive
from edge_resnet.compiler.derive import DERIVATIONS, compile_engine, corrected_graph, tensorrt_graph, write_onnx, write_trt_cache
from edge_resnet.compiler.graph.corrections import read_corrections, read_graph, write_corrections
from edge_resnet.compiler.graph.fp16 import STRONG_OPSET
from edge_resnet.compiler.graph.trtcache import calibration_cache
from edge_resnet.core.errors import ArtifactError, BuildError, ConfigError, ExportError
from edge_resnet.core.files import sha256_of
from edge_resnet.core.records import QuantRecipe
from edge_resnet.pipelines.build import build
from edge_resnet.pipelines.engines import prepare_engine
from edge_resnet.runtime.backend import BACKENDS, backend_info


@pytest.fixture(scope="module")
def corrected(tmp_path_factory: pytest.TempPathFactory, smooth_images: Path) -> Artifact:
    """An INT8 artifact with corrected biases and an exact input. Do not modify."""
    options = tiny_options("int8", tmp_path_factory.mktemp("corrected") / "a", smooth_images)
    return build(replace(options, recipe=QuantRecipe(images=32, correction="bias", exact_input=True)))


def types(model: onnx.ModelProto) -> set[int]:
    """The types of the stored floats."""
    return {tensor.data_type for tensor in model.graph.initializer} - {TensorProto.INT8, TensorProto.INT64}


def opset(model: onnx.ModelProto) -> int:
    return int(model.opset_import[0].version)


def test_a_float_artifact_needs_none(tiny_artifacts: dict[str, Artifact]) -> None:
    """If the backend runs the artifact's graph itself, nothing is derived."""
    assert compile_engine(tiny_artifacts["fp32"]) is None
    assert compile_engine(tiny_artifacts["int8"], "fake") is None
    assert compile_engine(tiny_artifacts["int8"], variant="reference") is None


def test_what_is_cached_is_kept(tiny_int8: Path) -> None:
    """A second call neither derives nor writes."""
    artifact = open_artifact(tiny_int8)
    folder = compile_engine(artifact)
    assert folder is not None
    before = (folder / MODEL).stat().st_mtime_ns
    assert compile_engine(artifact) == folder
    assert (folder / MODEL).stat().st_mtime_ns == before


def test_a_damaged_engine_is_derived_again_and_equal(tiny_int8: Path) -> None:
    """Derivation is deterministic: the new engine has the bytes of the first."""
    artifact = open_artifact(tiny_int8)
    folder = compile_engine(artifact)
    assert folder is not None
    first = (folder / MODEL).read_bytes()
    (folder / MODEL).write_bytes(b"damaged")
    assert compile_engine(artifact) == folder
    assert (folder / MODEL).read_bytes() == first


@pytest.mark.parametrize("variant", ["native", "simulated"])
def test_engines_derive_from_the_source_alone(tiny_int8: Path, variant: str) -> None:
    """Without the engines folder, the same engine is derived again."""
    artifact = open_artifact(tiny_int8)
    folder = compile_engine(artifact, "onnxruntime", variant)  # type: ignore[arg-type]
    assert folder is not None
    first = (folder / MODEL).read_bytes()
    shutil.rmtree(tiny_int8 / "engines")
    again = compile_engine(artifact, "onnxruntime", variant)  # type: ignore[arg-type]
    assert again == folder
    assert (folder / MODEL).read_bytes() == first


def test_the_cpu_form_is_smaller(tiny_artifacts: dict[str, Artifact]) -> None:
    """Integers are stored: the engine is less than half as large as the float graph."""
    artifact = tiny_artifacts["int8"]
    folder = compile_engine(artifact)
    assert folder is not None
    assert (folder / MODEL).stat().st_size < 0.5 * artifact.model_path.stat().st_size


def test_every_derivation_belongs_to_a_backend() -> None:
    """The kinds of forms that are derived are those that backends run, except the graph, which is run as it is."""
    assert set(DERIVATIONS) | {"graph"} == {backend_info(name).form.kind for name in BACKENDS}


@pytest.mark.parametrize(
    ("precision", "dialect"),
    [("fp32", "weak"), ("fp16", "weak"), ("fp16", "strong"), ("int8", "weak"), ("int8", "strong")],
)
def test_the_typing_types_the_graph(tiny_artifacts: dict[str, Artifact], tmp_path: Path, precision: str, dialect: Any) -> None:
    """Weakly typed files are opset 17 and FP32, strongly typed ones opset 19 and FP16 after normalisation; INT8 has pairs."""
    artifact, path = tiny_artifacts[precision], tmp_path / "graph.onnx"
    write_onnx(artifact, path, dialect)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    strong = dialect == "strong"
    assert opset(model) == (STRONG_OPSET if strong else 17)
    assert types(model) == ({TensorProto.FLOAT, TensorProto.FLOAT16} if strong else {TensorProto.FLOAT})
    assert ("QuantizeLinear" in {node.op_type for node in model.graph.node}) == (precision == "int8")
    images = image_batch(32, 32, seed=1)
    assert (logits(model, images).argmax(1) == logits(tensorrt_graph(artifact, "weak"), images).argmax(1)).mean() >= 0.95


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_weakly_typed_graph_of_a_float_artifact_is_its_graph(
    tiny_artifacts: dict[str, Artifact], tmp_path: Path, precision: str
) -> None:
    """The precision is given by flags, so the file is model.onnx."""
    write_onnx(tiny_artifacts[precision], tmp_path / "graph.onnx", "weak")
    assert onnx.load(tmp_path / "graph.onnx") == onnx.load(tiny_artifacts[precision].model_path)


def test_the_weakly_typed_int8_file_is_what_is_simulated(tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """The graph for TensorRT is the one that --simulate-int8 runs, so that its accuracy is the measured one."""
    write_onnx(tiny_artifacts["int8"], tmp_path / "graph.onnx", "weak")
    folder = compile_engine(tiny_artifacts["int8"], "onnxruntime", "simulated")
    assert folder is not None
    assert onnx.load(tmp_path / "graph.onnx") == onnx.load(folder / MODEL)


def test_corrections_reach_every_form(corrected: Artifact, tmp_path: Path) -> None:
    """Biases and the exact input are in the weakly and strongly typed files, the cache's graph, and the engine for the CPU."""
    assert CORRECTIONS in corrected.manifest.files
    model = corrected_graph(corrected)
    biases = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name.endswith(".bias")}
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(corrected.model_path).graph.initializer}
    assert any(not np.array_equal(value, stored.get(name)) for name, value in biases.items())
    for dialect in ("weak", "strong"):
        written = tensorrt_graph(corrected, dialect)  # type: ignore[arg-type]
        found = {tensor.name: numpy_helper.to_array(tensor) for tensor in written.graph.initializer}
        assert all(np.array_equal(found[name], value.astype(found[name].dtype)) for name, value in biases.items())
        assert "shift" in {node.name for node in written.graph.node}
    assert onnx.load(write_trt_cache(corrected, tmp_path / "c.cache", "8.6.1")) == model
    folder = compile_engine(corrected)
    assert folder is not None
    assert "shift" in {node.name for node in onnx.load(folder / MODEL).graph.node}


def test_the_weak_typing_is_a_remedy_where_it_can_be_chosen(
    tiny_artifacts: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bias that FP16 cannot hold: a file for TensorRT may be typed weakly, an engine is typed as its TensorRT needs."""
    artifact = tiny_artifacts["fp16"]
    model = read_graph(artifact)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "fc.bias")
    bias.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(bias), 1e6), "fc.bias"))
    monkeypatch.setattr(derive, "read_graph", lambda artifact: model)
    with pytest.raises(ExportError, match=r"fc\.bias holds 1e") as caught:
        tensorrt_graph(artifact, "strong")
    assert "--fp32" in caught.value.hint
    assert "weak" not in caught.value.hint
    with pytest.raises(ExportError) as caught:
        write_onnx(artifact, tmp_path / "graph.onnx", "strong")
    assert "--dialect weak" in caught.value.hint


@pytest.mark.parametrize("name", ["plain", "corrected"])
def test_the_cache_is_of_the_graph_beside_it(
    tiny_artifacts: dict[str, Artifact], corrected: Artifact, tmp_path: Path, name: str
) -> None:
    """Every tensor of the cache is in the graph that is written with it, which is FP32 without pairs."""
    artifact = corrected if name == "corrected" else tiny_artifacts["int8"]
    graph_path = write_trt_cache(artifact, tmp_path / "sub" / "int8.cache", "10.3.0")
    assert graph_path == tmp_path / "sub" / "int8.onnx"
    model = onnx.load(graph_path)
    text = (tmp_path / "sub" / "int8.cache").read_text(encoding="ascii")
    assert text == calibration_cache(model, artifact.calibration(), "10.3.0")
    made = {output for node in model.graph.node for output in node.output}
    assert {line.rsplit(": ", 1)[0] for line in text.splitlines()[1:]} < made
    assert types(model) == {TensorProto.FLOAT}


def _write(kind: str, artifact: Artifact, path: Path, *, force: bool = False) -> None:
    if kind == "onnx":
        write_onnx(artifact, path, "weak", force=force)
    else:
        write_trt_cache(artifact, path, "8.6.1", force=force)


@pytest.mark.parametrize("kind", ["onnx", "cache"])
def test_a_file_that_is_there_is_kept_without_force(tiny_artifacts: dict[str, Artifact], tmp_path: Path, kind: str) -> None:
    """The first call writes, the second is refused and changes nothing, force replaces."""
    path = tmp_path / f"file.{kind}"
    path.write_bytes(b"mine")
    with pytest.raises(BuildError, match="exists already") as caught:
        _write(kind, tiny_artifacts["int8"], path)
    assert "--force" in caught.value.hint
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == [b"mine"]
    _write(kind, tiny_artifacts["int8"], path, force=True)
    assert path.read_bytes() != b"mine"


def test_the_graph_beside_a_cache_is_kept_too(tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """If the graph's name is taken, the cache is not written either."""
    (tmp_path / "int8.onnx").write_bytes(b"mine")
    with pytest.raises(BuildError, match=r"int8\.onnx exists already"):
        write_trt_cache(tiny_artifacts["int8"], tmp_path / "int8.cache", "8.6.1")
    assert [path.name for path in tmp_path.iterdir()] == ["int8.onnx"]


@pytest.mark.parametrize("kind", ["onnx", "cache"])
def test_what_cannot_be_written_leaves_nothing(tiny_artifacts: dict[str, Artifact], tmp_path: Path, kind: str) -> None:
    """A folder in place of the file, and a file in place of its folder, are BuildErrors, and no partial file is left."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "taken", tmp_path / "file" / "graph.cache"):
        with pytest.raises(BuildError, match=r"cannot write|is a folder"):
            _write(kind, tiny_artifacts["int8"], path, force=True)
    assert {path.name for path in tmp_path.rglob("*")} == {"taken", "file"}


def test_a_disk_that_fills_up_leaves_nothing(
    tiny_artifacts: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the second of two files does not fit on the disk, neither is written, and existing files stay."""
    (tmp_path / "x.cache").write_bytes(b"mine")
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if ".cache" in path.name:
            write(path, data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(BuildError, match="No space left"):
        write_trt_cache(tiny_artifacts["int8"], tmp_path / "x.cache", "8.6.1", force=True)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x.cache", b"mine")]


@pytest.mark.parametrize("kind", ["onnx", "cache"])
@pytest.mark.parametrize("name", [MODEL, CALIBRATION, "new.cache", "engines/x.cache"])
def test_the_artifact_itself_is_never_written_to(tiny_int8: Path, kind: str, name: str) -> None:
    """Not even with force: its manifest holds the hash of each file."""
    artifact = open_artifact(tiny_int8)
    if kind == "cache" and name == MODEL:
        name = "model.json"
    with pytest.raises(BuildError, match="in the artifact"):
        _write(kind, artifact, tiny_int8 / name, force=True)
    open_artifact(tiny_int8)


def test_unknown_and_needless_typings_are_refused(tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """There is no third typing, and FP32 needs no strong one; both errors say what to write instead."""
    with pytest.raises(ConfigError, match="'stiff'") as caught:
        write_onnx(tiny_artifacts["int8"], tmp_path / "x.onnx", "stiff")  # type: ignore[arg-type]
    assert "weak" in caught.value.hint
    assert "strong" in caught.value.hint
    with pytest.raises(ConfigError, match="is FP32") as caught:
        write_onnx(tiny_artifacts["fp32"], tmp_path / "x.onnx", "strong")
    assert "weak" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_cache_named_as_its_graph_is_refused(tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """The two files need two names."""
    with pytest.raises(ConfigError, match="name of the graph"):
        write_trt_cache(tiny_artifacts["int8"], tmp_path / "int8.onnx", "8.6.1")


@pytest.mark.parametrize("version", ["11.0.0", "8.6", "latest"])
def test_a_cache_for_another_version_is_refused_before_anything_is_written(
    tiny_artifacts: dict[str, Artifact], tmp_path: Path, version: str
) -> None:
    """Neither the cache nor its graph is written."""
    with pytest.raises(ConfigError):
        write_trt_cache(tiny_artifacts["int8"], tmp_path / "int8.cache", version)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_float_artifact_has_no_cache(tiny_artifacts: dict[str, Artifact], tmp_path: Path, precision: str) -> None:
    """It has no ranges: the error asks for --int8."""
    with pytest.raises(ArtifactError, match=r"calibration\.json") as caught:
        write_trt_cache(tiny_artifacts[precision], tmp_path / "x.cache", "8.6.1")
    assert "--int8" in caught.value.hint


def test_a_table_of_another_graph_is_refused(tiny_int8: Path, tmp_path: Path) -> None:
    """Ranges that were measured on another model.onnx are refused, for both files."""
    artifact = open_artifact(tiny_int8)
    table = json.loads((tiny_int8 / CALIBRATION).read_text(encoding="utf-8"))
    (tiny_int8 / CALIBRATION).write_text(json.dumps({**table, "model_digest": "0" * 64}), encoding="utf-8")
    for kind in ("onnx", "cache"):
        with pytest.raises(ArtifactError, match="another graph"):
            _write(kind, artifact, tmp_path / "out" / f"x.{kind}x")
    assert not (tmp_path / "out").exists()


def test_the_same_artifact_gives_the_same_bytes(tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """Files for TensorRT are as deterministic as engines are."""
    for attempt in "ab":
        write_onnx(tiny_artifacts["int8"], tmp_path / f"{attempt}.strong", "strong")
        write_trt_cache(tiny_artifacts["int8"], tmp_path / f"{attempt}.cache", "8.6.1")
    assert (tmp_path / "a.strong").read_bytes() == (tmp_path / "b.strong").read_bytes()
    assert (tmp_path / "a.cache").read_bytes() == (tmp_path / "b.cache").read_bytes()


@pytest.mark.parametrize("damage", ["no meta", "empty", "a file"])
def test_an_engine_without_its_record_is_derived_again(tiny_int8: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    """engines/ is a cache: whatever lies under an engine's name, the next command derives it and says why."""
    artifact = open_artifact(tiny_int8)
    folder = compile_engine(artifact, "onnxruntime")
    assert folder is not None
    if damage == "no meta":
        (folder / "meta.json").unlink()
    else:
        shutil.rmtree(folder)
        folder.mkdir() if damage == "empty" else folder.touch()
    with caplog.at_level(logging.WARNING, "edge_resnet"):
        prepare_engine(artifact, "onnxruntime")
    assert "will be derived again" in caplog.text
    assert find_engine(artifact, folder.name) == folder


@pytest.mark.parametrize("where", ["corrections", "graph"])
def test_values_that_are_not_finite_never_become_an_engine(corrected: Artifact, tmp_path: Path, where: str) -> None:
    """NaN in a bias or a weight is rounded to an integer zero in an engine, and class 0 would be the answer to every image."""
    folder = Path(shutil.copytree(corrected.folder, tmp_path / "a", ignore=shutil.ignore_patterns("engines")))
    if where == "corrections":
        record = read_corrections(corrected)
        assert record is not None
        biases = {node: np.full_like(bias, np.nan) for node, bias in record.biases.items()}
        write_corrections(folder / CORRECTIONS, replace(record, biases=biases))
    else:
        model = onnx.load(folder / MODEL)
        weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
        weight.CopyFrom(numpy_helper.from_array(np.full(list(weight.dims), np.nan, np.float32), weight.name))
        onnx.save(model, folder / MODEL)
        table = json.loads((folder / CALIBRATION).read_text())
        (folder / CALIBRATION).write_text(json.dumps({**table, "model_digest": sha256_of(folder / MODEL)}))
    write_json(folder / MANIFEST, replace(corrected.manifest, files=describe_files(folder)))
    with pytest.raises(ArtifactError, match="not finite numbers"):
        compile_engine(open_artifact(folder), "onnxruntime")
    assert not (folder / "engines").exists()
