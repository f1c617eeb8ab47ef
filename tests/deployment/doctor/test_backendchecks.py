"""backendchecks.py with real child processes: the OpenVINO of this machine, old, broken and absent ones, and auto."""

from __future__ import annotations

import platform
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from gpumachine import CPU, JETSON, package

from edge_resnet.deployment.doctor import backendchecks, probe
from edge_resnet.deployment.doctor.backendchecks import check_backends
from edge_resnet.deployment.doctor.check import Check
from edge_resnet.deployment.doctor.checks import examine
from edge_resnet.deployment.doctor.probe import ProbeResult
from edge_resnet.device.machine import DeviceInfo
from edge_resnet.runtime.backend import resolve_backend


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder before all others on this Python's path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def found(name: str, info: DeviceInfo = CPU) -> Check:
    return next(check for check in check_backends(info) if check.name == name)


def answered(monkeypatch: pytest.MonkeyPatch, **facts: str) -> Check:
    """The check of an OpenVINO with these facts."""
    results = {"auto": ProbeResult({"taken": "onnxruntime", "order": "onnxruntime"}, ""), "openvino": ProbeResult(facts, "")}
    monkeypatch.setattr(backendchecks, "is_importable", lambda _: True)
    monkeypatch.setattr(backendchecks, "probe", lambda *_: results)
    return found("openvino")


def test_auto_is_what_opening_takes() -> None:
    """The backend that --backend auto selects on this machine, and the order in which it tries them."""
    check = found("auto")
    assert (check.status, check.fix, check.group) == ("ok", "", "backends")
    assert check.detail == f"{resolve_backend('auto')}, the first that works of tensorrt, tensorrt-rtx, openvino, onnxruntime"


def test_this_machines_openvino_works() -> None:
    """Its version, and the precisions of this CPU."""
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    check = found("openvino")
    assert check.status == "ok"
    assert check.detail.startswith(f"{version('openvino')}, runs FP32")
    if platform.machine() == "x86_64":
        assert "INT8" in check.detail


def test_a_processor_without_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """FP16 artifacts run as FP32 on a CPU without half precision, and the check says so."""
    check = answered(monkeypatch, version="2025.3.0", precisions="FP32 INT8 BIN EXPORT_IMPORT")
    assert check == Check("openvino", "ok", "2025.3.0, runs FP32, INT8; FP16 as FP32 on the CPU", "", "backends")
    check = answered(monkeypatch, version="2025.3.0", precisions="BF16 FP32 FP16 INT8")
    assert check.detail == "2025.3.0, runs FP32, FP16, INT8 on the CPU"


@pytest.mark.parametrize(("number", "status"), [("2024.5.9", "problem"), ("2024.6.0", "ok"), ("2026.4.1", "ok")])
def test_an_old_openvino(monkeypatch: pytest.MonkeyPatch, number: str, status: str) -> None:
    """A version below that of the extra is a problem that an upgrade fixes."""
    check = answered(monkeypatch, version=number, precisions="FP32")
    assert (check.status, check.fix) == (status, "pip install --upgrade 'openvino>=2024.6'" if status == "problem" else "")


@pytest.mark.parametrize(
    ("info", "detail"),
    [
        (CPU, "not installed; faster than onnxruntime here"),
        (replace(CPU, has_int8_dot_product=False), "not installed; optional"),
        (JETSON, "not installed; optional"),
    ],
    ids=["x86 with VNNI", "x86 without", "jetson"],
)
def test_no_openvino(monkeypatch: pytest.MonkeyPatch, info: DeviceInfo, detail: str) -> None:
    """It is optional, and recommended where it is faster; no child process is started for it."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert found("openvino", info) == Check("openvino", "missing", detail, "pip install 'edge-resnet[openvino]'", "backends")


def test_a_broken_openvino(site: Path) -> None:
    """An OpenVINO that does not load or crashes is a problem with its own message."""
    package(site, "openvino", "raise ImportError('libopenvino.so.2600: cannot open\\nmore')")
    check = found("openvino")
    assert (check.status, check.detail) == ("problem", "cannot be used: libopenvino.so.2600: cannot open")
    assert check.fix == "pip install --force-reinstall 'openvino>=2024.6'"
    package(site, "openvino", "import os; os.abort()")
    assert found("openvino").detail == "cannot be used: crashed (SIGABRT)"


def test_what_hangs_is_told_and_breaks_nothing(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An OpenVINO that never loads costs the time limit; auto selects without loading it."""
    package(site, "openvino", "import time; time.sleep(60)")
    monkeypatch.setattr(probe, "_TIMEOUT_S", 4.0)
    checks = {check.name: check for check in check_backends(CPU)}
    assert checks["openvino"].detail == "cannot be used: no answer in 4 s"
    assert checks["auto"].status == "ok"


def test_nothing_to_choose_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is that of the selection."""
    monkeypatch.setattr(backendchecks, "probe", lambda *_: {"auto": ProbeResult({}, "no backend is installed")})
    monkeypatch.setattr(backendchecks, "is_importable", lambda _: False)
    check = found("auto")
    assert (check.status, check.detail) == ("problem", "no backend can be selected: no backend is installed")


def test_both_are_part_of_the_examination() -> None:
    """Each is checked once, in its own group, and OpenVINO is not loaded in this process."""
    names = [check.name for check in examine() if check.group == "backends"]
    assert names == ["auto", "openvino"]
