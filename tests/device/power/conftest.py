"""Fixtures of the power tests: a pynvml that the test controls, without any GPU of this machine."""

from __future__ import annotations

import importlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

#: Values from ``gpus``: a dict per GPU, function name → value or error text. Functions that are missing are not supported.
PYNVML = """
class NVMLError(Exception):
    pass

NVML_TEMPERATURE_GPU, NVML_CLOCK_SM = 0, 1
gpus, opened, init_error = [], 0, None

def nvmlInit():
    global opened
    if init_error:
        raise NVMLError(init_error)
    opened += 1

def nvmlShutdown():
    global opened
    _open()
    opened -= 1

def nvmlDeviceGetCount():
    _open()
    return len(gpus)

def nvmlDeviceGetHandleByIndex(index):
    _open()
    if index >= len(gpus):
        raise NVMLError("Invalid Argument")
    return index

def nvmlDeviceGetName(handle):
    return _ask(handle, "name")

def nvmlDeviceGetUUID(handle):
    return _ask(handle, "uuid")

def nvmlDeviceGetPowerUsage(handle):
    return _ask(handle, "power_mw")

def nvmlDeviceGetTotalEnergyConsumption(handle):
    return _ask(handle, "energy_mj")

def nvmlDeviceGetTemperature(handle, sensor):
    assert sensor == NVML_TEMPERATURE_GPU
    return _ask(handle, "temperature_c")

def nvmlDeviceGetClockInfo(handle, kind):
    assert kind == NVML_CLOCK_SM
    return _ask(handle, "clock_mhz")

def nvmlDeviceGetCurrentClocksThrottleReasons(handle):
    return _ask(handle, "reasons")

def _ask(handle, key):
    _open()
    if key not in gpus[handle]:
        raise NVMLError("Not Supported")
    value = gpus[handle][key]
    return value() if callable(value) else value

def _open():
    if not opened:
        raise NVMLError("Uninitialized")
"""


@pytest.fixture(autouse=True)
def _without_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """A module named pynvml on sys.path; the test fills its ``gpus``."""
    site = tmp_path_factory.mktemp("site")
    (site / "pynvml.py").write_text(PYNVML)
    monkeypatch.delitem(sys.modules, "pynvml")
    monkeypatch.syspath_prepend(site)
    module = importlib.import_module("pynvml")
    assert module.__file__ is not None
    assert Path(module.__file__).parent == site
    return module


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's own if root runs the tests."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
