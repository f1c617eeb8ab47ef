"""A device has no torch: in a process where torch cannot be imported, every form of an engine is derived from a tiny artifact."""

from __future__ import annotations

import json
import os
import pkgutil
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from gpu.pretend import pretend
from onnx import TensorProto

import edge_resnet.deployment
from edge_resnet.artifact.folder import MODEL, Artifact

#: Runs before the rest of a child's code.
WITHOUT_TORCH = """
import json, sys
from pathlib import Path

for name in ("torch", "torchvision"):
    sys.modules[name] = None
"""
#: Puts the child's artifact in ``artifact`` and its arguments in ``arguments``.
OPENED = """
from edge_resnet.artifact.folder import open_artifact
from edge_resnet.compiler import derive

arguments = sys.argv[2:]
artifact = open_artifact(Path(sys.argv[1]))
"""
CPU_FORM = """
from edge_resnet.runtime import backend

backend.has_int8_dot_product = lambda: arguments[1] == "u8s8"
print(json.dumps(str(derive.compile_engine(artifact, arguments[0]))))
"""
SIMULATION = 'print(json.dumps(str(derive.compile_engine(artifact, variant="simulated"))))'
GRAPH = "derive.write_onnx(artifact, Path(arguments[0]), arguments[1])"
CACHE = 'print(json.dumps(str(derive.write_trt_cache(artifact, Path(arguments[0]), "8.6.1"))))'
PLAN = 'print(json.dumps(str(derive.compile_engine(artifact, "tensorrt"))))'


@pytest.fixture
def derived(tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> Callable[..., Any]:
    """Runs code in a child without torch on a copy of the INT8 artifact that has no engines; returns what the child printed."""
    folder = Path(shutil.copytree(tiny_artifacts["int8"].folder, tmp_path / "artifact"))
    shutil.rmtree(folder / "engines", ignore_errors=True)

    def run(code: str, *arguments: object, environment: dict[str, str] | None = None) -> Any:
        done = child(OPENED + code, folder, *arguments, environment=environment)
        return json.loads(done) if done else None

    return run


def child(code: str, *arguments: object, environment: dict[str, str] | None = None) -> str:
    """The standard output of a process that has no torch; fails where the process does."""
    command = [sys.executable, "-c", WITHOUT_TORCH + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment or dict(os.environ))
    assert done.returncode == 0, done.stderr
    return done.stdout


def stored_types(path: Path) -> set[int]:
    """The types of a graph's constants."""
    return {tensor.data_type for tensor in onnx.load(path).graph.initializer}


def test_torch_is_blocked_in_the_child() -> None:
    """The other tests here would prove nothing if the child could import torch."""
    for name in ("torch", "torchvision"):
        with pytest.raises(AssertionError, match="ModuleNotFoundError"):
            child(f"import {name}")


@pytest.mark.parametrize("form", ["u8s8", "u8s7"])
def test_the_cpu_forms_are_derived(derived: Callable[..., Any], form: str) -> None:
    """ONNX Runtime's graph stores int8 weights, for processors with and without an int8 dot product."""
    folder = Path(derived(CPU_FORM, "onnxruntime", form))
    assert form in folder.name
    assert TensorProto.INT8 in stored_types(folder / MODEL)


def test_the_simulation_is_derived(derived: Callable[..., Any]) -> None:
    """The simulation of TensorRT's INT8 keeps float weights in front of their Q/DQ pairs."""
    folder = Path(derived(SIMULATION))
    assert {node.op_type for node in onnx.load(folder / MODEL).graph.node} >= {"QuantizeLinear", "DequantizeLinear", "Conv"}
    assert TensorProto.FLOAT in stored_types(folder / MODEL)


@pytest.mark.parametrize(("typing", "floats"), [("weak", TensorProto.FLOAT), ("strong", TensorProto.FLOAT16)])
def test_tensorrts_graphs_are_derived(derived: Callable[..., Any], tmp_path: Path, typing: str, floats: int) -> None:
    """A weakly typed graph is FP32, a strongly typed one has FP16 weights."""
    derived(GRAPH, tmp_path / "graph.onnx", typing)
    assert floats in stored_types(tmp_path / "graph.onnx")


def test_the_calibration_cache_is_derived(derived: Callable[..., Any], tmp_path: Path) -> None:
    """The cache and, beside it, the graph that it belongs to."""
    graph = Path(derived(CACHE, tmp_path / "int8.cache"))
    assert graph == tmp_path / "int8.onnx"
    onnx.checker.check_model(onnx.load(graph))
    assert (tmp_path / "int8.cache").read_text(encoding="utf-8").startswith("TRT-8601-EntropyCalibration2\n")


def test_a_plan_is_derived(derived: Callable[..., Any], tmp_path: Path, libcuda: Path, surfaces: Path) -> None:
    """TensorRT's plan, built by stand-ins of TensorRT and PyCUDA; the process that builds has no torch either."""
    environment = pretend(tmp_path / "machine", libcuda, surfaces, version="10.13.3.9")
    blocked = tmp_path / "blocked"
    for name in ("torch", "torchvision"):
        (blocked / name).mkdir(parents=True)
        (blocked / name / "__init__.py").write_text(f"raise ImportError('{name} is blocked')\n", encoding="utf-8")
    environment["PYTHONPATH"] = os.pathsep.join([str(blocked), environment["PYTHONPATH"]])
    folder = Path(derived(PLAN, environment=environment))
    assert sorted(path.name for path in folder.iterdir()) == ["engine.json", "layers.json", "meta.json", "plan.engine"]


def test_the_device_side_is_imported() -> None:
    """The modules that a device runs: deriving engines, opening them, and every module of deployment."""
    deployment = [
        module.name
        for module in pkgutil.walk_packages(edge_resnet.deployment.__path__, "edge_resnet.deployment.")
        if not module.name.endswith("__main__")
    ]
    assert len(deployment) > 3
    child(f"import {', '.join(['edge_resnet.compiler.derive', 'edge_resnet.pipelines.engines', *deployment])}")
