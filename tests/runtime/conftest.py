"""Fixtures for the tests of backends: TensorRT's backend on stand-ins of TensorRT, PyCUDA and the driver, and on cuda.core."""

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
from standins import cuda_driver, pycuda_driver, tensorrt_run
from standins.surface import strict
from standins.tensorrt_run import plan

from edge_resnet.artifact.folder import Artifact, open_artifact
from edge_resnet.core.records import Preprocess
from edge_resnet.runtime.tensorrt.cuda import OWNERS
from edge_resnet.runtime.tensorrt.cudagraph import Recorder

pytest.register_assert_rewrite("conformance")

MODULES = tuple(f"runtime.tensorrt.{name}" for name in ("inference", "plans", "slots", "cudapycuda"))
#: The preprocessing of the stand-in's network, whose input is 8 pixels wide.
PREPROCESS = Preprocess(resize=9, crop=8)


@pytest.fixture(scope="module", params=["fp32", "int8"])
def tiny_copy(
    request: pytest.FixtureRequest, tiny_artifacts: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory
) -> Artifact:
    """A copy of the tiny artifact of each precision, to which engines may be added."""
    folder = tmp_path_factory.mktemp("copy") / "artifact"
    return open_artifact(Path(shutil.copytree(tiny_artifacts[request.param].folder, folder)))


@pytest.fixture(params=list(OWNERS))
def gpu(request: pytest.FixtureRequest, libcuda: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], None]]:
    """Installs a GPU, whether integrated or not, that is used through PyCUDA's stand-in, or through the real cuda.core on a
    driver that stands in; afterwards, no context may be left."""
    pycuda_driver.FAULTS.clear()
    pycuda_driver.MEMORY.clear()
    if request.param == "cuda.core":
        cuda_driver.load(libcuda)

    def installed(integrated: bool) -> None:
        package = ModuleType("pycuda")
        package.driver = pycuda_driver.driver(integrated=integrated)  # type: ignore[attr-defined]
        for name, module in {"pycuda": package, "pycuda.driver": package.driver}.items():
            monkeypatch.setitem(sys.modules, name, module if request.param == "pycuda" else None)
        monkeypatch.delitem(sys.modules, OWNERS["pycuda"], raising=False)
        cuda_driver.become(integrated=integrated)

    references = pycuda_driver._Context.references
    yield installed
    sys.modules.pop(OWNERS["pycuda"], None)
    assert pycuda_driver._Context.references == references, "a context was not let go of"
    # cuda.core keeps the context once more, for the process.
    assert cuda_driver.RETAINED[0] <= 1, "a context was not let go of"
    assert pycuda_driver.depth() == 0, "a context was left on the stack"
    assert cuda_driver.BROKEN == []


@pytest.fixture
def make(
    gpu: Callable[[bool], None], libcuda: Path, surfaces: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Any]]:
    """Makes a backend of a version, on a GPU with or without its own memory; afterwards, nothing may be left on the GPU."""
    tensorrt_run.FAULTS.clear()
    stub = ctypes.CDLL(str(libcuda))
    pycuda_driver.record_through(stub)

    def made(
        version: str = "10.3.0",
        *,
        content: bytes = plan(),
        integrated: bool = False,
        classes: int = 5,
        preprocess: Preprocess = PREPROCESS,
        **how: Any,
    ) -> Any:
        gpu(integrated)
        monkeypatch.setitem(sys.modules, "tensorrt", strict(version, tensorrt_run.RUN_CLASSES, surfaces))
        for name in MODULES:
            monkeypatch.delitem(sys.modules, f"edge_resnet.{name}", raising=False)
        module = importlib.import_module("edge_resnet.runtime.tensorrt.inference")
        from edge_resnet.device.gpu import first_gpu
        from edge_resnet.runtime.tensorrt.plans import StoredPlan

        monkeypatch.setattr(first_gpu, "__defaults__", (str(libcuda),))
        monkeypatch.setattr(module, "Recorder", lambda: Recorder(str(libcuda)))
        return module.TensorRtBackend(StoredPlan(content, classes, preprocess), **how)

    yield made
    for name in MODULES:
        sys.modules.pop(f"edge_resnet.{name}", None)
    assert (stub.stub_graphs(), stub.stub_executables()) == (0, 0), "graphs were left"
