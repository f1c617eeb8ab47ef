"""Stand-ins of TensorRT in place of the package."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from standins.surface import VERSIONS
from standins.tensorrt_build import CALLS, FAULTS

from edge_resnet.device.gpu import first_gpu
from edge_resnet.runtime.tensorrt import gate


@pytest.fixture(params=VERSIONS)
def trt(
    request: pytest.FixtureRequest, tensorrt_of: Callable[[str], ModuleType], libcuda: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModuleType]:
    """The stand-in of one version in place of TensorRT, with a working driver."""
    module = tensorrt_of(request.param)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(gate, "first_gpu", lambda: first_gpu(str(libcuda)))
    FAULTS.clear()
    CALLS.clear()
    yield module
    FAULTS.clear()
