"""Which library provides CUDA to the GPU backends, PyCUDA or cuda.core, and whether it works.

Does not import them: probe.py has probed them. Which of them comes first is decided in runtime.tensorrt.cuda.
"""

from __future__ import annotations

from dataclasses import replace

from edge_resnet.core.packages import minimum_version
from edge_resnet.deployment.doctor.check import Check
from edge_resnet.deployment.doctor.probe import ProbedMachine
from edge_resnet.deployment.doctor.trtchecks import check_pycuda
from edge_resnet.device.gpu import OLDEST_DRIVER

__all__ = ["check_cuda_libraries"]


def check_cuda_libraries(machine: ProbedMachine, driver_fix: str, new_driver: str) -> list[Check]:
    """PyCUDA and cuda.core, of which one is enough; each says whether it is used.

    ``driver_fix``: as for ``check_tensorrt``. ``new_driver``: the command that installs the newest driver.
    """
    pycuda = check_pycuda(machine, driver_fix)
    core = _check_cuda_core(machine, pycuda, driver_fix, new_driver)
    if machine.has_gpu and pycuda.status == "missing" and core.status == "ok":
        pycuda = replace(pycuda, detail="not installed, and not needed: cuda.core is used", fix="")
    return [pycuda, core]


def _check_cuda_core(machine: ProbedMachine, pycuda: Check, driver_fix: str, new_driver: str) -> Check:
    """cuda.core with the bindings below it, which the driver must be new enough for. ``pycuda``: its check, as it comes first."""
    result = machine.results.get("cuda.core")
    if result is None:
        return _without(machine, pycuda)
    if not machine.has_gpu:
        lack = f"; {result.failure}" if result.failure else ""
        return Check("cuda-core", "missing" if lack else "ok", f"{_versions(result.facts)}{lack}", "", "tensorrt")
    if result.failure:
        fix = driver_fix if driver_fix and result.died else _install(machine, "--force-reinstall ")
        return Check("cuda-core", "problem", f"cannot be imported: {result.failure}", fix, "tensorrt")
    versions = _versions(result.facts)
    if pycuda.status == "ok":
        return Check("cuda-core", "ok", f"{versions}, not used: PyCUDA comes first", "", "tensorrt")
    needed, runs = _major(result.facts["bindings"]), machine.driver.get("cuda", "")
    if runs and _major(runs) < needed:
        driver = f" (driver {OLDEST_DRIVER[needed]})" if needed in OLDEST_DRIVER else ""
        fix = _install(machine) if _major(runs) in OLDEST_DRIVER else new_driver
        detail = f"{versions} needs CUDA {needed}{driver}, the driver runs {runs}"
        return Check("cuda-core", "problem", detail, fix, "tensorrt")
    return Check("cuda-core", "ok", f"{versions}, used for CUDA", "", "tensorrt")


def _without(machine: ProbedMachine, pycuda: Check) -> Check:
    if not machine.has_gpu:
        return Check("cuda-core", "missing", "not installed; needs an NVIDIA GPU", "", "tensorrt")
    if pycuda.status == "ok":
        return Check("cuda-core", "missing", "not installed, and not needed: PyCUDA is used", "", "tensorrt")
    detail = "not installed; an alternative to PyCUDA that needs no compiler"
    return Check("cuda-core", "missing", detail, _install(machine), "tensorrt")


def _install(machine: ProbedMachine, how: str = "") -> str:
    """The command for the newest CUDA that both the driver and this project know."""
    runs = machine.driver.get("cuda", "")
    cuda = min(max(OLDEST_DRIVER), max(min(OLDEST_DRIVER), _major(runs))) if runs else min(OLDEST_DRIVER)
    return f"pip install {how}'cuda-core[cu{cuda}]>={minimum_version('cuda-core')}'"


def _versions(facts: dict[str, str]) -> str:
    return f"{facts['version']} with cuda-bindings {facts['bindings']}" if facts else "installed"


def _major(version: str) -> int:
    return int(version.partition(".")[0])
