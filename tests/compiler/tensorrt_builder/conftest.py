"""Stand-ins of TensorRT in place of the package."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from standins.surface import VERSIONS
from standins.tensorrt_build import CALLS, FAULTS


@pytest.fixture(params=VERSIONS)
def builder(
    request: pytest.FixtureRequest, tensorrt_of: Callable[[str], ModuleType], libcuda: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModuleType]:
    """edge_resnet.compiler.tensorrt.builder on the stand-in of one version, with a working driver."""
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_of(request.param))
    monkeypatch.delitem(sys.modules, "edge_resnet.compiler.tensorrt.builder", raising=False)
    module = importlib.import_module("edge_resnet.compiler.tensorrt.builder")
    from edge_resnet.device.gpu import first_gpu

    monkeypatch.setattr(module, "first_gpu", lambda: first_gpu(str(libcuda)))
    FAULTS.clear()
    CALLS.clear()
    yield module
    FAULTS.clear()
    sys.modules.pop("edge_resnet.compiler.tensorrt.builder", None)
