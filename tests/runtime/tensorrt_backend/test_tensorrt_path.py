"""Artifact → plan → logits on stand-ins of TensorRT, PyCUDA and the driver: the whole path of a machine with a GPU."""

from __future__ import annotations

import ctypes
import importlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from standins import pycuda_driver
from standins.surface import VERSIONS, strict
from standins.tensorrt_build import BUILD_CLASSES
from standins.tensorrt_run import RUN_CLASSES, answers

from edge_resnet.artifact.enginecache import EngineTuning
from edge_resnet.artifact.folder import Artifact, open_artifact
from edge_resnet.core.errors import ConfigError, IncompatibleEngineError
from edge_resnet.core.records import Precision
from edge_resnet.device.gpu import driver_cuda
from edge_resnet.runtime.backend import open_backend, resolve_backend
from edge_resnet.runtime.tensorrt import cuda as interface
from edge_resnet.runtime.tensorrt import gate
from edge_resnet.runtime.tensorrt.cudagraph import Recorder

MODULES = tuple(f"runtime.tensorrt.{name}" for name in ("inference", "plans", "slots", "cuda"))
PACKAGE = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from standins.surface import strict
from standins.tensorrt_build import BUILD_CLASSES
sys.modules[__name__] = strict({version!r}, BUILD_CLASSES, Path({surfaces!r}))
"""


@pytest.fixture
def machine(tmp_path: Path, surfaces: Path, libcuda: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Makes this machine one with a GPU and a TensorRT of that version, for this process and its children."""
    packages = tmp_path / "packages"
    packages.mkdir()
    driver = importlib.import_module("edge_resnet.device.gpu")
    monkeypatch.setattr(driver.first_gpu, "__defaults__", (str(libcuda),))
    monkeypatch.setattr(Recorder.__init__, "__defaults__", (str(libcuda),))
    pycuda_driver.record_through(ctypes.CDLL(str(libcuda)))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(libcuda.parent))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(packages), *sys.path]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def become(version: str) -> None:
        text = PACKAGE.format(tests=str(Path(__file__).resolve().parents[2]), version=version, surfaces=str(surfaces))
        (packages / "tensorrt.py").write_text(text, encoding="utf-8")
        package, gpu = ModuleType("pycuda"), pycuda_driver.driver(integrated=False)
        package.driver = gpu  # type: ignore[attr-defined]
        trt = strict(version, {**BUILD_CLASSES, **RUN_CLASSES}, surfaces)
        for module in (package, gpu, trt):
            module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None, origin="stand-in")
        for name, module in {"pycuda": package, "pycuda.driver": gpu, "tensorrt": trt}.items():
            monkeypatch.setitem(sys.modules, name, module)
        for name in MODULES:
            sys.modules.pop(f"edge_resnet.{name}", None)

    yield become
    for name in MODULES:
        sys.modules.pop(f"edge_resnet.{name}", None)


def engines(artifact: Artifact) -> list[str]:
    return sorted(path.name for path in artifact.folder.glob("engines/tensorrt-*"))


@pytest.mark.parametrize(
    ("version", "precision"),
    [
        # Each compiles in a child: every precision with the oldest and the newest, INT8 with all.
        pytest.param(version, precision, marks=pytest.mark.slow if version in VERSIONS[1:-1] and precision != "int8" else ())
        for version in VERSIONS
        for precision in ("fp32", "fp16", "int8")
    ],
)
def test_an_artifact_becomes_answers(
    machine: Callable[[str], None], tiny_artifacts: dict[str, Artifact], tmp_path: Path, version: str, precision: Precision
) -> None:
    """Compiled once, opened, run; the facts say what the plan is valid for, and no graph is left."""
    from edge_resnet.compiler.derive import compile_engine

    machine(version)
    artifact = _copy(tiny_artifacts[precision], tmp_path)
    folder = compile_engine(artifact, "tensorrt")
    assert folder is not None
    assert sorted(path.name for path in folder.iterdir()) == ["engine.json", "layers.json", "meta.json", "plan.engine"]
    facts = json.loads((folder / "engine.json").read_text(encoding="utf-8"))
    assert (facts["tensorrt"], facts["gpu"], facts["options"]["precision"]) == (version, "NVIDIA Stand-in", precision)
    stamp = (folder / "plan.engine").stat().st_mtime_ns
    assert compile_engine(artifact, "tensorrt") == folder
    assert (folder / "plan.engine").stat().st_mtime_ns == stamp, "what is cached is kept"
    size = artifact.manifest.model.input_size
    images = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    with open_backend(artifact, "tensorrt") as backend:
        np.testing.assert_array_equal(backend.infer(images), answers(images, backend.classes))


def test_another_gpu_or_version_gets_its_own_engine(
    machine: Callable[[str], None],
    tiny_artifacts: dict[str, Artifact],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Another machine's plan is never loaded: the error names the command, the log the reason; compiling adds an engine."""
    from edge_resnet.compiler.derive import compile_engine

    machine("10.3.0")
    artifact = _copy(tiny_artifacts["fp16"], tmp_path)
    compile_engine(artifact, "tensorrt")
    monkeypatch.setenv("STUB_NAME", "NVIDIA Other")
    with caplog.at_level(logging.WARNING, logger="edge_resnet"), pytest.raises(IncompatibleEngineError) as caught:
        open_backend(artifact, "tensorrt")
    assert "compile" in caught.value.hint
    assert "the GPU was NVIDIA Stand-in, is NVIDIA Other" in caplog.text
    compile_engine(artifact, "tensorrt")
    machine("11.4.0.106")
    with pytest.raises(IncompatibleEngineError):
        open_backend(artifact, "tensorrt")
    assert len(engines(artifact)) == 2


def test_a_damaged_plan_is_built_again(
    machine: Callable[[str], None], tiny_artifacts: dict[str, Artifact], tmp_path: Path
) -> None:
    """One changed byte is detected before TensorRT reads the plan."""
    from edge_resnet.compiler.derive import compile_engine

    machine("10.3.0")
    artifact = _copy(tiny_artifacts["int8"], tmp_path)
    folder = compile_engine(artifact, "tensorrt")
    assert folder is not None
    plan = folder / "plan.engine"
    whole = plan.read_bytes()
    plan.write_bytes(whole[:-1] + b"!")
    assert compile_engine(artifact, "tensorrt") == folder
    assert plan.read_bytes() == whole


def test_an_engine_that_was_tuned_is_kept_and_used(
    machine: Callable[[str], None], tiny_artifacts: dict[str, Artifact], tmp_path: Path
) -> None:
    """Each tuning has its own engine; compiling without a tuning accepts either, and the one that was written last is run."""
    from edge_resnet.compiler.derive import compile_engine

    machine("10.3.0")
    artifact = _copy(tiny_artifacts["int8"], tmp_path)
    tuned = compile_engine(artifact, "tensorrt", tuning=EngineTuning(512, 5))
    assert tuned is not None
    assert compile_engine(artifact, "tensorrt") == tuned
    assert json.loads((tuned / "plan.engine").read_bytes())["pools"] == {"WORKSPACE": 512 << 20}
    plain = compile_engine(artifact, "tensorrt", tuning=EngineTuning())
    assert plain is not None
    assert plain != tuned
    assert compile_engine(artifact, "tensorrt") == plain
    open_backend(artifact, "tensorrt").close()
    with pytest.raises(ConfigError, match="options of TensorRT"):
        compile_engine(artifact, "onnxruntime", tuning=EngineTuning(512))


def test_a_version_compatible_engine_outlives_an_upgrade(
    machine: Callable[[str], None],
    tiny_artifacts: dict[str, Artifact],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It runs on a later TensorRT of the same major version, with its own code allowed, and not on another GPU."""
    from edge_resnet.compiler.derive import compile_engine

    machine("10.3.0")
    artifact = _copy(tiny_artifacts["fp16"], tmp_path)
    compile_engine(artifact, "tensorrt", tuning=EngineTuning(version_compatible=True))
    machine(VERSIONS[2])
    with open_backend(artifact, "tensorrt") as backend:
        assert backend._runtime.engine_host_code_allowed is True  # type: ignore[attr-defined]
    machine("11.4.0.106")
    with caplog.at_level(logging.WARNING, logger="edge_resnet"), pytest.raises(IncompatibleEngineError):
        open_backend(artifact, "tensorrt")
    assert "TensorRT was 10.3.0, is 11.4.0.106" in caplog.text
    machine(VERSIONS[2])
    monkeypatch.setenv("STUB_NAME", "NVIDIA Other")
    with pytest.raises(IncompatibleEngineError):
        open_backend(artifact, "tensorrt")
    compile_engine(artifact, "tensorrt")
    with open_backend(artifact, "tensorrt") as backend:
        assert backend._runtime.engine_host_code_allowed is False  # type: ignore[attr-defined]


def test_a_record_that_cannot_be_read_is_no_engine(
    machine: Callable[[str], None],
    tiny_artifacts: dict[str, Artifact],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The reason is logged, and the engine is built again."""
    from edge_resnet.compiler.derive import compile_engine

    machine("10.3.0")
    artifact = _copy(tiny_artifacts["fp16"], tmp_path)
    folder = compile_engine(artifact, "tensorrt")
    assert folder is not None
    for damage in ("{}", "not json", '{"tensorrt": "10.3.0"}'):
        caplog.clear()
        (folder / "engine.json").write_text(damage, encoding="utf-8")
        with caplog.at_level(logging.WARNING, logger="edge_resnet"):
            compile_engine(artifact, "tensorrt")
        assert "its record cannot be read" in caplog.text, damage
        open_backend(artifact, "tensorrt").close()


def test_auto_takes_the_gpu_where_there_is_one(machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """With TensorRT, PyCUDA and a GPU, auto is TensorRT; without a GPU it is a CPU backend, whatever is installed."""
    machine("10.3.0")
    assert resolve_backend("auto") == "tensorrt"
    assert resolve_backend("auto", "simulated") == "onnxruntime"
    monkeypatch.setenv("STUB_FAILS", "cuInit=100")
    assert resolve_backend("auto") in {"openvino", "onnxruntime"}


@pytest.mark.parametrize("lacks", ["bindings", "tensorrt", ""])
def test_auto_passes_over_a_driver_that_is_too_old(
    machine: Callable[[str], None], libcuda: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lacks: str
) -> None:
    """For cuda.core where there is no PyCUDA, or for TensorRT itself: one line, once, and the next backend is taken."""
    machine("10.3.0")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setattr(driver_cuda, "__defaults__", (str(libcuda),))
    monkeypatch.setenv("STUB_CUDA", "12040")
    monkeypatch.setattr(interface, "installed_version", {"cuda-bindings": "13.5.0"}.get)
    monkeypatch.setattr(gate, "needed_cuda", lambda name, version: 13 if lacks == "tensorrt" else None)
    monkeypatch.setattr(gate, "refuse_driver_of_cuda", interface.refuse_driver_of_cuda)
    gate._say_passed_over.cache_clear()
    if lacks == "bindings":
        monkeypatch.setitem(sys.modules, "pycuda", None)
    with caplog.at_level(logging.WARNING, logger="edge_resnet"):
        taken = {resolve_backend("auto") for _ in range(3)}
    told = [record.getMessage() for record in caplog.records]
    if not lacks:
        assert (taken, told) == ({"tensorrt"}, [])
        return
    assert taken < {"openvino", "onnxruntime"}
    what = {"bindings": "cuda-bindings 13.5.0", "tensorrt": "TensorRT"}[lacks]
    assert len(told) == 1
    assert f"tensorrt is passed over: the NVIDIA driver runs CUDA up to 12.4, and {what} needs CUDA 13" in told[0]
    assert "install the driver 580 or newer" in told[0]


def test_without_tensorrt_there_is_one_line(tiny_artifacts: dict[str, Artifact]) -> None:
    """``--backend tensorrt`` on a machine without it: exit 1, what is missing and how to install it, no traceback."""
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed")
    command = [sys.executable, "-m", "edge_resnet", "compile", str(tiny_artifacts["int8"].folder), "--backend", "tensorrt"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines() == ["error: backend tensorrt needs tensorrt", "hint: pip install 'edge-resnet[tensorrt]'"]


def _copy(artifact: Artifact, folder: Path) -> Artifact:
    return open_artifact(Path(shutil.copytree(artifact.folder, folder / "artifact")))
