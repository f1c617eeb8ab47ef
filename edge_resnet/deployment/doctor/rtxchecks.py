"""Whether TensorRT for RTX works and fits this GPU, and the one command that fixes each problem.

Unlike TensorRT it also compiles engines where there is no GPU. Does not import it: probe.py has probed it.
"""

from __future__ import annotations

from functools import partial

from edge_resnet.core.packages import extra_command, installed_version, is_older, minimum_version
from edge_resnet.deployment.doctor.check import Check
from edge_resnet.deployment.doctor.probe import ProbedMachine
from edge_resnet.device.rtxtargets import is_known_gpu
from edge_resnet.runtime.tensorrt.gate import needed_cuda

__all__ = ["check_tensorrt_rtx"]

_CUDAS = (12, 13)
_PARTS = ("", "-bindings", "-libs")


def check_tensorrt_rtx(machine: ProbedMachine, new_driver: str) -> Check:
    """The module and its libraries. ``new_driver``: the command that installs the newest driver."""
    result, capability = machine.results.get("tensorrt_rtx"), machine.capability
    cudas = _installed()
    name = f"tensorrt-rtx-cu{cudas[0] if cudas else _CUDAS[0]}"
    absent, problem = (partial(Check, name, status, group="tensorrt") for status in ("missing", "problem"))
    runs_here = not capability or is_known_gpu(capability)
    if result is None:
        return absent(*_without(machine, runs_here=runs_here))
    if len(cudas) > 1:
        both = " and ".join(f"tensorrt-rtx-cu{cuda}" for cuda in cudas)
        return problem(f"{both} overwrite each other", f"{_remove(cudas)} && {extra_command('rtx')}")
    if result.failure:
        return problem(f"cannot be imported: {result.failure}", f"pip install --force-reinstall {name}")
    version, minimum = result.facts["version"], minimum_version("tensorrt-rtx-cu12")
    if is_older(version, minimum):
        return problem(f"{version} is older than {minimum}", f"pip install --upgrade '{name}>={minimum}'")
    if not machine.has_gpu:
        return Check(name, "ok", f"{version}, compiles engines for desktop GPUs of other machines", "", "tensorrt")
    if not runs_here:
        return absent(f"{version} does not run on compute capability {capability}", "")
    cuda, needed = machine.driver.get("cuda", ""), needed_cuda("tensorrt_rtx", version) or 0
    if cuda and int(cuda.partition(".")[0]) < needed:
        older = next((known for known in _CUDAS if known <= int(cuda.partition(".")[0])), None)
        fix = new_driver if older is None else f"{_remove(cudas)} && {extra_command('rtx')}"
        return problem(f"{version} needs CUDA {needed}, the driver runs {cuda}", fix)
    return Check(name, "ok", version, "", "tensorrt")


def _without(machine: ProbedMachine, *, runs_here: bool) -> tuple[str, str]:
    """Detail and fix where it is not installed."""
    if machine.is_jetson or machine.info.architecture != "x86_64":
        return "not for this machine: it exists only for x86-64", ""
    if not runs_here:
        return f"not for compute capability {machine.capability}", ""
    if not machine.has_gpu:
        return "not installed; compiles engines for desktop GPUs, also without one", ""
    fix = "" if "tensorrt" in machine.results else extra_command("rtx")
    return "not installed; runs on desktop GPUs without a CUDA toolkit", fix


def _installed() -> list[int]:
    return [cuda for cuda in _CUDAS if installed_version(f"tensorrt-rtx-cu{cuda}")]


def _remove(cudas: list[int]) -> str:
    return "pip uninstall -y " + " ".join(f"tensorrt-rtx-cu{cuda}{part}" for cuda in cudas for part in _PARTS)
