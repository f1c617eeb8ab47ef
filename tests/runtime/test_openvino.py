"""OpenVINO: it computes what the artifact says, with integers for INT8, and prints nothing; and where `auto` chooses it."""

from __future__ import annotations

import importlib.util
import logging
import platform
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_resnet.artifact.enginecache import EngineTuning
from edge_resnet.artifact.folder import Artifact, open_artifact
from edge_resnet.compiler.derive import compile_engine
from edge_resnet.core.errors import BackendError, ConfigError, IncompatibleEngineError
from edge_resnet.runtime.backend import load_backend, open_backend, resolve_backend

REPO = Path(__file__).resolve().parents[2]
IMAGES = np.random.default_rng(0).integers(0, 256, (16, 4, 4, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)
# Not imported here: only the backend imports it without telemetry.
installed = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")


def _logits(artifact: Artifact, backend: str, variant: Any = "native") -> npt.NDArray[np.float32]:
    compile_engine(artifact, backend, variant)
    with open_backend(artifact, backend, variant) as opened:
        return opened.infer(IMAGES)


def _layers(backend: Any, kind: str) -> list[str]:
    """The precisions in which the compiled network computes the layers of a kind."""
    infos = [node.get_rt_info() for node in backend._network.get_runtime_model().get_ordered_ops()]
    return [str(info["runtimePrecision"].value) for info in infos if info["layerType"].value == kind]


@installed
@pytest.mark.parametrize("variant", ["native", "reference"])
def test_float_is_onnx_runtimes(tiny_artifacts: dict[str, Artifact], variant: str) -> None:
    """FP32, and the reference of INT8, equal the FP32 graph to the last digits, even on processors that prefer bfloat16."""
    artifact = tiny_artifacts["fp32" if variant == "native" else "int8"]
    expected = _logits(artifact, "onnxruntime", variant)
    np.testing.assert_allclose(_logits(artifact, "openvino", variant), expected, atol=1e-4 * float(np.abs(expected).max()))


@installed
@pytest.mark.skipif(platform.machine() != "x86_64", reason="which integers an Arm processor gets was not seen")
def test_int8_runs_in_integers(tiny_artifacts: dict[str, Artifact]) -> None:
    """Every convolution of an INT8 artifact takes 8-bit integers, and none of its FP32 reference does."""
    with open_backend(tiny_artifacts["int8"], "openvino") as backend:
        integers = _layers(backend, "Convolution")
    with open_backend(tiny_artifacts["int8"], "openvino", "reference") as backend:
        floats = _layers(backend, "Convolution")
    assert len(integers) == len(floats) > 5
    assert set(integers) <= {"u8", "i8"}
    assert set(floats) == {"f32"}


@installed
@pytest.mark.parametrize(
    ("other", "variant"), [("onnxruntime", "native"), ("onnxruntime", "simulated"), ("openvino", "reference")]
)
def test_int8_is_near_its_relatives(tiny_artifacts: dict[str, Artifact], other: str, variant: str) -> None:
    """INT8 lies within a quarter of the logits' spread of ONNX Runtime's, of TensorRT's simulated and of FP32's."""
    artifact = tiny_artifacts["int8"]
    expected = _logits(artifact, other, variant)
    assert float(np.abs(_logits(artifact, "openvino") - expected).mean()) < float(expected.std()) / 4


@installed
def test_int8_is_another_computation_than_fp32(tiny_artifacts: dict[str, Artifact]) -> None:
    """The reference is not INT8 by mistake."""
    artifact = tiny_artifacts["int8"]
    assert not np.allclose(_logits(artifact, "openvino"), _logits(artifact, "openvino", "reference"), atol=1e-4)


@installed
@pytest.mark.parametrize("dot_product", [True, False])
def test_the_graph_is_shared_with_onnx_runtime(
    tiny_artifacts: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch, dot_product: bool
) -> None:
    """An engine that was derived for one of the two is used by the other: the keys are equal, on either kind of processor."""
    monkeypatch.setattr("edge_resnet.runtime.backend.has_int8_dot_product", lambda: dot_product)
    requests = [load_backend(name).engine_request(tiny_artifacts["int8"], "native") for name in ("openvino", "onnxruntime")]
    assert requests[0] == requests[1]
    assert requests[0] is not None
    assert requests[0].form == ("u8s8" if dot_product else "u8s7")


@installed
def test_float_artifacts_run_as_they_are(tiny_artifacts: dict[str, Artifact]) -> None:
    """FP32, FP16 and every reference need no engine."""
    backend = load_backend("openvino")
    assert all(backend.engine_request(tiny_artifacts[precision], "native") is None for precision in ("fp32", "fp16"))
    assert all(backend.engine_request(artifact, "reference") is None for artifact in tiny_artifacts.values())


@installed
def test_a_missing_engine_names_compile(tiny_int8: Path) -> None:
    """Without the engine, the error names the command that derives it; that command fixes it."""
    shutil.rmtree(tiny_int8 / "engines")
    artifact = open_artifact(tiny_int8)
    with pytest.raises(IncompatibleEngineError, match="u8s") as caught:
        open_backend(artifact, "openvino")
    assert "edge-resnet compile" in caught.value.hint
    assert compile_engine(artifact, "openvino") is not None
    with open_backend(artifact, "openvino") as backend:
        assert backend.infer(IMAGES).shape == (16, 10)


@installed
def test_the_options_of_other_backends_are_refused(tiny_artifacts: dict[str, Artifact]) -> None:
    """The simulation of TensorRT and a tuning for TensorRT are ConfigErrors that name the backend that has them."""
    with pytest.raises(ConfigError, match="does not simulate") as caught:
        open_backend(tiny_artifacts["int8"], "openvino", "simulated")
    assert "onnxruntime" in caught.value.hint
    with pytest.raises(ConfigError, match="options of TensorRT"):
        load_backend("openvino").engine_request(tiny_artifacts["int8"], "native", EngineTuning(workspace_mib=64))


@installed
@pytest.mark.parametrize("half", [True, False])
def test_fp16_is_half_precision_or_warns(
    tiny_artifacts: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, half: bool
) -> None:
    """A processor without half precision computes FP32, with a warning; one that has it computes FP16."""
    load_backend("openvino")
    module = sys.modules["edge_resnet.runtime.openvino"]
    asked = []
    monkeypatch.setattr(module, "_computes_in_half", lambda: half)
    monkeypatch.setattr(module.OpenVinoBackend, "__init__", lambda self, *_, half: asked.append(half))
    with caplog.at_level(logging.WARNING, "edge_resnet"):
        open_backend(tiny_artifacts["fp16"], "openvino")
    assert asked == [half]
    assert ("in FP32" in caplog.text) is not half


@installed
def test_it_takes_the_cores_that_it_may_use(tiny_artifacts: dict[str, Artifact]) -> None:
    """One thread per usable core, none of them pinned, and the caller may use the same cores afterwards."""
    import os

    before = os.sched_getaffinity(0)
    with open_backend(tiny_artifacts["int8"], "openvino") as backend:
        backend.infer(IMAGES)
        assert backend._network.get_property("INFERENCE_NUM_THREADS") == len(before)  # type: ignore[attr-defined]
        assert backend._network.get_property("ENABLE_CPU_PINNING") is False  # type: ignore[attr-defined]
    assert os.sched_getaffinity(0) == before


@installed
def test_images_that_must_not_be_written(tiny_artifacts: dict[str, Artifact]) -> None:
    """A read-only array is accepted, and results outlive the backend."""
    images = IMAGES.copy()
    images.flags.writeable = False
    with open_backend(tiny_artifacts["int8"], "openvino") as backend:
        logits = backend.infer(images)
        kept = logits.copy()
        backend.infer(IMAGES[::-1])
    assert np.array_equal(logits, kept)
    logits[:] = 0


@installed
def test_closing_waits_for_running_calls(tiny_artifacts: dict[str, Artifact]) -> None:
    """If it is closed while four threads infer, each call returns whole logits or raises that the backend is closed."""
    backend = open_backend(tiny_artifacts["int8"], "openvino")
    expected = backend.infer(IMAGES)
    started = threading.Barrier(5)

    def work() -> int:
        started.wait()
        for count in range(10_000):
            try:
                logits = backend.infer(IMAGES)
            except BackendError as error:
                return count if "closed" in error.message else -1
            if not np.array_equal(logits, expected):
                return -1
        raise AssertionError("it was never closed")

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(work) for _ in range(4)]
        started.wait()
        backend.close()
        assert all(worker.result(timeout=60) >= 0 for worker in workers)


@installed
def test_a_graph_that_is_none(tmp_path: Path) -> None:
    """A file that OpenVINO cannot load is a BackendError of one line, with a hint."""
    (tmp_path / "x.onnx").write_bytes(bytes(1000))
    backend: Any = load_backend("openvino")
    with pytest.raises(BackendError, match="OpenVINO cannot load") as caught:
        backend(tmp_path / "x.onnx", 10, 32)
    assert "\n" not in caught.value.message
    assert "onnxruntime" in caught.value.hint


@installed
def test_a_failure_while_it_runs(tiny_artifacts: dict[str, Artifact]) -> None:
    """An exception of OpenVINO during a run is a BackendError of one line, and the backend still works."""
    with open_backend(tiny_artifacts["fp32"], "openvino") as backend:
        backend._input_size = 16  # type: ignore[attr-defined]  # so that an image of another size reaches the network
        with pytest.raises(BackendError, match=r"OpenVINO failed: .*incompatible") as caught:
            backend.infer(np.zeros((1, 16, 16, 3), np.uint8))
        assert "\n" not in caught.value.message
        backend._input_size = 32  # type: ignore[attr-defined]
        assert backend.infer(IMAGES).shape == (16, 10)


@installed
def test_it_is_silent(tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """A run writes nothing to stdout or stderr, sends no telemetry, and leaves nothing in the home folder."""
    folder = str(tiny_artifacts["int8"].folder)
    code = f"""
import sys, socket
def refuse(*_): raise AssertionError("the network was asked for")
socket.socket.connect = socket.getaddrinfo = refuse
import numpy as np
from pathlib import Path
from edge_resnet.artifact.folder import open_artifact
from edge_resnet.runtime.backend import open_backend
with open_backend(open_artifact(Path({folder!r})), "openvino") as backend:
    backend.infer(np.zeros((1, 32, 32, 3), np.uint8))
assert "openvino" in sys.modules
assert "openvino_telemetry" not in sys.modules
"""
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=REPO, env=environment, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("packages", "machine", "dot_product", "chosen"),
    [
        ({"openvino", "onnxruntime"}, "x86_64", True, "openvino"),
        ({"openvino", "onnxruntime"}, "x86_64", False, "onnxruntime"),
        ({"openvino", "onnxruntime"}, "aarch64", True, "onnxruntime"),
        ({"onnxruntime"}, "x86_64", True, "onnxruntime"),
    ],
)
def test_where_auto_chooses_it(
    monkeypatch: pytest.MonkeyPatch, packages: set[str], machine: str, dot_product: bool, chosen: str
) -> None:
    """`auto` chooses it on x86 with VNNI, where it was measured to be faster; ONNX Runtime runs the simulation everywhere."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in packages else None)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("edge_resnet.runtime.openvino.has_int8_dot_product", lambda: dot_product)
    assert resolve_backend("auto") == chosen
    assert resolve_backend("auto", "simulated") == "onnxruntime"
    assert resolve_backend("openvino") == "openvino"


def test_listing_the_backends_loads_none_of_them() -> None:
    """Resolving `auto` looks for packages, and imports none of the libraries."""
    code = (
        "import sys\nfrom edge_resnet.runtime.backend import resolve_backend\nresolve_backend('auto')\n"
        "print(sorted({'openvino', 'onnxruntime', 'tensorrt'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPO)
    assert done.stdout == "[]\n"
