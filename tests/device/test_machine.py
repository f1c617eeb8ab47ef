"""machine.py on recorded trees and with stand-ins for nvidia-smi. Needs no GPU."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.packages import installed_version
from edge_resnet.device import machine
from edge_resnet.device.machine import (
    Clock,
    describe,
    find_nvcc,
    gpu_clock,
    has_int8_dot_product,
    power_modes,
    refuse_old_jetpack,
    swap_mib,
)

X86 = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: {name}
flags\t\t: fpu sse4_2 avx avx2 fma {flags}

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
ARM = """processor\t: 0
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm crc32 {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part}
"""
MEMORY = "MemTotal:        {total} kB\nMemFree:          100000 kB\nMemAvailable:    {available} kB\n"
RELEASE = "# R{major} (release), REVISION: {revision}, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 2025\n"
NVPMODEL = "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n< PM_CONFIG DEFAULT=1 >\n"

CLOCKS = ("612000000\n", "306000000\n", "1020000000\n")

ORIN = {
    "proc/cpuinfo": ARM.format(features="asimddp uscat", part="0xd42"),
    "proc/meminfo": MEMORY.format(total=7802944, available=5242880),
    "etc/nv_tegra_release": RELEASE.format(major=36, revision="4.3") + "# KERNEL_VARIANT: oot\n",
    "etc/nvpmodel.conf": NVPMODEL,
    "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
    "var/lib/nvpmodel/status": "pmode:0002",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0",
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build  (x@y)\n",
    "usr/local/cuda/version.json": '{"cuda" : {\n"name": "SDK",\n"version" : "12.6.11"\n},\n"nvcc": {"version": "12.6.68"}}',
    "usr/lib/aarch64-linux-gnu/libnvinfer.so.10": "",
    "usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0": "",
}  # fmt: skip
JETPACK_5 = ORIN | {"etc/nv_tegra_release": RELEASE.format(major=35, revision="4.1")}
THOR = ORIN | {
    "proc/cpuinfo": ARM.format(features="asimddp i8mm bf16", part="0xd83"),
    "etc/nv_tegra_release": RELEASE.format(major=39, revision="2.0"),
    "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p4071-0000+p3834-0008\0nvidia,tegra264\0",
    "var/lib/nvpmodel/status": "pmode:0000 fmode:quiet",
}
DESKTOP = {
    "proc/cpuinfo": X86.format(name="Intel(R) Core(TM) i7-11700K @ 3.60GHz", flags="avx512f avx512_vnni"),
    "proc/meminfo": MEMORY.format(total=32768000, available=16384000),
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  595.80  Fri Jan 10 2025\nGCC version: gcc\n",
    "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA GeForce RTX 3090\nIRQ:   \t\t 142\n",
}  # fmt: skip
OLD_DESKTOP = {"proc/cpuinfo": X86.format(name="Intel(R) Core(TM) i5-6500", flags="")}
RASPBERRY = {
    "proc/cpuinfo": ARM.format(features="cpuid", part="0xd08")
    + "\nRevision\t: c03114\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n",
    "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
    "proc/device-tree/compatible": "raspberrypi,4-model-b\0brcm,bcm2711\0",
}


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture(autouse=True)
def bin_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH, so that a GPU of the test machine has no effect."""
    folder = tmp_path_factory.mktemp("bin")
    monkeypatch.setenv("PATH", str(folder))
    return folder


def nvidia_smi(folder: Path, script: str) -> None:
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_jetpack_6_orin(tmp_path: Path) -> None:
    """An Orin with JetPack 6.2 is described from files alone."""
    info = describe(plant(tmp_path, ORIN))
    assert (info.l4t, info.jetpack, info.cuda) == ("36.4.3", "6.2", "12.6.11")
    assert (info.gpu, info.compute_capability, info.driver) == ("NVIDIA Orin", "8.7", "540.4.0")
    assert (info.cpu, info.architecture, info.has_int8_dot_product) == ("Cortex-A78AE", "aarch64", True)
    assert (info.memory_total_mib, info.memory_available_mib) == (7620, 5120)
    assert (info.board, info.os) == (
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        "Ubuntu 22.04.5 LTS",
    )
    assert info.power_mode == "MAXN_SUPER"
    refuse_old_jetpack(tmp_path)


@pytest.mark.skipif(installed_version("tensorrt", "tensorrt-cu12", "tensorrt-cu13") is not None, reason="TensorRT is installed")
def test_tensorrt_library_is_found_where_python_has_none(tmp_path: Path) -> None:
    """The version comes from the file name of the library, not from its short symbolic link."""
    assert describe(plant(tmp_path, ORIN)).tensorrt == "10.3.0"


def test_tensorrt_of_this_python_goes_before_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A TensorRT from pip hides that of the system, as on import."""
    site = plant(tmp_path / "site", {"tensorrt-10.13.2.dist-info/METADATA": "Name: tensorrt\nVersion: 10.13.2\n"})
    monkeypatch.syspath_prepend(str(site))
    assert describe(plant(tmp_path / "root", ORIN)).tensorrt == "10.13.2"


def test_jetpack_5_is_refused(tmp_path: Path) -> None:
    """JetPack 5 is described, and refused with a message that names both versions and the required one."""
    root = plant(tmp_path, JETPACK_5)
    assert describe(root).jetpack == "5.1.2"
    with pytest.raises(ConfigError, match=r"JetPack 5\.1\.2 \(L4T 35\.4\.1\) is too old: JetPack 6\.0 or newer") as caught:
        refuse_old_jetpack(root)
    assert "flash JetPack 6.2" in caught.value.hint


@pytest.mark.parametrize(("major", "revision"), [(32, "7.6"), (34, "1.1"), (35, "6.5"), (28, "2.1")])
def test_all_old_releases_are_refused(tmp_path: Path, major: int, revision: str) -> None:
    """Every L4T below R36 is refused, whether or not the table has it."""
    with pytest.raises(ConfigError, match=f"L4T {major}.{revision}"):
        refuse_old_jetpack(plant(tmp_path, {"etc/nv_tegra_release": RELEASE.format(major=major, revision=revision)}))


@pytest.mark.parametrize(
    ("major", "revision", "jetpack"),
    [(36, "3.0", "6.0"), (36, "4.7", "6.2.1"), (36, "9.9", "6"), (38, "2.1", "7.0"), (39, "2.2", "7.2.2"), (41, "1.0", None)],
)
def test_new_releases_are_accepted(tmp_path: Path, major: int, revision: str, jetpack: str | None) -> None:
    """A release newer than the table is accepted and named by its major version."""
    root = plant(tmp_path, {"etc/nv_tegra_release": RELEASE.format(major=major, revision=revision)})
    refuse_old_jetpack(root)
    assert describe(root).jetpack == jetpack


def test_release_from_the_package_database(tmp_path: Path) -> None:
    """Without the release file L4T comes from dpkg's entry for nvidia-l4t-core and no other package."""
    status = (
        "Package: nvidia-l4t-core-extra\nStatus: install ok installed\nVersion: 1.2.3-1\n\n"
        "Package: nvidia-l4t-core\nStatus: install ok installed\nDescription: core\n more\nVersion: 36.4.4-20250616085344\n\n"
        "Package: zlib1g\nVersion: 9.9\n"
    )
    assert describe(plant(tmp_path, {"var/lib/dpkg/status": status})).l4t == "36.4.4"


def test_thor(tmp_path: Path) -> None:
    """A Thor with JetPack 7.2 is known by its chip."""
    info = describe(plant(tmp_path, THOR))
    assert (info.jetpack, info.gpu, info.compute_capability, info.cpu) == ("7.2", "NVIDIA Thor", "11.0", "Neoverse-V3AE")
    assert info.power_mode == "15W"


def test_power_mode_without_names(tmp_path: Path) -> None:
    """Without nvpmodel's table of names the mode is given by its number."""
    root = plant(tmp_path, {"var/lib/nvpmodel/status": "pmode:0012"})
    assert describe(root).power_mode == "12"


def test_power_modes(tmp_path: Path) -> None:
    """The nvpmodel modes are listed with their numbers; other lines of the file are ignored."""
    commented = NVPMODEL + "# < POWER_MODEL ID=9 NAME=OLD >\n"
    assert power_modes(plant(tmp_path, {"etc/nvpmodel.conf": commented})) == {"15W": 0, "MAXN_SUPER": 2}
    assert power_modes(tmp_path / "elsewhere") == {}


def test_nvcc_is_found_on_and_off_the_path(tmp_path: Path, bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PATH precedes $CUDA_HOME, which precedes /usr/local/cuda; a file that cannot be executed does not count."""
    monkeypatch.delenv("CUDA_HOME", raising=False)
    assert find_nvcc(tmp_path) is None
    places = [tmp_path / "usr/local/cuda/bin/nvcc", tmp_path / "home/bin/nvcc", bin_folder / "nvcc"]
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch(mode=0o755)
        assert find_nvcc(tmp_path) == place
    places[-1].chmod(0o644)
    assert find_nvcc(tmp_path) == places[-2]


@pytest.mark.parametrize("name", ["17000000.gpu", "17000000.ga10b", "gpu-gpc-0"])
def test_gpu_clock(tmp_path: Path, name: str) -> None:
    """The GPU clock is found among other clocks, under the names that different kernels use."""
    files = {f"sys/class/devfreq/{name}/{which}_freq": text for which, text in zip(("cur", "min", "max"), CLOCKS, strict=True)}
    other = {f"sys/class/devfreq/13e00000.host1x/{which}_freq": "1\n" for which in ("cur", "min", "max")}
    assert gpu_clock(plant(tmp_path, other)) is None
    assert gpu_clock(plant(tmp_path, files)) == Clock(612, 306, 1020)
    (tmp_path / f"sys/class/devfreq/{name}/cur_freq").write_text("")
    assert gpu_clock(tmp_path) is None


def test_swap(tmp_path: Path) -> None:
    """Swap is read with the memory, and unknown if that is unknown."""
    assert swap_mib(plant(tmp_path, {"proc/meminfo": MEMORY.format(total=8, available=8) + "SwapTotal: 3901440 kB\n"})) == 3810
    assert swap_mib(tmp_path / "elsewhere") is None


def test_desktop_with_vnni(tmp_path: Path) -> None:
    """A desktop without nvidia-smi still gets its GPU and driver from /proc."""
    info = describe(plant(tmp_path, DESKTOP))
    assert (info.gpu, info.driver, info.gpu_failure) == ("NVIDIA GeForce RTX 3090", "595.80", None)
    assert (info.architecture, info.has_int8_dot_product) == ("x86_64", True)
    assert info.cpu == "Intel(R) Core(TM) i7-11700K @ 3.60GHz"
    assert info.jetpack is None


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (OLD_DESKTOP, False),
        (RASPBERRY, False),
        ({}, False),
        (DESKTOP, True),
        (ORIN, True),
        ({"proc/cpuinfo": X86.format(name="N100", flags="avx_vnni")}, True),
        ({"proc/cpuinfo": X86.format(name="old", flags="not_avx_vnni asimddpx")}, False),
    ],
)
def test_int8_dot_product(tmp_path: Path, files: dict[str, str], expected: bool) -> None:
    """Each of the three instruction sets counts, but not a flag with a similar name."""
    assert has_int8_dot_product(plant(tmp_path, files)) is expected


def test_raspberry(tmp_path: Path) -> None:
    """An Arm board other than a Jetson has a name and no GPU."""
    info = describe(plant(tmp_path, RASPBERRY))
    assert (info.board, info.cpu) == ("Raspberry Pi 4 Model B Rev 1.4", "Cortex-A72")
    assert (info.gpu, info.l4t, info.jetpack, info.power_mode) == (None, None, None, None)


def test_an_empty_machine_is_described(tmp_path: Path) -> None:
    """Without any of the files every optional field is None, and the others have values."""
    info = describe(tmp_path)
    absent = {
        "memory_total_mib",
        "memory_available_mib",
        "board",
        "gpu",
        "driver",
        "compute_capability",
        "cuda",
        "l4t",
        "jetpack",
    }
    assert {name for name in absent if getattr(info, name) is not None} == set()
    assert info.usable_cores >= 1
    assert info.architecture
    assert info.os


@given(st.lists(st.binary(max_size=80), min_size=len(ORIN), max_size=len(ORIN)))
@settings(max_examples=25)
def test_no_content_of_a_file_is_an_error(contents: list[bytes]) -> None:
    """The machine is described whatever bytes the files contain."""
    with tempfile.TemporaryDirectory() as folder:
        plant(Path(folder), ORIN)
        for name, content in zip(ORIN, contents, strict=True):
            (Path(folder) / name).write_bytes(content)
        assert describe(Path(folder)).usable_cores >= 1


def test_nvidia_smi_is_asked(bin_folder: Path, tmp_path: Path) -> None:
    """The first GPU that nvidia-smi names is the one described."""
    nvidia_smi(
        bin_folder,
        'case "$*" in *name,driver_version,compute_cap*csv,noheader) ;; *) exit 2;; esac\n'
        "echo 'NVIDIA H100 80GB HBM3, 580.95.05, 9.0'\necho 'NVIDIA T4, 580.95.05, 7.5'",
    )
    info = describe(plant(tmp_path, OLD_DESKTOP))
    assert (info.gpu, info.driver, info.compute_capability) == ("NVIDIA H100 80GB HBM3", "580.95.05", "9.0")
    assert info.gpu_failure is None


def test_nvidia_smi_on_a_jetson_knows_little(bin_folder: Path, tmp_path: Path) -> None:
    """What nvidia-smi omits on a Jetson comes from the chip, and the GPU name does not depend on nvidia-smi."""
    nvidia_smi(bin_folder, "echo 'Orin (nvgpu), 540.3.0, [N/A]'")
    info = describe(plant(tmp_path, ORIN))
    assert (info.gpu, info.driver, info.compute_capability) == ("NVIDIA Orin", "540.3.0", "8.7")


def test_nvidia_smi_that_fails(bin_folder: Path, tmp_path: Path) -> None:
    """Exit code 9, a driver that does not answer, means no usable GPU, with the reason."""
    nvidia_smi(bin_folder, "echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'; exit 9")
    info = describe(plant(tmp_path, DESKTOP))
    assert (info.gpu, info.gpu_failure) == (None, "nvidia-smi failed with exit code 9")


def test_nvidia_smi_that_hangs(bin_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that hangs costs the time limit and no more."""
    monkeypatch.setattr(machine, "_SMI_TIMEOUT_S", 0.3)
    nvidia_smi(bin_folder, "exec /bin/sleep 90")
    start = time.monotonic()
    info = describe(plant(tmp_path, DESKTOP))
    assert time.monotonic() - start < 60
    assert info.gpu_failure == "nvidia-smi gave no answer in 0.3 s"


@pytest.mark.parametrize("output", ["", "No devices were found", "a, b", "a, b, c, d"])
def test_nvidia_smi_that_says_something_else(bin_folder: Path, tmp_path: Path, output: str) -> None:
    """Output in another form is a failure, never the name of a GPU."""
    nvidia_smi(bin_folder, f"echo '{output}'")
    info = describe(tmp_path)
    assert info.gpu is None
    assert info.gpu_failure is not None


def test_nvidia_smi_that_cannot_be_run(bin_folder: Path, tmp_path: Path) -> None:
    """A file of that name that cannot be executed is a failure with its reason."""
    nvidia_smi(bin_folder, "")
    (bin_folder / "nvidia-smi").write_bytes(b"\x7fELF not for this processor")
    failure = describe(tmp_path).gpu_failure
    assert failure is not None
    assert failure.startswith("nvidia-smi cannot be run")


def test_this_machine() -> None:
    """The description of this machine agrees with the kernel."""
    info = describe()
    assert info.python == ".".join(map(str, sys.version_info[:3]))
    assert info.architecture == os.uname().machine
    assert info.memory_total_mib is not None
    assert info.memory_available_mib is not None
    assert 0 < info.memory_available_mib <= info.memory_total_mib
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.cpu = "another"  # type: ignore[misc]


def test_nothing_heavy_is_imported() -> None:
    """Describing the machine loads no package but the standard library and edge-resnet."""
    code = "import sys; from edge_resnet.device.machine import describe; describe(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint({"numpy", "torch", "torchvision", "onnx", "onnxruntime", "cv2", "tensorrt", "pycuda", "rich"})
