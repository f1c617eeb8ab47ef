"""What this machine is: processor, memory, board, GPU, JetPack and versions, read from files, nvidia-smi and package metadata.

Does not know what edge-resnet needs (doctor does), and imports no package to find its version. ``root`` always stands for ``/``
where files are read; nvidia-smi and the packages are those of the running machine.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.packages import installed_version
from edge_resnet.core.process import run_within

__all__ = [
    "Clock",
    "DeviceInfo",
    "describe",
    "find_nvcc",
    "gpu_clock",
    "has_int8_dot_product",
    "power_mode",
    "power_modes",
    "refuse_old_jetpack",
    "swap_mib",
]

_ROOT = Path("/")
_SMI_TIMEOUT_S = 10.0
_OLDEST_L4T = 36

#: L4T → JetPack; the most precise key counts: "36.4.3", else "36.4", else "36" (NVIDIA's release archive).
_JETPACK = {
    "32": "4", "34": "5", "35": "5", "36": "6", "38": "7", "39": "7",
    "35.1": "5.0.2", "35.2": "5.1", "35.3": "5.1.1", "35.4": "5.1.2", "35.5": "5.1.3", "35.6.0": "5.1.4",
    "36.3": "6.0", "36.4.0": "6.1", "36.4.3": "6.2", "36.4.4": "6.2.1", "36.4.7": "6.2.1", "36.5.0": "6.2.2", "36.5.2": "6.2.3",
    "38.2": "7.0", "38.4": "7.1", "39.2.0": "7.2", "39.2.1": "7.2.1", "39.2.2": "7.2.2",
}  # fmt: skip
#: System on chip → GPU and its compute capability, which nvidia-smi does not report on a Jetson.
_TEGRA = {"tegra234": ("NVIDIA Orin", "8.7"), "tegra264": ("NVIDIA Thor", "11.0")}
#: (CPU implementer, CPU part) → name (Linux, arch/arm64/include/asm/cputype.h); on Arm the kernel prints no model name.
_ARM_CORES = {
    ("0x41", "0xd03"): "Cortex-A53", ("0x41", "0xd05"): "Cortex-A55", ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd0b"): "Cortex-A76", ("0x41", "0xd42"): "Cortex-A78AE", ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd83"): "Neoverse-V3AE", ("0x4e", "0x004"): "NVIDIA Carmel",
}  # fmt: skip

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeviceInfo:
    """The machine, for reports and engine keys; what is unknown is None.

    ``usable_cores``: those that this process may run on. ``gpu_failure``: why an installed driver provides no GPU.
    ``compute_capability``: for example ``8.7``. ``cuda``: version of the toolkit. ``tensorrt``: version of the Python package,
    else of the library. ``power_mode``: name of the nvpmodel mode on a Jetson.
    """

    cpu: str
    architecture: str
    usable_cores: int
    has_int8_dot_product: bool
    memory_total_mib: int | None
    memory_available_mib: int | None
    board: str | None
    gpu: str | None
    gpu_failure: str | None
    driver: str | None
    compute_capability: str | None
    cuda: str | None
    tensorrt: str | None
    l4t: str | None
    jetpack: str | None
    power_mode: str | None
    python: str
    os: str


def describe(root: Path = _ROOT) -> DeviceInfo:
    """Describe this machine; takes as long as nvidia-smi, ten seconds at most. Raises nothing."""
    cpuinfo, memory, l4t, gpu = _cpuinfo(root), _memory_mib(root), _l4t(root), _gpu(root)
    return DeviceInfo(
        cpu=_cpu_name(cpuinfo),
        architecture=_architecture(cpuinfo),
        usable_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        has_int8_dot_product=has_int8_dot_product(root),
        memory_total_mib=memory.get("MemTotal"),
        memory_available_mib=memory.get("MemAvailable"),
        board=_read(root / "proc/device-tree/model").strip("\0\n ") or None,
        gpu=gpu.name,
        gpu_failure=gpu.failure,
        driver=gpu.driver,
        compute_capability=gpu.compute_capability,
        cuda=_cuda(root, gpu),
        tensorrt=installed_version("tensorrt", "tensorrt-cu13", "tensorrt-cu12") or _tensorrt_library(root),
        l4t=l4t,
        jetpack=_jetpack(l4t),
        power_mode=power_mode(root),
        python=platform.python_version(),
        os=_find(r'^PRETTY_NAME="?([^"\n]+)', _read(root / "etc/os-release")) or platform.system(),
    )


def has_int8_dot_product(root: Path = _ROOT) -> bool:
    """Whether the CPU multiplies and sums int8 in one instruction: AVX-512 VNNI or AVX-VNNI (x86), asimddp (Arm).

    Without it INT8 in ONNX Runtime is slower, and on x86 its 16-bit sums saturate unless weights are kept to 7 bits
    (ONNX Runtime documentation, "Quantize ONNX models", reduce_range).
    """
    cpuinfo = _cpuinfo(root)
    flags = set(f"{cpuinfo.get('flags', '')} {cpuinfo.get('Features', '')}".split())
    return not flags.isdisjoint({"avx512_vnni", "avx_vnni", "asimddp"})


def refuse_old_jetpack(root: Path = _ROOT) -> None:
    """Raise ConfigError on a Jetson with JetPack 4 or 5 (L4T below R36)."""
    l4t = _l4t(root)
    if l4t is not None and int(l4t.split(".")[0]) < _OLDEST_L4T:
        raise ConfigError(
            f"JetPack {_jetpack(l4t) or 'of unknown version'} (L4T {l4t}) is too old: JetPack 6.0 or newer is needed",
            hint="flash JetPack 6.2 or newer on an Orin board; Nano, TX2 and Xavier boards cannot be upgraded that far",
        )


def find_nvcc(root: Path = _ROOT) -> Path | None:
    """The CUDA compiler: on PATH, in $CUDA_HOME, or in /usr/local/cuda, which JetPack does not put on PATH."""
    listed = [Path(folder) for folder in os.environ.get("PATH", "").split(":")]
    places = [folder / "nvcc" for folder in (*listed, Path(os.environ.get("CUDA_HOME", "")) / "bin", root / "usr/local/cuda/bin")]
    return next((place for place in places if place.is_absolute() and place.is_file() and os.access(place, os.X_OK)), None)


def power_mode(root: Path = _ROOT) -> str | None:
    """The nvpmodel mode of a Jetson by name, else by number; None on other machines."""
    mode = _find(r"pmode:0*(\d+)", _read(root / "var/lib/nvpmodel/status"))
    return next((name for name, number in power_modes(root).items() if str(number) == mode), mode)


def power_modes(root: Path = _ROOT) -> dict[str, int]:
    """The nvpmodel modes of a Jetson, name → number; empty on other machines."""
    found = re.findall(r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)", _read(root / "etc/nvpmodel.conf"), re.MULTILINE)
    return {name: int(number) for number, name in found}


@dataclass(frozen=True)
class Clock:
    """A GPU clock and its current limits, in MHz."""

    now_mhz: int
    min_mhz: int
    max_mhz: int


def gpu_clock(root: Path = _ROOT) -> Clock | None:
    """The clock of a Jetson's GPU (Linux, devfreq); None on other machines."""
    folders = sorted(root.glob("sys/class/devfreq/*"))
    for folder in (path for path in folders if re.search(r"\.gpu$|ga10b|gv11b|gpu-gpc-0", path.name)):
        values = [_read(folder / f"{name}_freq").strip() for name in ("cur", "min", "max")]
        if all(value.isdigit() for value in values):
            return Clock(*(int(value) // 1_000_000 for value in values))
    return None


def swap_mib(root: Path = _ROOT) -> int | None:
    """The total swap space in MiB; None if it cannot be read."""
    return _memory_mib(root).get("SwapTotal")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _find(pattern: str, *texts: str) -> str | None:
    matches = (re.search(pattern, text, re.MULTILINE) for text in texts)
    return next((match[1].strip() for match in matches if match), None)


def _cpuinfo(root: Path) -> dict[str, str]:
    """Key → value for the first core; the others repeat it."""
    lines = _read(root / "proc/cpuinfo").split("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _architecture(cpuinfo: Mapping[str, str]) -> str:
    if cpuinfo.get("CPU architecture") == "8":
        return "aarch64"
    return "x86_64" if "flags" in cpuinfo else platform.machine()


def _cpu_name(cpuinfo: Mapping[str, str]) -> str:
    core = _ARM_CORES.get((cpuinfo.get("CPU implementer", ""), cpuinfo.get("CPU part", "")))
    return core or cpuinfo.get("model name") or platform.processor() or "unknown processor"


def _memory_mib(root: Path) -> dict[str, int]:
    found = re.findall(r"^(MemTotal|MemAvailable|SwapTotal):\s+(\d+) kB", _read(root / "proc/meminfo"), re.MULTILINE)
    return {key: int(kib) // 1024 for key, kib in found}


def _l4t(root: Path) -> str | None:
    match = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", _read(root / "etc/nv_tegra_release"))
    if match:
        return f"{match[1]}.{match[2]}"
    # The release file is missing on some images; the package database is not.
    return _find(r"^Package: nvidia-l4t-core\n(?:.+\n)*?Version: ([\d.]+)", _read(root / "var/lib/dpkg/status"))


def _jetpack(l4t: str | None) -> str | None:
    parts = (l4t or "").split(".")
    return next((_JETPACK[key] for n in (3, 2, 1) if (key := ".".join(parts[:n])) in _JETPACK), None)


@dataclass(frozen=True)
class _Gpu:
    name: str | None = None
    driver: str | None = None
    compute_capability: str | None = None
    failure: str | None = None


def _gpu(root: Path) -> _Gpu:
    """The first GPU. On a Jetson the name comes from the chip, so that it is the same with and without nvidia-smi."""
    smi = _nvidia_smi()
    driver = smi.driver or _find(r"NVRM version:.*?\s(\d{3}\.[\d.]+)\s", _read(root / "proc/driver/nvidia/version"))
    compatible = _read(root / "proc/device-tree/compatible")
    for chip, (name, capability) in _TEGRA.items():
        if chip in compatible:
            return _Gpu(name, driver, capability)
    if smi.name or smi.failure:
        return replace(smi, driver=driver)
    models = [_read(path) for path in sorted(root.glob("proc/driver/nvidia/gpus/*/information"))]
    return _Gpu(_find(r"^Model:\s*(\S.*)", *models), driver)


def _nvidia_smi() -> _Gpu:
    if shutil.which("nvidia-smi") is None:
        return _Gpu()
    command = ["nvidia-smi", "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"]
    try:
        done = run_within(command, _SMI_TIMEOUT_S)
    except OSError as error:
        return _Gpu(failure=f"nvidia-smi cannot be run: {error.strerror}")
    if done is None:
        return _Gpu(failure=f"nvidia-smi gave no answer in {_SMI_TIMEOUT_S:g} s")
    values = [value.strip() for value in done.stdout.partition("\n")[0].split(",")]
    if done.code or len(values) != 3:
        _log.debug("nvidia-smi: %s%s", done.stdout, done.stderr)
        return _Gpu(failure=f"nvidia-smi failed with exit code {done.code}")
    return _Gpu(*(None if value in {"", "N/A"} or value.startswith("[") else value for value in values))


def _cuda(root: Path, gpu: _Gpu) -> str | None:
    toolkit = _find(r'"cuda"\s*:\s*\{[^}]*"version"\s*:\s*"([\d.]+)"', _read(root / "usr/local/cuda/version.json"))
    if toolkit or gpu.name is None:
        return toolkit
    return installed_version("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12")


def _tensorrt_library(root: Path) -> str | None:
    versions = (_find(r"\.so\.(\d+\.[\d.]+)$", str(path)) for path in sorted(root.glob("usr/lib/*-linux-gnu/libnvinfer.so.*")))
    return next((version for version in versions if version), None)
