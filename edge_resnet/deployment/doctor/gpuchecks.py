"""Whether the NVIDIA GPU, its driver and the kernels for it work, and the one command that fixes each problem.

Does not know about networks, artifacts or printing; TensorRT and PyCUDA are checked in trtchecks.py, TensorRT for RTX in
rtxchecks.py, cuda.core in cudachecks.py.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from edge_resnet.core.errors import BackendError, ConfigError
from edge_resnet.core.packages import is_older
from edge_resnet.core.process import run_within
from edge_resnet.deployment.doctor.check import Check
from edge_resnet.deployment.doctor.cudachecks import check_cuda_libraries
from edge_resnet.deployment.doctor.probe import DRIVER_NODES, ProbedMachine, probe_machine
from edge_resnet.deployment.doctor.rtxchecks import check_tensorrt_rtx
from edge_resnet.deployment.doctor.trtchecks import check_cudnn, check_tensorrt, fitting_tensorrt
from edge_resnet.device.gpu import OLDEST_DRIVER
from edge_resnet.device.machine import DeviceInfo, find_nvcc, refuse_old_jetpack
from edge_resnet.runtime.tensorrt.gate import needed_cuda
from edge_resnet.runtime.tensorrt.kernels import PTX_CAPABILITY, PTX_CUDA, shipped_ptx

__all__ = ["check_gpu_side"]

_NVCC_TIMEOUT_S = 5.0
#: cuInit's error number → its fix; any other error needs a restart.
_DRIVER_ERRORS = {
    "802": "sudo systemctl start nvidia-fabricmanager",
    "999": "sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm",  # after a suspend
}


def check_gpu_side(info: DeviceInfo, root: Path) -> list[Check]:
    """The checks of the group ``tensorrt``; takes 27 seconds if everything hangs. Raises nothing."""
    machine = probe_machine(info, root)
    driver = _check_driver(machine)
    checks = [_check_gpu(machine), driver, _check_jetpack(machine), _check_kernels(machine), check_tensorrt(machine, driver.fix)]
    new_driver = _install_driver(machine)
    rtx = check_tensorrt_rtx(machine, new_driver)
    return [*checks, *check_cudnn(machine), rtx, *check_cuda_libraries(machine, driver.fix, new_driver)]


def _check_gpu(machine: ProbedMachine) -> Check:
    info, driver = machine.info, machine.driver
    name = info.gpu or driver.get("name", "")
    if name:
        capability = f"compute capability {machine.capability}" if machine.capability else ""
        memory = {"mapped": "reads the CPU's memory in place", "shared": "shares the CPU's memory"}
        parts = (name, capability, memory.get(driver.get("memory", "")), _int8_speed(name, machine.capability))
        return Check("gpu", "ok", ", ".join(filter(None, parts)), "", "tensorrt")
    if info.gpu_failure:
        # Exit code 9: the kernel module is not loaded. Otherwise its version differs from the libraries', or the GPU hangs.
        fix = "sudo modprobe nvidia" if info.gpu_failure.endswith(" 9") else "sudo reboot"
        return Check("gpu", "problem", info.gpu_failure, fix, "tensorrt")
    return Check("gpu", "missing", "no NVIDIA GPU: models run on the CPU", "", "tensorrt")


def _int8_speed(name: str, capability: str) -> str:
    """How fast INT8 is, by compute capability (CUDA C++ Programming Guide, arithmetic instructions; TensorRT support matrix)."""
    if not capability:
        return ""
    if is_older(capability, "6.1") or capability == "6.2":
        return "no fast INT8"
    # The GTX 16 series has the compute capability of Turing without its tensor cores.
    return "INT8 dot products" if is_older(capability, "7.2") or "GTX 16" in name else "INT8 on tensor cores"


def _check_driver(machine: ProbedMachine) -> Check:
    result = machine.results.get("driver")
    there = machine.info.gpu or machine.info.gpu_failure or any((machine.root / node).exists() for node in DRIVER_NODES)
    if result is None or (result.failure and not there):
        if machine.in_container:
            # A host without a GPU looks the same from inside.
            detail = "none in this container: start it with access to the host's GPU"
            return Check("driver", "missing", detail, _container_command(machine), "tensorrt")
        detail = result.failure if result else "not needed without an NVIDIA GPU"
        return Check("driver", "missing", detail, "", "tensorrt")
    if result.failure:
        detail, fix = _broken_driver(machine, result.failure)
        return Check("driver", "problem", detail, fix, "tensorrt")
    cuda = result.facts["cuda"]
    detail = ", ".join(filter(None, (machine.info.driver, f"runs CUDA up to {cuda}" if cuda else ""))) or "works"
    tensorrt = machine.results.get("tensorrt")
    version = (tensorrt.facts.get("version") if tensorrt else "") or machine.info.tensorrt
    needed = needed_cuda("tensorrt", version, machine.root / "var/lib/dpkg/status")
    if cuda and needed and int(cuda.partition(".")[0]) < needed:
        oldest = f" (driver {OLDEST_DRIVER[needed]})" if needed in OLDEST_DRIVER else ""
        detail = f"{detail}; the installed TensorRT needs CUDA {needed}{oldest}"
        return Check("driver", "problem", detail, fitting_tensorrt(machine, cuda) or _install_driver(machine), "tensorrt")
    return Check("driver", "ok", detail, "", "tensorrt")


def _broken_driver(machine: ProbedMachine, failure: str) -> tuple[str, str]:
    """Detail and fix for a driver that does not work although there is a GPU."""
    nodes = [machine.root / node for node in DRIVER_NODES if (machine.root / node).exists()]
    absent, blind = "cannot be loaded" in failure, "finds no GPU" in failure
    if machine.in_container and (absent or (blind and not nodes)):
        return "this container was started without access to the GPU", _container_command(machine)
    if absent:
        return failure, _install_driver(machine)
    if nodes and not any(os.access(node, os.R_OK | os.W_OK) for node in nodes):
        return f"{failure}: no permission to open /dev/{nodes[0].name}", "sudo usermod -aG video,render $USER"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if blind and hidden is not None:
        return f"{failure}: CUDA_VISIBLE_DEVICES is {hidden!r}", "unset CUDA_VISIBLE_DEVICES"
    if blind and not nodes:
        return failure, "sudo modprobe nvidia"
    number = re.search(r"error (\d+)$", failure)
    return failure, _DRIVER_ERRORS.get(number[1] if number else "", "sudo reboot")


def _container_command(machine: ProbedMachine) -> str:
    if (machine.root / "run/.containerenv").exists():
        return "on the host: podman run --device nvidia.com/gpu=all IMAGE"
    return f"on the host: docker run {'--runtime nvidia' if machine.is_jetson else '--gpus all'} IMAGE"


def _install_driver(machine: ProbedMachine) -> str:
    if machine.is_jetson:
        return "sudo apt-get install --reinstall -y nvidia-l4t-cuda"
    # WSL2: the driver is that of Windows. One for Linux would replace the library that leads to it.
    if (machine.root / "dev/dxg").exists():
        return "wsl.exe --update, after installing NVIDIA's driver in Windows"
    return "sudo ubuntu-drivers install" if "Ubuntu" in machine.info.os else "sudo apt-get install -y nvidia-driver"


def _check_jetpack(machine: ProbedMachine) -> Check:
    if machine.info.l4t is None:
        return Check("jetpack", "missing", "not a Jetson", "", "tensorrt")
    try:
        refuse_old_jetpack(machine.root)
    except ConfigError as error:
        return Check("jetpack", "problem", error.message, "", "tensorrt")
    return Check("jetpack", "ok", f"{machine.info.jetpack or 'unknown'} (L4T {machine.info.l4t})", "", "tensorrt")


def _check_kernels(machine: ProbedMachine) -> Check:
    """Which kernels resize frames: the PTX of this package, those of nvcc, or none."""
    fault, fix = _fault_of_ptx(machine)
    if not machine.has_gpu:
        detail = f"not needed without an NVIDIA GPU{f'; {fault}' if fault else ''}"
        return Check("kernels", "missing", detail, "", "tensorrt")
    if not fault:
        detail = "the driver compiles this package's PTX, which resizes frames: no nvcc is needed"
        return Check("kernels", "ok", detail, "", "tensorrt")
    path = find_nvcc(machine.root)
    version = _nvcc_version(path) if path else ""
    if version:
        return Check("kernels", "ok", f"{fault}; nvcc of CUDA {version} at {path} compiles them", "", "tensorrt")
    package = "nvidia-jetpack" if machine.is_jetson else "nvidia-cuda-toolkit"
    if path:
        detail = f"{fault}, and {path} does not run: the CPU resizes frames instead of the GPU"
        return Check("kernels", "problem", detail, fix or f"sudo apt-get install --reinstall -y {package}", "tensorrt")
    detail = f"{fault}, and there is no nvcc: the CPU resizes frames instead of the GPU"
    return Check("kernels", "missing", detail, fix or f"sudo apt-get install -y {package}", "tensorrt")


def _fault_of_ptx(machine: ProbedMachine) -> tuple[str, str]:
    """Why the PTX of this package will not be used here, and the fix other than nvcc; both empty if it should be."""
    try:
        shipped_ptx()
    except BackendError as error:
        return error.message, error.hint
    cuda = machine.driver.get("cuda", "")
    if cuda and is_older(cuda, PTX_CUDA):
        return f"the PTX of this package needs a driver for CUDA {PTX_CUDA}", ""
    if machine.capability and is_older(machine.capability, PTX_CAPABILITY):
        return f"the PTX of this package needs a GPU of compute capability {PTX_CAPABILITY}", ""
    return "", ""


def _nvcc_version(path: Path) -> str:
    try:
        done = run_within([str(path), "--version"], _NVCC_TIMEOUT_S)
    except OSError:
        return ""
    version = re.search(r"release ([\d.]+)", done.stdout) if done else None
    return version[1] if version else ""
