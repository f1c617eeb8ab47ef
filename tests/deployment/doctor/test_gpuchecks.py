"""gpuchecks.py on machines made of records and small trees, with a C stand-in for the driver in real child processes."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
from gpumachine import CPU, DESKTOP, JETSON, library, no_driver, package, record

from edge_resnet.deployment.doctor import probe
from edge_resnet.deployment.doctor.check import Check
from edge_resnet.deployment.doctor.gpuchecks import check_gpu_side
from edge_resnet.device.machine import DeviceInfo

NOWHERE = Path("/nowhere")
DEBIAN, UBUNTU = replace(DESKTOP, os="Debian GNU/Linux 12"), replace(DESKTOP, os="Ubuntu 24.04 LTS")
NVCC = "#!/bin/sh\necho 'nvcc: NVIDIA (R) Cuda compiler driver'\necho 'Cuda compilation tools, release 12.6, V12.6.68'\n"


@pytest.fixture(autouse=True)
def bare(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No NVIDIA software of the test machine: its driver is hidden by one that cannot be loaded."""
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_lean", "tensorrt_dispatch", "pycuda", "cuda.core"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("bin")))
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_HOME", "STUB_FAILS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(no_driver(tmp_path_factory.mktemp("lib"))))


@pytest.fixture
def driver(libcuda: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A driver that works; STUB_FAILS makes one of its calls fail."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(libcuda.parent))
    return monkeypatch


def found(name: str, info: DeviceInfo = CPU, root: Path = NOWHERE) -> Check:
    return next(check for check in check_gpu_side(info, root) if check.name == name)


def plant(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize("library_there", [False, True])
def test_without_a_gpu_all_is_quiet(monkeypatch: pytest.MonkeyPatch, library_there: bool) -> None:
    """A machine without a GPU has no problem that a command could fix, with or without a driver library."""
    if not library_there:
        monkeypatch.delenv("LD_LIBRARY_PATH")
    checks = check_gpu_side(CPU, NOWHERE)
    assert {(check.status, check.fix) for check in checks} == {("missing", "")}
    names = ["gpu", "driver", "jetpack", "kernels", "tensorrt", "tensorrt-rtx-cu12", "pycuda", "cuda-core"]
    assert [check.name for check in checks] == names
    assert {check.group for check in checks} == {"tensorrt"}


def test_gpu() -> None:
    """No GPU is not a problem; a GPU that does not answer is."""
    assert found("gpu").detail == "no NVIDIA GPU: models run on the CPU"
    dead = found("gpu", replace(CPU, gpu_failure="nvidia-smi failed with exit code 9"))
    assert (dead.status, dead.fix) == ("problem", "sudo modprobe nvidia")
    assert found("gpu", replace(CPU, gpu_failure="nvidia-smi gave no answer in 10 s")).fix == "sudo reboot"


def test_gpu_that_only_the_driver_knows(driver: pytest.MonkeyPatch) -> None:
    """Without nvidia-smi a working driver gives the name of the GPU and how it shares memory."""
    detail = "NVIDIA Stand-in, compute capability 8.7, shares the CPU's memory, INT8 on tensor cores"
    assert found("gpu") == Check("gpu", "ok", detail, "", "tensorrt")
    assert found("gpu", replace(CPU, gpu_failure="nvidia-smi failed with exit code 18")).status == "ok"


def test_gpu_that_reads_memory_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An integrated GPU that maps the CPU's memory is recognised: nothing is copied there."""
    code = (
        "#define cuDeviceGetAttribute stand_in\n#include <libcuda.c>\n#undef cuDeviceGetAttribute\n"
        "int cuDeviceGetAttribute(int *v, int a, int d) { return a == 19 ? (*v = 1, 0) : stand_in(v, a, d); }\n"
    )
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library(tmp_path / "libcuda.so.1", code).parent))
    assert "reads the CPU's memory in place" in found("gpu", JETSON).detail


@pytest.mark.parametrize(
    ("name", "capability", "words"),
    [
        ("NVIDIA Tegra X1", "5.3", "no fast INT8"),
        ("Tesla P100", "6.0", "no fast INT8"),
        ("GeForce GTX 1080 Ti", "6.1", "INT8 dot products"),
        ("NVIDIA Tegra X2", "6.2", "no fast INT8"),
        ("Tesla V100", "7.0", "INT8 dot products"),
        ("NVIDIA Xavier", "7.2", "INT8 on tensor cores"),
        ("NVIDIA GeForce GTX 1650", "7.5", "INT8 dot products"),
        ("NVIDIA Orin", "8.7", "INT8 on tensor cores"),
        ("NVIDIA Thor", "11.0", "INT8 on tensor cores"),
    ],
)
def test_int8_of_the_gpu(name: str, capability: str, words: str) -> None:
    """The speed of INT8 follows from the compute capability."""
    detail = found("gpu", replace(DESKTOP, gpu=name, compute_capability=capability)).detail
    assert detail == f"{name}, compute capability {capability}, {words}"
    assert found("gpu", replace(DESKTOP, gpu=name, compute_capability=None)).detail == name


def test_driver_that_works(driver: pytest.MonkeyPatch) -> None:
    """The version of the driver and the newest CUDA that it runs; an unknown version is left out."""
    assert found("driver", DESKTOP) == Check("driver", "ok", "580.95.05, runs CUDA up to 12.6", "", "tensorrt")
    driver.setenv("STUB_FAILS", "cuDriverGetVersion=1")
    assert found("driver", DESKTOP).detail == "580.95.05"
    assert found("driver").detail == "works"


@pytest.mark.parametrize(
    ("info", "fix"),
    [
        (UBUNTU, "sudo ubuntu-drivers install"),
        (DEBIAN, "sudo apt-get install -y nvidia-driver"),
        (JETSON, "sudo apt-get install --reinstall -y nvidia-l4t-cuda"),
    ],
)
def test_gpu_without_a_driver(info: DeviceInfo, fix: str) -> None:
    """A GPU without the driver library gets the installation command of this machine."""
    check = found("driver", info)
    assert (check.status, check.fix) == ("problem", fix)
    assert "libcuda.so.1 cannot be loaded" in check.detail


def test_gpu_without_a_driver_in_wsl(tmp_path: Path) -> None:
    """WSL2 takes the driver of Windows: one for Linux is never installed there."""
    check = found("driver", UBUNTU, plant(tmp_path, "dev/dxg"))
    assert check.status == "problem"
    assert check.fix == "wsl.exe --update, after installing NVIDIA's driver in Windows"


@pytest.mark.parametrize(
    ("info", "files", "status", "fix"),
    [
        (CPU, [".dockerenv"], "missing", "on the host: docker run --gpus all IMAGE"),
        (DESKTOP, [".dockerenv"], "problem", "on the host: docker run --gpus all IMAGE"),
        (JETSON, [".dockerenv"], "problem", "on the host: docker run --runtime nvidia IMAGE"),
        (
            replace(JETSON, l4t=None, board="NVIDIA Jetson AGX Orin"),
            [".dockerenv"],
            "problem",
            "on the host: docker run --runtime nvidia IMAGE",
        ),
        (DESKTOP, ["run/.containerenv"], "problem", "on the host: podman run --device nvidia.com/gpu=all IMAGE"),
    ],
)
def test_container_without_the_gpu(tmp_path: Path, info: DeviceInfo, files: list[str], status: str, fix: str) -> None:
    """In a container the fix is to start it with the GPU, not to install anything. A host without a GPU is no problem."""
    check = found("driver", info, plant(tmp_path, *files))
    assert (check.status, check.fix) == (status, fix)
    assert "container" in check.detail


def test_container_with_libraries_and_no_device(tmp_path: Path, driver: pytest.MonkeyPatch) -> None:
    """An image that contains libcuda still has no GPU without the device files."""
    driver.setenv("STUB_FAILS", "cuInit=100")
    assert found("driver", DESKTOP, plant(tmp_path, ".dockerenv")).fix == "on the host: docker run --gpus all IMAGE"
    assert found("driver", DESKTOP, plant(tmp_path, "dev/nvidiactl")).fix == "sudo reboot"


@pytest.mark.parametrize(
    ("fault", "words", "fix"),
    [
        ("cuInit=802", "error 802", "sudo systemctl start nvidia-fabricmanager"),
        ("cuInit=803", "error 803", "sudo reboot"),
        ("cuInit=999", "error 999", "sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm"),
        ("cuInit=100", "finds no GPU", "sudo modprobe nvidia"),
    ],
)
def test_driver_that_does_not_start(driver: pytest.MonkeyPatch, fault: str, words: str, fix: str) -> None:
    """Each failure of a driver with a GPU has its fix."""
    driver.setenv("STUB_FAILS", fault)
    check = found("driver", DESKTOP)
    assert (check.status, check.fix) == ("problem", fix)
    assert words in check.detail


def test_hidden_gpu(driver: pytest.MonkeyPatch) -> None:
    """A GPU hidden by an environment variable is not a fault of the driver."""
    driver.setenv("STUB_FAILS", "cuInit=100")
    driver.setenv("CUDA_VISIBLE_DEVICES", "")
    check = found("driver", DESKTOP)
    assert check.detail == "the CUDA driver finds no GPU: CUDA_VISIBLE_DEVICES is ''"
    assert check.fix == "unset CUDA_VISIBLE_DEVICES"


def test_device_files_of_others(tmp_path: Path, driver: pytest.MonkeyPatch) -> None:
    """A user without permission for the device files gets the command for the groups."""
    import os

    driver.setenv("STUB_FAILS", "cuInit=999")
    driver.setattr(os, "access", lambda *_: False)
    check = found("driver", JETSON, plant(tmp_path, "dev/nvmap"))
    assert check.detail.endswith("no permission to open /dev/nvmap")
    assert check.fix == "sudo usermod -aG video,render $USER"


def test_driver_without_a_gpu_is_quiet(driver: pytest.MonkeyPatch) -> None:
    """A driver on a machine without a GPU is no problem."""
    driver.setenv("STUB_FAILS", "cuInit=100")
    assert found("driver") == Check("driver", "missing", "the CUDA driver finds no GPU", "", "tensorrt")


@pytest.mark.parametrize(
    ("body", "detail"), [("abort();", "crashed (SIGABRT)"), ("for (;;) pause();", "no answer in 1 s")], ids=["crash", "hang"]
)
def test_driver_that_takes_its_process_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, detail: str) -> None:
    """A driver that crashes or hangs does not affect doctor, and is named as the cause for TensorRT and PyCUDA."""
    path = library(tmp_path / "libcuda.so.1", f"#include <stdlib.h>\n#include <unistd.h>\nint cuInit(unsigned f) {{ {body} }}\n")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(path.parent))
    monkeypatch.setattr(probe, "_TIMEOUT_S", 1.0)
    for name in ("tensorrt", "pycuda.driver"):
        monkeypatch.delitem(sys.modules, name.partition(".")[0])
        package(tmp_path / "site", name, f"import ctypes\nctypes.CDLL({str(path)!r}).cuInit(0)\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    checks = {check.name: check for check in check_gpu_side(DESKTOP, NOWHERE)}
    assert checks["driver"] == Check("driver", "problem", detail, "sudo reboot", "tensorrt")
    assert {checks[name].fix for name in ("tensorrt", "pycuda")} == {"sudo reboot"}


@pytest.mark.parametrize(
    ("runs", "packages", "info", "words", "fix"),
    [
        ("12040", ["tensorrt-cu12"], DESKTOP, "", ""),
        ("13000", ["tensorrt-cu12"], DESKTOP, "", ""),
        (
            "12040", ["tensorrt", "tensorrt-cu13", "tensorrt-cu13-libs"], DESKTOP, "CUDA 13 (driver 580)",
            "pip uninstall -y tensorrt tensorrt-cu13 tensorrt-cu13-libs && pip install 'tensorrt-cu12>=8.6'",
        ),
        (
            "11080", ["tensorrt-cu12"], DESKTOP, "CUDA 12 (driver 525.60.13)",
            "pip uninstall -y tensorrt-cu12 && pip install 'tensorrt-cu11>=8.6'",
        ),
        ("12060", ["tensorrt-cu13"], JETSON, "CUDA 13", "pip uninstall -y tensorrt-cu13"),
    ],
)  # fmt: skip
def test_driver_older_than_tensorrt(
    tmp_path: Path, driver: pytest.MonkeyPatch, runs: str, packages: list[str], info: DeviceInfo, words: str, fix: str
) -> None:
    """A TensorRT of pip for a newer CUDA than that of the driver is replaced, on a Jetson by the one of JetPack."""
    for name in packages:
        record(tmp_path, name, "10.14.1")
    driver.syspath_prepend(str(tmp_path))
    driver.setenv("STUB_CUDA", runs)
    check = found("driver", info)
    assert (check.status, check.fix) == ("problem" if fix else "ok", fix)
    assert words in check.detail


def test_jetpack(tmp_path: Path) -> None:
    """JetPack 6 is shown, an older one is a problem, and other machines do not need it."""
    assert found("jetpack").detail == "not a Jetson"
    assert found("jetpack", JETSON, tmp_path).detail == "6.2 (L4T 36.4.3)"
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text("# R35 (release), REVISION: 4.1, GCID: 0\n")
    old = found("jetpack", replace(JETSON, l4t="35.4.1", jetpack="5.1.2"), tmp_path)
    assert old.status == "problem"
    assert "JetPack 5.1.2 (L4T 35.4.1) is too old" in old.detail


def nvcc(folder: Path, script: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nvcc").write_text(script)
    (folder / "nvcc").chmod(0o755)


@pytest.fixture
def old_driver(driver: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A driver whose CUDA is older than that of the PTX."""
    driver.setenv("STUB_CUDA", "11040")
    return driver


@pytest.mark.parametrize("info", [DESKTOP, JETSON])
def test_no_nvcc_is_needed(driver: pytest.MonkeyPatch, info: DeviceInfo) -> None:
    """A driver that takes the PTX needs nothing else, even where an nvcc does not run."""
    for cuda in ("11080", "12060", "13000"):
        driver.setenv("STUB_CUDA", cuda)
        kernels = found("kernels", info)
        assert (kernels.status, kernels.fix) == ("ok", "")
        assert kernels.detail == "the driver compiles this package's PTX, which resizes frames: no nvcc is needed"


def test_an_old_driver_needs_nvcc(tmp_path: Path, old_driver: pytest.MonkeyPatch) -> None:
    """It is found in CUDA's folder, which JetPack does not put on PATH, with its version."""
    nvcc(tmp_path / "usr/local/cuda/bin", NVCC)
    kernels = found("kernels", DESKTOP, tmp_path)
    assert kernels.status == "ok"
    beside = f"nvcc of CUDA 12.6 at {tmp_path}/usr/local/cuda/bin/nvcc compiles them"
    assert kernels.detail == f"the PTX of this package needs a driver for CUDA 11.8; {beside}"


def test_an_old_driver_without_nvcc(old_driver: pytest.MonkeyPatch) -> None:
    """A missing compiler is no problem: the check says what it costs and how to install it."""
    lack = found("kernels", DESKTOP)
    assert (lack.status, lack.fix) == ("missing", "sudo apt-get install -y nvidia-cuda-toolkit")
    assert lack.detail.endswith("and there is no nvcc: the CPU resizes frames instead of the GPU")
    assert found("kernels", JETSON).fix == "sudo apt-get install -y nvidia-jetpack"


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 1\n", "\x7fELF of another processor"])
def test_nvcc_that_does_not_run(tmp_path: Path, old_driver: pytest.MonkeyPatch, script: str) -> None:
    """A compiler that is needed and has no version is a problem."""
    nvcc(tmp_path / "usr/local/cuda/bin", script)
    broken = found("kernels", DESKTOP, tmp_path)
    assert (broken.status, broken.fix) == ("problem", "sudo apt-get install --reinstall -y nvidia-cuda-toolkit")
    assert found("kernels", JETSON, tmp_path).fix == "sudo apt-get install --reinstall -y nvidia-jetpack"


def test_a_gpu_older_than_the_ptx(driver: pytest.MonkeyPatch) -> None:
    """A Maxwell of the first generation gets its kernels from nvcc."""
    first = found("kernels", replace(DESKTOP, compute_capability="5.0"))
    assert first.detail.startswith("the PTX of this package needs a GPU of compute capability 5.2, and there is no nvcc")


def test_a_package_without_its_ptx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fix is to install the package again; without a GPU it is said, and is no problem."""
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    lack = found("kernels", DESKTOP)
    assert (lack.status, lack.fix) == ("missing", "pip install --force-reinstall --no-deps edge-resnet")
    assert lack.detail.startswith("resize.cu of this package cannot be read: No such file or directory, and there is no nvcc")
    quiet = found("kernels", CPU)
    assert (quiet.status, quiet.fix) == ("missing", "")
    assert quiet.detail.startswith("not needed without an NVIDIA GPU; resize.cu of this package cannot be read")


def test_every_fix_of_the_room_is_asserted() -> None:
    """Every command in the source is named by a test."""
    here = Path(__file__).parent
    tests = "".join((here / f"{name}.py").read_text() for name in ("test_gpuchecks", "test_trtchecks"))
    for name in ("gpuchecks", "trtchecks"):
        source = (here.parents[2] / f"edge_resnet/deployment/doctor/{name}.py").read_text()
        commands = re.findall(r'"((?:sudo|pip|docker|podman|unset|echo) [^"{]+)', source)
        assert commands
        assert [command for command in commands if command not in tests] == []
