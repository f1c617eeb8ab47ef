"""Fixtures for the tests of backends: TensorRT's backend on stand-ins of TensorRT, PyCUDA and the driver."""

from __future__ import annotations

import ctypes
import importlib
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from standins import pycuda_driver, tensorrt_run
from standins.surface import strict
from standins.tensorrt_run import plan

from edge_resnet.artifact.folder import Artifact, open_artifact
from edge_resnet.core.records import Preprocess
from edge_resnet.runtime.tensorrt.cudagraph import Recorder

pytest.register_assert_rewrite("conformance")

MODULES = tuple(f"runtime.tensorrt.{name}" for name in ("inference", "plans", "slots", "cuda"))
#: The preprocessing of the stand-in's network, whose input is 8 pixels wide.
PREPROCESS = Preprocess(resize=9, crop=8)


@pytest.fixture(scope="module", params=["fp32", "int8"])
def tiny_copy(
    request: pytest.FixtureRequest, tiny_artifacts: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory
) -> Artifact:
    """A copy of the tiny artifact of each precision, to which engines may be added."""
    folder = tmp_path_factory.mktemp("copy") / "artifact"
    return open_artifact(Path(shutil.copytree(tiny_artifacts[request.param].folder, folder)))


@pytest.fixture
def make(libcuda: Path, surfaces: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Makes a backend of a version, on a GPU with or without its own memory; afterwards, nothing may be left on the GPU."""
    pycuda_driver.FAULTS.clear()
    tensorrt_run.FAULTS.clear()
    pycuda_driver.MEMORY.clear()

    stub = ctypes.CDLL(str(libcuda))
    pycuda_driver.record_through(stub)

    def made(version: str = "10.3.0", *, content: bytes = plan(), integrated: bool = False, classes: int = 5, **how: Any) -> Any:
        package = ModuleType("pycuda")
        package.driver = pycuda_driver.driver(integrated=integrated)  # type: ignore[attr-defined]
        modules = {"pycuda": package, "pycuda.driver": package.driver}
        modules["tensorrt"] = strict(version, tensorrt_run.RUN_CLASSES, surfaces)
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)
        for name in MODULES:
            monkeypatch.delitem(sys.modules, f"edge_resnet.{name}", raising=False)
        module = importlib.import_module("edge_resnet.runtime.tensorrt.inference")
        from edge_resnet.device.gpu import first_gpu
        from edge_resnet.runtime.tensorrt.plans import StoredPlan

        monkeypatch.setattr(first_gpu, "__defaults__", (str(libcuda),))
        monkeypatch.setattr(module, "Recorder", lambda: Recorder(str(libcuda)))
        return module.TensorRtBackend(StoredPlan(content, classes, PREPROCESS), **how)

    references = pycuda_driver._Context.references
    yield made
    for name in MODULES:
        sys.modules.pop(f"edge_resnet.{name}", None)
    assert pycuda_driver._Context.references == references, "a context was not let go of"
    assert pycuda_driver.depth() == 0, "a context was left on the stack"
    assert (stub.stub_graphs(), stub.stub_executables()) == (0, 0), "graphs were left"
