"""TensorRT for RTX keeps the laws of the conformance suite: plans by its real builder, run by a stand-in of its runtime."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from conformance import Conformance
from standins import tensorrt_run
from standins.surface import like
from standins.tensorrt_run import JIT_CLASSES

from edge_resnet.artifact.enginecache import PLAN
from edge_resnet.artifact.folder import Artifact
from edge_resnet.compiler.derive import compile_engine
from edge_resnet.core.errors import BackendError
from edge_resnet.runtime.backend import BACKENDS, load_backend, open_backend


class TestTensorRtForRtx(Conformance):
    """The table has no other backend."""

    table = MappingProxyType({"tensorrt-rtx": BACKENDS["tensorrt-rtx"]})

    @pytest.fixture(autouse=True)
    def _desktop(self, gpu: Callable[[bool], None], libcuda: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """This machine has an RTX 4090, and the library at work is a stand-in with the real one's surface."""
        real = pytest.importorskip("tensorrt_rtx")
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", like(real, JIT_CLASSES))
        driver = importlib.import_module("edge_resnet.device.gpu")
        monkeypatch.setattr(driver.first_gpu, "__defaults__", (str(libcuda),))
        monkeypatch.setenv("STUB_CAPABILITY", "89")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        gpu(False)
        for module in filter(None, map(sys.modules.get, ("pycuda", "pycuda.driver"))):
            module.__spec__ = ModuleSpec(module.__name__, None, origin="stand-in")

    @pytest.fixture
    def artifact(self, name: str, tiny_copy: Artifact) -> Artifact:
        """Compiled by the real builder, in a child process; the stand-in is told what the plan is."""
        folder = compile_engine(tiny_copy, name, table=self.table)
        assert folder is not None
        batch = tiny_copy.manifest.batch
        tensorrt_run.PLANS[hashlib.sha256((folder / PLAN).read_bytes()).hexdigest()] = {
            "classes": 10, "size": 32, "min_batch": batch.min, "max_batch": batch.max, "dtype": "FLOAT",
        }  # fmt: skip
        return tiny_copy

    @pytest.mark.parametrize("capability", ["90", "87", "110", "72"])
    def test_other_gpus_are_refused_before_anything_is_read(
        self, name: str, artifact: Artifact, monkeypatch: pytest.MonkeyPatch, capability: str
    ) -> None:
        """Hopper and Jetson: the engine is whole, and the error says which backend runs on that GPU."""
        monkeypatch.setenv("STUB_CAPABILITY", capability)
        with pytest.raises(BackendError, match="does not run on NVIDIA Stand-in") as caught:
            open_backend(artifact, name, table=self.table)
        assert "the backend tensorrt" in caught.value.hint

    def test_without_graphs_the_logits_are_the_same(self, name: str, artifact: Artifact) -> None:
        """What selftest compares: the library captures the network, or launches each kernel."""
        images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
        backend_class: Any = load_backend(name, self.table)
        captured, plain = open_backend(artifact, name, table=self.table), backend_class.open_without_graphs(artifact, "native")
        with captured, plain:
            for _ in range(3):
                np.testing.assert_array_equal(plain.infer(images), captured.infer(images))

    def test_a_driver_that_is_too_old_is_refused(
        self, name: str, artifact: Artifact, libcuda: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """cuInit succeeds, and what the driver runs is below the CUDA of the library: one line, before a Runtime is made."""
        driver = importlib.import_module("edge_resnet.device.gpu")
        monkeypatch.setattr(driver.driver_cuda, "__defaults__", (str(libcuda),))
        monkeypatch.setenv("STUB_CUDA", "11080")
        with pytest.raises(BackendError, match=r"CUDA (up to )?11\.8") as caught:
            open_backend(artifact, name, table=self.table)
        assert "driver" in caught.value.hint
