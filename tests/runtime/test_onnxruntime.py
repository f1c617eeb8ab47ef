"""ONNX Runtime: which graph each variant runs, and the error if it is missing."""

from __future__ import annotations

import ast
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from edge_resnet.artifact.enginecache import store_engine
from edge_resnet.artifact.folder import MODEL, Artifact, open_artifact
from edge_resnet.compiler.derive import compile_engine
from edge_resnet.core.errors import ArtifactError, BackendError, IncompatibleEngineError
from edge_resnet.runtime.onnxruntime import OnnxRuntimeBackend

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 4, 4, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)


def test_float_artifacts_run_as_they_are(tiny_artifacts: dict[str, Artifact]) -> None:
    """FP32 and FP16 need no engine, in any variant."""
    for precision in ("fp32", "fp16"):
        for variant in ("native", "simulated", "reference"):
            assert OnnxRuntimeBackend.engine_request(tiny_artifacts[precision], variant) is None  # type: ignore[arg-type]


def test_fp16_warns_that_it_is_fp32(tiny_artifacts: dict[str, Artifact], caplog: pytest.LogCaptureFixture) -> None:
    """A warning says that this backend has no half precision."""
    with caplog.at_level(logging.WARNING, "edge_resnet"), OnnxRuntimeBackend.open(tiny_artifacts["fp16"], "native"):
        pass
    assert "in FP32" in caplog.text


@pytest.mark.parametrize(("dot_product", "form"), [(True, "u8s8"), (False, "u8s7")])
def test_the_form_follows_the_cpu(
    tiny_artifacts: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch, dot_product: bool, form: str
) -> None:
    """Without an int8 dot product the weights keep seven bits; the simulation is TensorRT's form on any CPU."""
    monkeypatch.setattr("edge_resnet.runtime.backend.has_int8_dot_product", lambda: dot_product)
    native = OnnxRuntimeBackend.engine_request(tiny_artifacts["int8"], "native")
    simulated = OnnxRuntimeBackend.engine_request(tiny_artifacts["int8"], "simulated")
    assert native is not None
    assert simulated is not None
    assert (native.form, simulated.form) == (form, "tensorrt")
    assert native.key != simulated.key
    digest = tiny_artifacts["int8"].source_digest()[:12]
    assert native.key == f"onnxruntime-{form}-v3-{digest}"  # engines in today's artifacts have this key
    assert simulated.key == f"onnxruntime-tensorrt-v3-{digest}"


def test_int8_and_its_reference_are_near_but_not_equal(tiny_artifacts: dict[str, Artifact]) -> None:
    """INT8 is a different computation, and stays within a quarter of the logits' spread of FP32."""
    artifact = tiny_artifacts["int8"]
    compile_engine(artifact, "onnxruntime", "simulated")
    logits = {}
    for variant in ("native", "simulated", "reference"):
        with OnnxRuntimeBackend.open(artifact, variant) as backend:  # type: ignore[arg-type]
            logits[variant] = backend.infer(IMAGES)
    with OnnxRuntimeBackend.open(tiny_artifacts["fp32"], "native") as backend:
        assert np.array_equal(backend.infer(IMAGES), logits["reference"])
    spread = float(logits["reference"].std())
    for variant in ("native", "simulated"):
        difference = float(np.abs(logits[variant] - logits["reference"]).mean())
        assert 0 < difference < spread / 4


def test_an_engine_that_is_no_network_is_refused(tiny_int8: Path) -> None:
    """Its graph is checked as the artifact's is, even if its record has the right hash."""
    artifact = open_artifact(tiny_int8)
    request = OnnxRuntimeBackend.engine_request(artifact, "native")
    assert request is not None
    graph = onnx.load(artifact.model_path)
    graph.graph.node.append(onnx.helper.make_node("Loop", [], ["x"]))
    store_engine(artifact, request.key, request.form, lambda folder: onnx.save(graph, folder / MODEL))
    with pytest.raises(ArtifactError, match="'Loop'"):
        OnnxRuntimeBackend.open(artifact, "native")


def test_a_missing_engine_names_compile(tiny_int8: Path) -> None:
    """Without the engine, the error names the command that derives it; that command fixes it."""
    shutil.rmtree(tiny_int8 / "engines")
    artifact = open_artifact(tiny_int8)
    with pytest.raises(IncompatibleEngineError, match="u8s") as caught:
        OnnxRuntimeBackend.open(artifact, "native")
    assert "edge-resnet compile" in caught.value.hint
    compile_engine(artifact)
    with OnnxRuntimeBackend.open(artifact, "native") as backend:
        assert backend.infer(IMAGES).shape == (4, 10)


@pytest.mark.parametrize("content", [b"", b"not a graph", bytes(1000)])
def test_a_graph_that_is_none(tmp_path: Path, content: bytes) -> None:
    """A file that ONNX Runtime cannot load is a BackendError of one line."""
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(BackendError) as caught:
        OnnxRuntimeBackend(tmp_path / "x.onnx", 10, 32)
    assert "\n" not in caught.value.message


def test_it_reports_nothing(tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """A run leaves nothing in the home folder, and nothing on stderr where that cannot be written."""
    code = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from edge_resnet.artifact.folder import open_artifact\n"
        "from edge_resnet.runtime.backend import open_backend\n"
        "with open_backend(open_artifact(Path(sys.argv[1])), 'onnxruntime') as backend:\n"
        "    backend.infer(np.zeros((1, 32, 32, 3), np.uint8))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    command = [sys.executable, "-c", code, str(tiny_artifacts["fp32"].folder)]
    for home in (tmp_path, Path("/proc")):
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=60, env=environment | {"HOME": str(home)}
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_nothing_else_imports_it() -> None:
    """Only load_onnxruntime imports the library, with its telemetry off."""
    package = Path(__file__).resolve().parents[2] / "edge_resnet"
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text if "onnxruntime" in text else "")):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            typing_only = path.name == "onnxruntime.py" and path.parent.name == "runtime"
            assert typing_only or not any(name.partition(".")[0] == "onnxruntime" for name in imported), path
