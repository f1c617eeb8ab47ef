"""cudachecks.py: which of PyCUDA and cuda.core is used, and whether the driver is new enough, for every pair of findings."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpumachine import CPU, DESKTOP

from edge_resnet.deployment.doctor.check import Check
from edge_resnet.deployment.doctor.cudachecks import check_cuda_libraries
from edge_resnet.deployment.doctor.probe import ProbedMachine, ProbeResult, Topic
from edge_resnet.device.machine import DeviceInfo

NOWHERE = Path("/nowhere")
PYCUDA = ProbeResult({"cuda": "12.6"}, "")


def core(bindings: str = "12.9.4") -> ProbeResult:
    return ProbeResult({"version": "1.2.2", "bindings": bindings}, "")


def checks(results: dict[Topic, ProbeResult], runs: str = "12.6", info: DeviceInfo = DESKTOP) -> tuple[Check, Check]:
    driver: dict[Topic, ProbeResult] = {} if info is CPU else {"driver": ProbeResult({"cuda": runs}, "")}
    pycuda, cuda_core = check_cuda_libraries(
        ProbedMachine(info, NOWHERE, {**driver, **results}), "sudo reboot", "install a driver"
    )
    assert (pycuda.name, cuda_core.name) == ("pycuda", "cuda-core")
    return pycuda, cuda_core


def test_pycuda_comes_first() -> None:
    """With both, cuda.core is not used, whatever its bindings are for; with PyCUDA alone it is not needed."""
    for bindings in ("12.9.4", "13.5.0"):
        pycuda, found = checks({"pycuda": PYCUDA, "cuda.core": core(bindings)})
        assert (pycuda.status, found.status, found.fix) == ("ok", "ok", "")
        assert found.detail == f"1.2.2 with cuda-bindings {bindings}, not used: PyCUDA comes first"
    _, found = checks({"pycuda": PYCUDA})
    assert (found.status, found.detail, found.fix) == ("missing", "not installed, and not needed: PyCUDA is used", "")


def test_cuda_core_takes_the_place_of_pycuda() -> None:
    """It is used, and no command compiles PyCUDA."""
    pycuda, found = checks({"cuda.core": core()})
    assert (found.status, found.detail) == ("ok", "1.2.2 with cuda-bindings 12.9.4, used for CUDA")
    assert (pycuda.status, pycuda.detail, pycuda.fix) == ("missing", "not installed, and not needed: cuda.core is used", "")


def test_without_either_both_commands_are_shown() -> None:
    """cuda.core for the driver's CUDA, PyCUDA with the toolkit."""
    pycuda, found = checks({})
    assert "pip install 'pycuda>=" in pycuda.fix
    assert (found.status, found.fix) == ("missing", "pip install 'cuda-core[cu12]>=1.0'")
    assert checks({}, runs="13.1")[1].fix == "pip install 'cuda-core[cu13]>=1.0'"
    assert checks({}, runs="14.0")[1].fix == "pip install 'cuda-core[cu13]>=1.0'"


@pytest.mark.parametrize(
    ("bindings", "runs", "detail", "fix"),
    [
        ("13.5.0", "12.6", "needs CUDA 13 (driver 580), the driver runs 12.6", "pip install 'cuda-core[cu12]>=1.0'"),
        ("13.5.0", "11.8", "needs CUDA 13 (driver 580), the driver runs 11.8", "install a driver"),
        ("12.9.4", "11.8", "needs CUDA 12 (driver 525.60.13), the driver runs 11.8", "install a driver"),
    ],
)
def test_an_old_driver_is_a_problem(bindings: str, runs: str, detail: str, fix: str) -> None:
    """The driver that is needed is named, and the bindings that would do, if any."""
    found = checks({"cuda.core": core(bindings)}, runs)[1]
    assert (found.status, found.detail, found.fix) == ("problem", f"1.2.2 with cuda-bindings {bindings} {detail}", fix)


@pytest.mark.parametrize(("bindings", "runs"), [("12.9.4", "12.0"), ("12.9.4", "13.1"), ("13.5.0", "13.0"), ("12.9.4", "")])
def test_a_driver_that_is_new_enough_is_none(bindings: str, runs: str) -> None:
    """Any minor version of the bindings' CUDA, and any later one; a driver that does not say its version is not judged."""
    assert checks({"cuda.core": core(bindings)}, runs)[1].status == "ok"


def test_a_package_that_does_not_load() -> None:
    """It is installed again; where loading it crashes the process, the driver is the cause."""
    broken = ProbeResult({}, "cuda.bindings 12.x or 13.x must be installed")
    found = checks({"cuda.core": broken})[1]
    assert (found.status, found.fix) == ("problem", "pip install --force-reinstall 'cuda-core[cu12]>=1.0'")
    assert found.detail == "cannot be imported: cuda.bindings 12.x or 13.x must be installed"
    assert checks({"cuda.core": ProbeResult({}, "crashed (SIGSEGV)", died=True)})[1].fix == "sudo reboot"


def test_without_a_gpu_nothing_is_a_problem() -> None:
    """What is installed is shown, what is not is not needed."""
    assert [check.fix for check in checks({}, info=CPU)] == ["", ""]
    assert checks({"cuda.core": core()}, info=CPU)[1] == Check(
        "cuda-core", "ok", "1.2.2 with cuda-bindings 12.9.4", "", "tensorrt"
    )
