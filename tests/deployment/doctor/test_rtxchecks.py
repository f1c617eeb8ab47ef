"""rtxchecks.py: TensorRT for RTX in a real child process, on machines that it suits and on others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from gpumachine import CPU, DESKTOP, JETSON, package, record

from edge_resnet.deployment.doctor.check import Check
from edge_resnet.deployment.doctor.probe import ProbedMachine, ProbeResult, Topic, probe_machine
from edge_resnet.deployment.doctor.rtxchecks import check_tensorrt_rtx
from edge_resnet.device.machine import DeviceInfo

NOWHERE = Path("/nowhere")
NAME = "tensorrt-rtx-cu12"
DRIVER = "sudo ubuntu-drivers install"
EXTRA = "pip install 'edge-resnet[rtx]'"
HOPPER = replace(DESKTOP, gpu="NVIDIA H200", compute_capability="9.0")


pytestmark = pytest.mark.usefixtures("site")


def found(info: DeviceInfo, cuda: str = "") -> Check:
    """The check of what is on the path; ``cuda``: what the driver runs."""
    machine = probe_machine(info, NOWHERE)
    results: dict[Topic, ProbeResult] = {**machine.results}
    results.pop("driver", None)
    if cuda:
        results["driver"] = ProbeResult({"name": "x", "compute_capability": "7.5", "memory": "own", "cuda": cuda}, "")
    return check_tensorrt_rtx(ProbedMachine(info, NOWHERE, results), DRIVER)


def install(site: Path, version: str = "1.7.1.116", *cudas: int) -> None:
    package(site, "tensorrt_rtx", f"__version__ = {version!r}\n")
    for cuda in cudas or (12,):
        record(site, f"tensorrt-rtx-cu{cuda}", version)


def test_it_works_with_and_without_a_gpu(site: Path) -> None:
    """Without one it compiles for others, which is said."""
    install(site)
    assert found(DESKTOP, "12.8") == Check(NAME, "ok", "1.7.1.116", "", "tensorrt")
    alone = found(CPU)
    assert (alone.status, alone.detail) == ("ok", "1.7.1.116, compiles engines for desktop GPUs of other machines")


def test_without_it_the_machine_decides(site: Path) -> None:
    """The fix is shown where it would run and TensorRT is not there; elsewhere the reason."""
    assert found(DESKTOP) == Check(
        NAME, "missing", "not installed; runs on desktop GPUs without a CUDA toolkit", EXTRA, "tensorrt"
    )
    assert found(CPU).fix == ""
    assert found(JETSON).detail == "not for this machine: it exists only for x86-64"
    assert found(replace(CPU, architecture="aarch64")).detail == "not for this machine: it exists only for x86-64"
    assert found(HOPPER).detail == "not for compute capability 9.0"
    package(site, "tensorrt", "__version__ = '10.3.0'\n")
    assert found(DESKTOP).fix == ""


def test_hopper_does_not_run_it(site: Path) -> None:
    """Installed, and of no use to this GPU: no problem, and not usable."""
    install(site)
    check = found(HOPPER, "12.8")
    assert (check.status, check.detail, check.fix) == ("missing", "1.7.1.116 does not run on compute capability 9.0", "")


@pytest.mark.parametrize(
    ("cuda", "runs", "fix"),
    [
        (12, "11.8", DRIVER),
        (13, "12.8", f"pip uninstall -y tensorrt-rtx-cu13 tensorrt-rtx-cu13-bindings tensorrt-rtx-cu13-libs && {EXTRA}"),
        (13, "13.0", ""),
        (12, "13.0", ""),
    ],
)
def test_a_driver_that_is_too_old(site: Path, cuda: int, runs: str, fix: str) -> None:
    """The library for the CUDA that the driver runs, or a new driver where there is none."""
    install(site, "1.7.1.116", cuda)
    check = found(DESKTOP, runs)
    assert (check.name, check.status, check.fix) == (f"tensorrt-rtx-cu{cuda}", "problem" if fix else "ok", fix)
    if fix:
        assert check.detail == f"1.7.1.116 needs CUDA {cuda}, the driver runs {runs}"


def test_two_of_them_overwrite_each_other(site: Path) -> None:
    """Both are removed, and one is installed."""
    install(site, "1.7.1.116", 12, 13)
    check = found(DESKTOP)
    assert check.detail == "tensorrt-rtx-cu12 and tensorrt-rtx-cu13 overwrite each other"
    assert check.fix.endswith(f"tensorrt-rtx-cu13-libs && {EXTRA}")


def test_an_old_or_broken_one(site: Path) -> None:
    """Also without a GPU, where it compiles."""
    install(site, "1.2.0.54")
    old = found(CPU)
    assert (old.detail, old.fix) == ("1.2.0.54 is older than 1.4", "pip install --upgrade 'tensorrt-rtx-cu12>=1.4'")
    package(site, "tensorrt_rtx", "raise ImportError('libtensorrt_rtx.so.1: cannot open shared object file')\n")
    broken = found(CPU)
    assert broken.detail.startswith("cannot be imported: libtensorrt_rtx.so.1")
    assert broken.fix == "pip install --force-reinstall tensorrt-rtx-cu12"
