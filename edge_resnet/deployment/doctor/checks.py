"""Whether this machine has what edge-resnet needs, and the one command that fixes each problem.

Does not know about networks, artifacts or printing, and does not import torch, onnx, TensorRT, PyCUDA or cuda.core to find
them. NVIDIA GPUs are checked in gpuchecks.py.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING

from edge_resnet.core.files import cache_folder
from edge_resnet.core.packages import extra_command, installed_version, is_older, required_packages
from edge_resnet.deployment.doctor.backendchecks import check_backends
from edge_resnet.deployment.doctor.check import Check, Group, is_importable, is_installed_by_apt, system_site_command
from edge_resnet.deployment.doctor.gpuchecks import check_gpu_side
from edge_resnet.device.cameras import list_cameras
from edge_resnet.device.gstreamer import has_plugin
from edge_resnet.device.machine import DeviceInfo, describe, gpu_clock, power_modes, swap_mib

if TYPE_CHECKING:
    from edge_resnet.runtime.backend import BackendInfo  # numpy, which may be broken here

__all__ = ["Readiness", "examine", "readiness", "usable_backends"]

_ROOT = Path("/")
_MIN_FREE_DISK_MIB = 2 * 1024
_MIN_FREE_MEMORY_MIB = 1024
#: The GPU of a Jetson shares the memory, and TensorRT's builder runs its candidate kernels on it.
_MIN_FREE_SHARED_MEMORY_MIB = 2 * 1024
#: Boards of 8 GiB report less than that: the kernel and the firmware reserve some.
_MEMORY_WITHOUT_SWAP_MIB = 8 * 1024
#: Distribution → import name, where they differ.
_MODULES: Mapping[str, str] = MappingProxyType({"pillow": "PIL", "scikit-learn": "sklearn"})
_OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")


@dataclass(frozen=True)
class Readiness:
    """The ``commands`` and ``backends`` that work now, by name. ``reason``: why none does, else empty."""

    commands: tuple[str, ...]
    backends: tuple[str, ...]
    reason: str


def examine(root: Path = _ROOT, info: DeviceInfo | None = None) -> list[Check]:
    """Check everything that edge-resnet may need. ``info``: the result of ``describe``, if the caller has it.

    The base packages and OpenCV are imported to see that they load. The CUDA driver, TensorRT, PyCUDA, cuda.core and OpenVINO,
    if installed, are loaded in child processes, which takes 27 seconds at most. Raises MissingDependencyError if edge-resnet
    runs without being installed, since its requirements are then unknown.
    """
    info = info or describe(root)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(check_backends, info)
        gpu_side, backends = check_gpu_side(info, root), asked.result()
    return [
        *(_check_cpu(info), _check_int8(info), _check_memory(info), *_check_board(info, root), _check_disk(), _check_cache()),
        Check("python", "ok", f"{info.python} in {sys.prefix}", "", "base"),
        *_check_packages("base"),
        *backends,
        *_check_packages("compile"),
        *_check_packages("build"),
        *(_check_opencv(info, root), _check_cameras(root)),
        *gpu_side,
        *_check_packages("demo"),
    ]


def usable_backends(checks: Sequence[Check], backends: Mapping[str, BackendInfo]) -> tuple[str, ...]:
    """The names of the backends that can run now: their packages are there, and on a GPU their checks and the driver's passed."""
    passed = {check.name for check in checks if check.status == "ok"}

    def is_usable(info: BackendInfo) -> bool:
        if info.processor == "GPU":
            return "driver" in passed and all(passed & requirement.packages for requirement in info.requirements)
        return all(is_importable(requirement.module) for requirement in info.requirements)

    return tuple(name for name, info in backends.items() if is_usable(info))


def readiness(checks: Sequence[Check], backends: Mapping[str, BackendInfo]) -> Readiness:
    """Which commands and backends work, read off the checks that ``examine`` made."""
    bad = {check.name: check for check in checks if check.status != "ok"}
    broken = [check.name for check in checks if check.group == "base" and check.name in bad]
    usable = usable_backends(checks, backends)
    reason = f"{', '.join(broken)} missing or broken" if broken else "" if usable else "no backend can run"
    if "jetpack" in bad and bad["jetpack"].status == "problem":
        reason = bad["jetpack"].detail
    if reason:
        return Readiness((), usable, reason)
    compiles = not any(check.group == "compile" for check in bad.values())
    builds = compiles and not any(check.group == "build" for check in bad.values())
    commands = {
        "build": builds, "compile": compiles, "eval": True, "run": True,
        "run --camera": bad.keys().isdisjoint({"opencv", "cameras"}), "demo": builds and "scikit-learn" not in bad,
    }  # fmt: skip
    return Readiness(tuple(name for name, works in commands.items() if works), usable, "")


def _check_packages(group: Group) -> list[Check]:
    """The packages that edge-resnet itself requires (``base``), or those that the extra of that name adds."""
    required = required_packages("" if group == "base" else group)
    return [_check_package(name, minimum, group) for name, minimum in required.items()]


def _check_package(name: str, minimum: str, group: Group) -> Check:
    module, requirement = _MODULES.get(name, name), shlex.quote(f"{name}>={minimum}")
    if not is_importable(module):
        install = f"pip install {requirement}" if group == "base" else extra_command(group)
        return Check(name, "missing", "not installed", install, group)
    failure = _import_failure(module) if group == "base" else ""
    if failure:
        return Check(name, "problem", f"cannot be imported: {failure}", f"pip install --force-reinstall {requirement}", group)
    version = installed_version(name) or str(getattr(sys.modules.get(module), "__version__", "")) or "installed"
    if is_older(version, minimum):
        if name == "numpy" and _opencv_needs_numpy_1():
            requirement = shlex.quote(f"{name}>={minimum},<2")
        return Check(name, "problem", f"{version} is older than {minimum}", f"pip install --upgrade {requirement}", group)
    return Check(name, "ok", version, "", group)


def _opencv_needs_numpy_1() -> bool:
    """Whether this Python sees an OpenCV of apt's or JetPack's, which are built for numpy 1."""
    return is_importable("cv2") and not any(installed_version(name) for name in _OPENCV)


def _import_failure(module: str) -> str:
    try:
        if module == "onnxruntime":  # only its own module imports it without telemetry
            importlib.import_module("edge_resnet.runtime.onnxruntime").load_onnxruntime()
        else:
            importlib.import_module(module)
    except Exception as error:  # a broken binary may raise anything
        return str(error).partition("\n")[0] or type(error).__name__
    return ""


def _check_cpu(info: DeviceInfo) -> Check:
    return Check("cpu", "ok", f"{info.cpu}, {info.usable_cores} cores, {info.architecture}", "", "machine")


def _check_int8(info: DeviceInfo) -> Check:
    if info.has_int8_dot_product:
        return Check("int8", "ok", "dot products in one instruction", "", "machine")
    lack = "no VNNI: slower, and weights are kept to 7 bits" if info.architecture == "x86_64" else "no dot product: slower"
    return Check("int8", "missing", f"{lack} (CPU only)", "", "machine")


def _check_memory(info: DeviceInfo) -> Check:
    available = info.memory_available_mib
    if available is None:
        return Check("memory", "missing", "cannot be read", "", "machine")
    detail = f"{available} of {info.memory_total_mib} MiB available"
    needed, purpose = (_MIN_FREE_SHARED_MEMORY_MIB, " to build engines for the GPU") if info.l4t else (_MIN_FREE_MEMORY_MIB, "")
    if available >= needed:
        return Check("memory", "ok", detail, "", "machine")
    # The desktop takes most of the memory of a small Jetson.
    fix = "sudo systemctl isolate multi-user.target" if info.l4t else ""
    return Check("memory", "problem", f"{detail}, {needed} needed{purpose}", fix, "machine")


def _check_board(info: DeviceInfo, root: Path) -> list[Check]:
    """What only a Jetson has: a power mode, clocks that can be pinned, and little memory."""
    if info.l4t is None:
        return []
    return [check for check in (_check_swap(info, root), _check_power(info, root), _check_clocks(root)) if check]


def _check_swap(info: DeviceInfo, root: Path) -> Check | None:
    swap, total = swap_mib(root), info.memory_total_mib
    if swap is None or total is None:
        return None
    if swap or total >= _MEMORY_WITHOUT_SWAP_MIB:
        return Check("swap", "ok", f"{swap} MiB" if swap else f"none, with {total} MiB of memory", "", "machine")
    if (root / "etc/systemd/nvzramconfig.sh").exists():
        fix = "sudo systemctl enable --now nvzramconfig"
    else:
        fix = "sudo fallocate -l 8G /swap && sudo chmod 600 /swap && sudo mkswap /swap && sudo swapon /swap"
    return Check("swap", "problem", "none: engine builds may run out of memory and be killed", fix, "machine")


def _check_power(info: DeviceInfo, root: Path) -> Check | None:
    mode, modes = info.power_mode, power_modes(root)
    if mode is None:
        return None
    fastest = max(modes, key=_speed, default=mode)
    if mode not in modes or _speed(mode) >= _speed(fastest):
        return Check("power", "ok", mode if mode in modes else f"mode {mode}", "", "machine")
    return Check("power", "ok", f"{mode}, not the fastest ({fastest})", f"sudo nvpmodel -m {modes[fastest]}", "machine")


def _speed(mode: str) -> tuple[bool, int, bool]:
    """Sorts the names of nvpmodel: MAXN_SUPER, MAXN, then by watts."""
    watts = re.search(r"(\d+)W", mode)
    return mode.startswith("MAXN"), int(watts[1]) if watts else 0, "SUPER" in mode


def _check_clocks(root: Path) -> Check | None:
    clock = gpu_clock(root)
    if clock is None:
        return None
    if clock.min_mhz == clock.max_mhz:
        return Check("clocks", "ok", f"GPU pinned at {clock.max_mhz} MHz", "", "machine")
    detail = f"GPU at {clock.now_mhz} of {clock.max_mhz} MHz, follows the load: pin it before measuring"
    return Check("clocks", "ok", detail, "sudo jetson_clocks", "machine")


def _check_disk() -> Check:
    try:
        free_mib = shutil.disk_usage(Path.cwd()).free // 2**20
    except OSError as error:
        return Check("disk", "problem", f"the current folder cannot be read: {error.strerror}", "cd ~", "machine")
    if free_mib >= _MIN_FREE_DISK_MIB:
        return Check("disk", "ok", f"{free_mib} MiB free in this folder", "", "machine")
    return Check(
        "disk", "problem", f"{free_mib} MiB free in this folder, {_MIN_FREE_DISK_MIB} needed", "pip cache purge", "machine"
    )


def _check_cache() -> Check:
    folder = cache_folder().absolute()
    nearest = next(path for path in (folder, *folder.parents) if os.access(path, os.F_OK))
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return Check("cache", "ok", str(folder), "", "machine")
    fix = f'sudo install -d -o "$USER" {shlex.quote(str(folder))}'
    return Check("cache", "problem", f"{folder} cannot be written", fix, "machine")


def _check_opencv(info: DeviceInfo, root: Path) -> Check:
    from_pip = [name for name in _OPENCV if installed_version(name)]
    failure = _import_failure("cv2") if is_importable("cv2") else "not installed"
    if failure:
        return _without_opencv(info, root, from_pip, failure)
    cv2 = sys.modules["cv2"]
    version = str(getattr(cv2, "__version__", "installed"))
    if _has_gstreamer(cv2):
        if info.l4t is None or has_plugin("nvarguscamerasrc", root):
            return Check("opencv", "ok", f"{version} with GStreamer", "", "camera")
        detail = f"{version} with GStreamer, which has no nvarguscamerasrc: no CSI cameras"
        return Check("opencv", "problem", detail, "sudo apt-get install -y nvidia-l4t-gstreamer", "camera")
    if info.l4t is None:
        return Check("opencv", "ok", f"{version} without GStreamer (USB, files and RTSP work)", "", "camera")
    if not from_pip:
        return Check("opencv", "problem", f"{version} has no GStreamer: no CSI cameras", "", "camera")
    fix = f"pip uninstall -y {' '.join(from_pip)}"
    return Check("opencv", "problem", f"pip's {version} hides the one of JetPack: no GStreamer, no CSI", fix, "camera")


def _has_gstreamer(cv2: ModuleType) -> bool:
    # The registry lists GStreamer among the backends even if it is not built in; hasBackend is exact.
    has_backend = getattr(getattr(cv2, "videoio_registry", None), "hasBackend", None)
    return bool(has_backend and has_backend(cv2.CAP_GSTREAMER))


def _without_opencv(info: DeviceInfo, root: Path, from_pip: Sequence[str], failure: str) -> Check:
    if from_pip:
        fix = f"pip install --force-reinstall {from_pip[0]}"
        if "libGL" in failure:
            fix = "sudo apt-get install -y libgl1"
        return Check("opencv", "problem", f"cannot be imported: {failure}", fix, "camera")
    if is_importable("cv2"):
        # The OpenCV of Ubuntu and JetPack is built for numpy 1.
        fix = "pip install 'numpy<2'" if "numpy" in failure else "sudo apt-get install --reinstall -y python3-opencv"
        return Check("opencv", "problem", f"cannot be imported: {failure}", fix, "camera")
    if info.l4t is None:
        return Check("opencv", "missing", "not installed", extra_command("camera"), "camera")
    if is_installed_by_apt(root, "cv2"):
        return Check("opencv", "problem", "the one of JetPack is not visible to this Python", system_site_command(), "camera")
    return Check("opencv", "missing", "not installed", "sudo apt-get install -y python3-opencv", "camera")


def _check_cameras(root: Path) -> Check:
    cameras = [camera for camera in list_cameras(root) if camera.captures]
    shown = [f"{camera.path} {camera.name}".strip() + (" (csi)" if camera.kind == "csi" else "") for camera in cameras]
    names = ", ".join(shown[:3]) + (", …" if shown[3:] else "")
    if not cameras:
        return Check("cameras", "missing", "none at /dev/video*", "", "camera")
    if any(camera.openable for camera in cameras):
        return Check("cameras", "ok", names, "", "camera")
    return Check("cameras", "problem", f"{names}: no permission to open", "sudo usermod -aG video $USER", "camera")
