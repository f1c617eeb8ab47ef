"""Whether this machine has what edge-resnet needs, and the one command that mends each lack.

Knows nothing of networks, artifacts or printing, and imports neither torch, onnx, TensorRT nor PyCUDA to look for them.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal, TypeAlias

from edge_resnet.device import DeviceInfo, cache_folder, describe, installed_version, refuse_old_jetpack
from edge_resnet.errors import ConfigError

__all__ = ["Check", "Group", "Readiness", "Status", "examine", "readiness", "usable_backends"]

Status: TypeAlias = Literal["ok", "missing", "problem"]
Group: TypeAlias = Literal["machine", "base", "build", "camera", "tensorrt", "demo"]

_ROOT = Path("/")
_MIN_FREE_DISK_MIB = 2 * 1024
_MIN_FREE_MEMORY_MIB = 1024
#: pip's name, module, oldest version, extra ("base": the package's own requirements); the versions are pyproject.toml's.
_PACKAGES: tuple[tuple[str, str, str, Group], ...] = (
    ("numpy", "numpy", "1.26", "base"),
    ("pillow", "PIL", "10.1", "base"),
    ("onnxruntime", "onnxruntime", "1.18", "base"),
    ("typer", "typer", "0.19", "base"),
    ("rich", "rich", "13.7", "base"),
    ("pydantic", "pydantic", "2.8", "base"),
    ("torch", "torch", "2.4", "build"),
    ("torchvision", "torchvision", "0.19", "build"),
    ("onnx", "onnx", "1.16", "build"),
    ("safetensors", "safetensors", "0.4.3", "build"),
    ("scikit-learn", "sklearn", "1.3", "demo"),
)
_OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")


@dataclass(frozen=True)
class Check:
    """One thing looked at. ``fix``: the one command that mends it, empty where none can or none is needed."""

    name: str
    status: Status
    detail: str
    fix: str
    group: Group


@dataclass(frozen=True)
class Readiness:
    """What works now: ``commands`` and ``backends`` by name; ``reason``: why nothing does, else empty."""

    commands: tuple[str, ...]
    backends: tuple[str, ...]
    reason: str


def examine(root: Path = _ROOT, info: DeviceInfo | None = None) -> list[Check]:
    """Look at everything that edge-resnet may need. Imports the base packages and OpenCV to see that they load; raises nothing.

    ``info``: what ``describe`` said, to spare a second look.
    """
    info = info or describe(root)
    packages = [_check_package(*package) for package in _PACKAGES]
    return [
        *(_check_cpu(info), _check_int8(info), _check_memory(info), _check_disk(), _check_cache()),
        Check("python", "ok", f"{info.python} in {sys.prefix}", "", "base"),
        *(check for check in packages if check.group in {"base", "build"}),
        *(_check_opencv(info, root), _check_cameras(root)),
        *(_check_gpu(info), _check_jetpack(info, root), _check_tensorrt(info, root), _check_pycuda(info)),
        *(check for check in packages if check.group == "demo"),
    ]


def usable_backends(info: DeviceInfo, backends: Mapping[str, str]) -> tuple[str, ...]:
    """The names that can run now. ``backends``: name → package it needs, empty for none; TensorRT needs a GPU and PyCUDA too."""
    gpu = info.gpu is not None and _is_there("pycuda")
    return tuple(
        name for name, package in backends.items() if not package or (_is_there(package) and (gpu or package != "tensorrt"))
    )


def readiness(info: DeviceInfo, checks: Sequence[Check], backends: Mapping[str, str]) -> Readiness:
    """Which commands and backends work, read off the checks that ``examine`` made."""
    bad = {check.name: check for check in checks if check.status != "ok"}
    broken = [check.name for check in checks if check.group == "base" and check.name in bad]
    usable = usable_backends(info, backends)
    reason = f"{', '.join(broken)} missing or broken" if broken else "" if usable else "no backend can run"
    if "jetpack" in bad and bad["jetpack"].status == "problem":
        reason = bad["jetpack"].detail
    if reason:
        return Readiness((), usable, reason)
    builds = not any(check.group == "build" for check in bad.values())
    commands = {
        "build": builds, "eval": True, "run": True,
        "run --camera": bad.keys().isdisjoint({"opencv", "cameras"}), "demo": builds and "scikit-learn" not in bad,
    }  # fmt: skip
    return Readiness(tuple(name for name, works in commands.items() if works), usable, "")


def _is_there(module: str) -> bool:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    # Any folder of that name on the path is a namespace package, which has no origin.
    return spec is not None and spec.origin is not None


def _is_older(version: str, minimum: str) -> bool:
    found, needed = ([int(number) for number in re.findall(r"\d+", text)[:3]] for text in (version, minimum))
    return found < needed


def _check_package(name: str, module: str, minimum: str, group: Group) -> Check:
    requirement = shlex.quote(f"{name}>={minimum}")
    if not _is_there(module):
        install = requirement if group == "base" else f"'edge-resnet[{group}]'"
        return Check(name, "missing", "not installed", f"pip install {install}", group)
    failure = _import_failure(module) if group == "base" else ""
    if failure:
        return Check(name, "problem", f"cannot be imported: {failure}", f"pip install --force-reinstall {requirement}", group)
    version = installed_version(name) or str(getattr(sys.modules.get(module), "__version__", "")) or "installed"
    if re.match(r"\d", version) and _is_older(version, minimum):
        return Check(name, "problem", f"{version} is older than {minimum}", f"pip install --upgrade {requirement}", group)
    return Check(name, "ok", version, "", group)


def _import_failure(module: str) -> str:
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken binary may raise anything
        return str(error).partition("\n")[0] or type(error).__name__
    return ""


def _check_cpu(info: DeviceInfo) -> Check:
    return Check("cpu", "ok", f"{info.cpu}, {info.usable_cores} cores, {info.architecture}", "", "machine")


def _check_int8(info: DeviceInfo) -> Check:
    if info.has_int8_dot_product:
        return Check("int8", "ok", "dot product in one instruction", "", "machine")
    lack = "no VNNI: slower, and needs 7-bit weights" if info.architecture == "x86_64" else "no dot product: slower"
    return Check("int8", "missing", f"{lack} (CPU only)", "", "machine")


def _check_memory(info: DeviceInfo) -> Check:
    available = info.memory_available_mib
    if available is None:
        return Check("memory", "missing", "cannot be read", "", "machine")
    detail = f"{available} of {info.memory_total_mib} MiB available"
    if available >= _MIN_FREE_MEMORY_MIB:
        return Check("memory", "ok", detail, "", "machine")
    # The desktop holds most of a small Jetson's memory.
    fix = "sudo systemctl isolate multi-user.target" if info.l4t else ""
    return Check("memory", "problem", f"{detail}, {_MIN_FREE_MEMORY_MIB} are needed", fix, "machine")


def _check_disk() -> Check:
    try:
        free_mib = shutil.disk_usage(Path.cwd()).free // 2**20
    except OSError as error:
        return Check("disk", "problem", f"the current folder cannot be read: {error.strerror}", "cd ~", "machine")
    if free_mib >= _MIN_FREE_DISK_MIB:
        return Check("disk", "ok", f"{free_mib} MiB free here", "", "machine")
    return Check("disk", "problem", f"{free_mib} MiB free here, {_MIN_FREE_DISK_MIB} are needed", "pip cache purge", "machine")


def _check_cache() -> Check:
    folder = cache_folder().absolute()
    nearest = next(path for path in (folder, *folder.parents) if os.access(path, os.F_OK))
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return Check("cache", "ok", str(folder), "", "machine")
    fix = f'sudo install -d -o "$USER" {shlex.quote(str(folder))}'
    return Check("cache", "problem", f"{folder} cannot be written", fix, "machine")


def _check_opencv(info: DeviceInfo, root: Path) -> Check:
    from_pip = [name for name in _OPENCV if installed_version(name)]
    failure = _import_failure("cv2") if _is_there("cv2") else "not installed"
    if failure:
        return _without_opencv(info, root, from_pip, failure)
    cv2 = sys.modules["cv2"]
    version = str(getattr(cv2, "__version__", "installed"))
    if _has_gstreamer(cv2):
        return Check("opencv", "ok", f"{version} with GStreamer", "", "camera")
    if info.l4t is None:
        return Check("opencv", "ok", f"{version} without GStreamer (USB, files and RTSP work)", "", "camera")
    if not from_pip:
        return Check("opencv", "problem", f"{version} has no GStreamer: no CSI cameras", "", "camera")
    fix = f"pip uninstall -y {' '.join(from_pip)}"
    return Check("opencv", "problem", f"pip's {version} hides JetPack's: no GStreamer, no CSI", fix, "camera")


def _has_gstreamer(cv2: ModuleType) -> bool:
    # The registry's list of backends names GStreamer even where it is not built in; hasBackend does not.
    has_backend = getattr(getattr(cv2, "videoio_registry", None), "hasBackend", None)
    return bool(has_backend and has_backend(cv2.CAP_GSTREAMER))


def _without_opencv(info: DeviceInfo, root: Path, from_pip: Sequence[str], failure: str) -> Check:
    if from_pip:
        fix = f"pip install --force-reinstall {from_pip[0]}"
        if "libGL" in failure:
            fix = "sudo apt-get install -y libgl1"
        return Check("opencv", "problem", f"cannot be imported: {failure}", fix, "camera")
    if _is_there("cv2"):
        # Ubuntu's and JetPack's OpenCV are built for numpy 1.
        fix = "pip install 'numpy<2'" if "numpy" in failure else "sudo apt-get install --reinstall -y python3-opencv"
        return Check("opencv", "problem", f"cannot be imported: {failure}", fix, "camera")
    if info.l4t is None:
        return Check("opencv", "missing", "not installed", "pip install 'edge-resnet[camera]'", "camera")
    if _is_in_system(root, "cv2"):
        return Check("opencv", "problem", "JetPack's, not seen by this Python", _see_system_packages(), "camera")
    return Check("opencv", "missing", "not installed", "sudo apt-get install -y python3-opencv", "camera")


def _check_cameras(root: Path) -> Check:
    devices = sorted(root.glob("dev/video*"))
    names = ", ".join(f"/dev/{path.name}" for path in devices[:3]) + (", …" if devices[3:] else "")
    if not devices:
        return Check("cameras", "missing", "none at /dev/video*", "", "camera")
    if any(os.access(path, os.R_OK | os.W_OK) for path in devices):
        return Check("cameras", "ok", names, "", "camera")
    return Check("cameras", "problem", f"{names}: not yours to open", "sudo usermod -aG video $USER", "camera")


def _check_gpu(info: DeviceInfo) -> Check:
    if info.gpu:
        capability = f"compute capability {info.compute_capability}" if info.compute_capability else ""
        driver = f"driver {info.driver}" if info.driver else ""
        cuda = f"CUDA {info.cuda}" if info.cuda else ""
        return Check("gpu", "ok", ", ".join(filter(None, (info.gpu, capability, driver, cuda))), "", "tensorrt")
    if info.gpu_failure:
        # Exit code 9: the kernel module is not loaded; else it and the libraries disagree, or the GPU hangs.
        fix = "sudo modprobe nvidia" if info.gpu_failure.endswith(" 9") else "sudo reboot"
        return Check("gpu", "problem", info.gpu_failure, fix, "tensorrt")
    return Check("gpu", "missing", "no NVIDIA GPU: models run on the CPU", "", "tensorrt")


def _check_jetpack(info: DeviceInfo, root: Path) -> Check:
    if info.l4t is None:
        return Check("jetpack", "missing", "not a Jetson", "", "tensorrt")
    try:
        refuse_old_jetpack(root)
    except ConfigError as error:
        return Check("jetpack", "problem", error.message, "", "tensorrt")
    mode = f", power mode {info.power_mode}" if info.power_mode else ""
    return Check("jetpack", "ok", f"{info.jetpack or 'unknown'} (L4T {info.l4t}){mode}", "", "tensorrt")


def _check_tensorrt(info: DeviceInfo, root: Path) -> Check:
    if _is_there("tensorrt"):
        version = info.tensorrt or "installed"
        if info.tensorrt and _is_older(version, "8.6"):
            fix = "pip install --upgrade 'tensorrt>=8.6'"
            return Check("tensorrt", "problem", f"{version} is older than 8.6", fix, "tensorrt")
        return Check("tensorrt", "ok", version, "", "tensorrt")
    if info.gpu is None:
        return Check("tensorrt", "missing", "not installed; needs an NVIDIA GPU", "", "tensorrt")
    if _is_in_system(root, "tensorrt"):
        detail = f"{info.tensorrt or 'installed'}, not seen by this Python"
        return Check("tensorrt", "problem", detail, _see_system_packages(), "tensorrt")
    fix = "sudo apt-get install -y nvidia-jetpack" if info.l4t else "pip install 'edge-resnet[tensorrt]'"
    return Check("tensorrt", "missing", "not installed", fix, "tensorrt")


def _check_pycuda(info: DeviceInfo) -> Check:
    if _is_there("pycuda"):
        return Check("pycuda", "ok", installed_version("pycuda") or "installed", "", "tensorrt")
    if info.gpu is None:
        return Check("pycuda", "missing", "not installed; needs an NVIDIA GPU", "", "tensorrt")
    # It is compiled while it is installed and looks for the toolkit on PATH.
    fix = "PATH=/usr/local/cuda/bin:$PATH pip install 'pycuda>=2024.1'"
    return Check("pycuda", "missing", "not installed", fix, "tensorrt")


def _is_in_system(root: Path, module: str) -> bool:
    return any(root.glob(f"usr/lib/python3*/dist-packages/{module}*"))


def _see_system_packages() -> str:
    """The command that lets this virtual environment see the packages that apt installed; it keeps what is in it."""
    if sys.prefix == sys.base_prefix:
        return "/usr/bin/python3 -m venv --system-site-packages .venv"
    return f"python3 -m venv --system-site-packages {shlex.quote(sys.prefix)}"
