"""trtchecks.py: TensorRT and PyCUDA in real child processes with real error messages, and the tables of versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from gpumachine import CPU, DESKTOP, JETSON, THOR, library, package, record

from edge_resnet.deployment.doctor import trtchecks
from edge_resnet.deployment.doctor.check import Check
from edge_resnet.deployment.doctor.probe import ProbedMachine, ProbeResult, Topic, probe_machine
from edge_resnet.deployment.doctor.trtchecks import check_cudnn, check_pycuda, check_tensorrt
from edge_resnet.device.machine import DeviceInfo

NOWHERE = Path("/nowhere")
LOST = "cannot open shared object file: No such file or directory"
AGAIN = "sudo apt-get install --reinstall -y"
REBUILD = "PATH=/usr/local/cuda/bin:$PATH pip install --force-reinstall --no-cache-dir --no-deps 'pycuda>=2024.1'"


pytestmark = pytest.mark.usefixtures("site")


def tensorrt(info: DeviceInfo, answer: ProbeResult | None = None, root: Path = NOWHERE) -> Check:
    """The check of what is on the path, or of a given probe result."""
    return check_tensorrt(probe_machine(info, root) if answer is None else ProbedMachine(info, root, {"tensorrt": answer}), "")


def version(text: str, library: str = "") -> ProbeResult:
    return ProbeResult({"version": text, "library": library}, "")


def test_a_whole_tensorrt(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Module, library and record of one version that fits the GPU are ok."""
    path = library(tmp_path / "libnvinfer.so.10", "int getInferLibVersion(void) { return 101303; }\n")
    package(site, "tensorrt", f"import ctypes\nctypes.CDLL({str(path)!r})\n__version__ = '10.13.3.9'\n")
    record(site, "tensorrt", "10.13.3.9")
    assert tensorrt(DESKTOP) == Check("tensorrt", "ok", "10.13.3.9", "", "tensorrt")


def test_without_tensorrt(tmp_path: Path) -> None:
    """Without a GPU nothing has to be installed; with one the fix is that of the machine."""
    assert tensorrt(CPU) == Check("tensorrt", "missing", "not installed; needs an NVIDIA GPU", "", "tensorrt")
    assert tensorrt(DESKTOP).fix == "pip install 'edge-resnet[tensorrt]'"
    assert tensorrt(JETSON).fix == "sudo apt-get install -y nvidia-jetpack"
    (tmp_path / "usr/lib/python3.10/dist-packages/tensorrt").mkdir(parents=True)
    unseen = tensorrt(replace(JETSON, tensorrt="10.3.0"), root=tmp_path)
    assert (unseen.status, unseen.detail) == ("problem", "10.3.0, but not visible to this Python")
    assert "-m venv --system-site-packages" in unseen.fix


@pytest.mark.parametrize("lean", ["tensorrt_lean", "tensorrt_dispatch"])
def test_lean_alone_builds_nothing(site: Path, lean: str) -> None:
    """The lean runtimes of NVIDIA cannot build engines and do not count as TensorRT."""
    package(site, lean)
    check = tensorrt(DESKTOP)
    assert (check.status, check.detail) == ("problem", f"only {lean} is installed, which cannot build engines")
    assert check.fix == "pip install 'edge-resnet[tensorrt]'"
    assert tensorrt(CPU).status == "missing"


def test_tensorrt_is_quiet_without_a_gpu(site: Path) -> None:
    """Without a GPU a TensorRT that loads is shown, and one that does not is no problem."""
    package(site, "tensorrt", "__version__ = '8.5.2'")
    assert tensorrt(CPU) == Check("tensorrt", "ok", "8.5.2", "", "tensorrt")
    package(site, "tensorrt", "raise ImportError('libnvinfer.so.10: cannot open')")
    broken = tensorrt(CPU)
    assert (broken.status, broken.detail, broken.fix) == ("missing", "installed; libnvinfer.so.10: cannot open", "")


def test_old_tensorrt(site: Path) -> None:
    """Versions below 8.6 are too old, even if they do not load; on a Jetson pip's is removed and JetPack's kept."""
    old = replace(DESKTOP, tensorrt="8.5.2.2")
    check = tensorrt(old, ProbeResult({}, "module 'numpy' has no attribute 'bool'"))
    assert (check.status, check.detail) == ("problem", "8.5.2.2 is older than 8.6")
    assert check.fix == "pip install --upgrade 'tensorrt>=8.6'"
    record(site, "tensorrt", "8.5.2.2")
    assert tensorrt(replace(JETSON, tensorrt="8.5.2.2"), version("8.5.2.2")).fix == "pip uninstall -y tensorrt"


@pytest.mark.parametrize(("runs", "kept"), [("13.0", 13), ("12.4", 12), ("", 12)])
def test_two_tensorrts_at_once(site: Path, runs: str, kept: int) -> None:
    """Packages for two CUDA versions share a folder: both are removed, and the one that the driver runs is installed."""
    for name in ("tensorrt-cu12", "tensorrt-cu12-libs", "tensorrt-cu13-bindings"):
        record(site, name, "10.14.1")
    driver = ProbeResult({"cuda": runs}, "")
    check = check_tensorrt(ProbedMachine(DESKTOP, NOWHERE, {"tensorrt": version("10.14.1"), "driver": driver}), "")
    assert (check.status, check.detail) == ("problem", "tensorrt-cu13 and tensorrt-cu12 overwrite each other")
    removed = "pip uninstall -y tensorrt-cu13-bindings tensorrt-cu12 tensorrt-cu12-libs"
    assert check.fix == f"{removed} && pip install 'tensorrt-cu{kept}>=8.6'"
    assert tensorrt(JETSON, version("10.14.1")).fix == removed


@pytest.mark.parametrize(
    ("info", "message", "fix"),
    [
        (JETSON, f"libnvinfer.so.10: {LOST}", f"{AGAIN} libnvinfer10 libnvinfer-plugin10 libnvonnxparsers10"),
        (JETSON, f"libnvinfer_plugin.so.8: {LOST}", f"{AGAIN} libnvinfer8 libnvinfer-plugin8 libnvonnxparsers8"),
        (JETSON, "cannot import name 'tensorrt'", f"{AGAIN} python3-libnvinfer"),
        (DESKTOP, f"libnvinfer.so.10: {LOST}", "pip install 'edge-resnet[tensorrt]'"),
        (JETSON, f"libnvdla_compiler.so: {LOST}", "sudo apt-get install -y nvidia-l4t-dla-compiler"),
        (THOR, f"libnvdla_compiler.so: {LOST}", "pip install --upgrade 'tensorrt>=10.16,<11'"),
        (JETSON, f"libcudnn.so.8: {LOST}", "sudo apt-get install -y libcudnn8"),
        (DESKTOP, f"libcudnn.so.8: {LOST}", "pip install 'nvidia-cudnn-cu12<9'"),
        (DESKTOP, "numpy.core.multiarray failed to import", "pip install 'numpy<2'"),
        (
            JETSON,
            "Python version mismatch: module was compiled for Python 3.10, but the interpreter version is incompatible: 3.12.3",
            "/usr/bin/python3.10 -m venv --system-site-packages .venv",
        ),
        (DESKTOP, "", "pip install 'edge-resnet[tensorrt]'"),
    ],
)  # fmt: skip
def test_tensorrt_that_does_not_load(site: Path, info: DeviceInfo, message: str, fix: str) -> None:
    """Each known error message has its fix, and is shown."""
    package(site, "tensorrt", f"raise ImportError({message!r})")
    # How a child process reports them is test_probe.py's; the others here are real children.
    check = tensorrt(info, ProbeResult({}, message or "ImportError"))
    assert (check.status, check.detail) == ("problem", f"cannot be imported: {message or 'ImportError'}")
    assert check.fix == fix


def test_dla_in_a_container(site: Path, tmp_path: Path) -> None:
    """The DLA compiler is on the host, and the NVIDIA runtime mounts it."""
    (tmp_path / ".dockerenv").touch()
    package(site, "tensorrt", f"raise ImportError('libnvdla_compiler.so: {LOST}')")
    assert tensorrt(JETSON, root=tmp_path).fix == "on the host: docker run --runtime nvidia IMAGE"


def test_pips_tensorrt_that_does_not_load(site: Path) -> None:
    """pip's TensorRT is reinstalled at its version; on a Jetson it is removed."""
    record(site, "tensorrt-cu12", "10.14.1")
    package(site, "tensorrt", f"raise ImportError('libnvinfer.so.10: {LOST}')")
    assert tensorrt(DESKTOP).fix == "pip install --force-reinstall tensorrt-cu12==10.14.1"
    assert tensorrt(JETSON).fix == "pip uninstall -y tensorrt-cu12"


def test_a_missing_driver_takes_the_blame(site: Path) -> None:
    """If the driver library is missing, the fix is that of the driver."""
    for name in ("tensorrt", "pycuda.driver"):
        package(site, name, f"raise ImportError('libcuda.so.1: {LOST}')")
    scene = probe_machine(DESKTOP, NOWHERE)
    assert check_tensorrt(scene, "sudo reboot").fix == "sudo reboot"
    assert check_pycuda(scene, "sudo reboot").fix == "sudo reboot"


@pytest.mark.parametrize(
    ("recorded", "module", "loaded", "detail"),
    [
        ("10.13.3.9", "10.13.3.9", "10.3.0", "the module is 10.13.3.9, libnvinfer 10.3.0"),
        ("10.13.3.9", "10.3.0", "10.3.0", "the module is 10.3.0, pip's record 10.13.3.9"),
        ("10.13.3.9", "10.13.3.9", "", ""),
        ("10.13.3.9", "10.13.3", "10.13.3", ""),
    ],
)
def test_versions_that_disagree(site: Path, recorded: str, module: str, loaded: str, detail: str) -> None:
    """Different versions of module, library and record mean two mixed installations; the fix makes them one."""
    record(site, "tensorrt", recorded)
    check = tensorrt(DESKTOP, version(module, loaded))
    assert (check.status, check.detail) == (("problem", detail) if detail else ("ok", module))
    assert check.fix == ("pip install --force-reinstall tensorrt==10.13.3.9" if detail else "")
    if detail:
        assert tensorrt(JETSON, version(module, loaded)).fix == "pip uninstall -y tensorrt"


ORIN_72, ORIN_722 = replace(JETSON, l4t="39.2.0", jetpack="7.2"), replace(JETSON, l4t="39.2.2", jetpack="7.2.2")
APT = "sudo apt-get install -y nvidia-jetpack"


@pytest.mark.parametrize(
    ("info", "found", "detail", "fix"),
    [
        (JETSON, "8.6.2", "", ""),
        (JETSON, "10.3.0", "", ""),
        (ORIN_72, "10.16.2.10", "", ""),
        (ORIN_72, "10.13.3.9", "10.13.3.9 has no kernels for Orin", APT),
        (THOR, "10.13.3.9", "", ""),
        (JETSON, "11.4.1", "11.4.1 does not support JetPack 6.2, 10.x does", APT),
        (ORIN_72, "11.4.1", "11.4.1 does not support JetPack 7.2, 10.x does", APT),
        (replace(ORIN_72, l4t="39.2.1", jetpack="7.2.1"), "11.4.1", "11.4.1 does not support JetPack 7.2.1, 10.x does", APT),
        (ORIN_722, "11.4.0.106", "11.4.0.106 does not support Jetson, 11.4.1 does", "pip install --upgrade 'tensorrt>=11.4.1'"),
        (ORIN_722, "11.4.1", "", ""),
        (THOR, "11.0.0", "11.0.0 does not support Jetson, 11.4.1 does", "pip install --upgrade 'tensorrt>=11.4.1'"),
        (DESKTOP, "11.0.0", "", ""),
    ],
)
def test_tensorrt_on_jetsons(site: Path, info: DeviceInfo, found: str, detail: str, fix: str) -> None:
    """Which TensorRT runs on which JetPack; if pip's is in the way, it is removed and JetPack's kept."""
    check = tensorrt(info, version(found))
    assert (check.status, check.detail, check.fix) == (("problem", detail, fix) if detail else ("ok", found, ""))
    if fix == APT:
        record(site, "tensorrt-cu13", found)
        assert tensorrt(info, version(found)).fix == "pip uninstall -y tensorrt-cu13"


@pytest.mark.parametrize(
    ("capability", "found", "detail", "fix"),
    [
        ("5.2", "8.6.1", "8.6.1 does not support compute capability 5.2", ""),
        ("6.1", "8.6.1", "", ""),
        ("6.1", "10.0.1", "10.0.1 does not support compute capability 6.1", "pip install 'tensorrt>=8.6,<10.0'"),
        ("7.0", "10.4.0", "", ""),
        ("7.0", "10.5.0", "10.5.0 does not support compute capability 7.0", "pip install 'tensorrt>=8.6,<10.5'"),
        ("6.1", "11.4.0", "11.4.0 does not support compute capability 6.1", "pip install 'tensorrt>=8.6,<10.0'"),
        ("7.5", "11.4.0", "", ""),
        ("9.0", "8.6.1", "", ""),
        ("12.0", "10.7.0", "10.7.0 does not know compute capability 12.0, 10.8 does", "pip install --upgrade 'tensorrt>=10.8'"),
        ("12.0", "10.8.0", "", ""),
        (
            "11.0",
            "10.12.0",
            "10.12.0 does not know compute capability 11.0, 10.13 does",
            "pip install --upgrade 'tensorrt>=10.13'",
        ),
        ("10.0", "10.7.0", "10.7.0 does not know compute capability 10.0, 10.8 does", "pip install --upgrade 'tensorrt>=10.8'"),
        ("10.0", "10.8.0", "", ""),
        ("11.0", "10.13.2", "", ""),
    ],
)
def test_tensorrt_on_gpus(capability: str, found: str, detail: str, fix: str) -> None:
    """A GPU too old or too new for this TensorRT is reported with the release that fits it."""
    check = tensorrt(replace(DESKTOP, compute_capability=capability), version(found))
    assert (check.status, check.detail, check.fix) == (("problem", detail, fix) if detail else ("ok", found, ""))


def test_a_gpu_that_nobody_knows_is_not_judged() -> None:
    """Without a compute capability any TensorRT may fit."""
    assert tensorrt(replace(DESKTOP, compute_capability=None), version("11.4.0")).status == "ok"


def cudnn(info: DeviceInfo, root: Path, found: str = "8.6.1") -> list[Check]:
    return check_cudnn(ProbedMachine(info, root, {"tensorrt": version(found)}))


def test_cudnn_is_for_tensorrt_8_alone(tmp_path: Path, site: Path) -> None:
    """cuDNN 8 may come from apt, CUDA's folder or pip; a newer TensorRT, and a machine without a GPU, need none."""
    assert cudnn(DESKTOP, tmp_path, "10.3.0") == cudnn(CPU, tmp_path) == check_cudnn(ProbedMachine(DESKTOP, tmp_path, {})) == []
    assert [(check.status, check.fix) for check in cudnn(DESKTOP, tmp_path)] == [("problem", "pip install 'nvidia-cudnn-cu12<9'")]
    assert cudnn(JETSON, tmp_path)[0].fix == "sudo apt-get install -y libcudnn8"
    record(site, "nvidia-cudnn-cu12", "9.1.0")
    assert cudnn(DESKTOP, tmp_path)[0].status == "problem"
    (tmp_path / "usr/lib/aarch64-linux-gnu").mkdir(parents=True)
    (tmp_path / "usr/lib/aarch64-linux-gnu/libcudnn.so.8.9.4").touch()
    assert cudnn(JETSON, tmp_path) == [Check("cudnn", "ok", "8", "", "tensorrt")]


def test_cudnn_of_pip(site: Path) -> None:
    """pip's cuDNN 8 counts."""
    record(site, "nvidia-cudnn-cu12", "8.9.7.29")
    assert cudnn(DESKTOP, NOWHERE) == [Check("cudnn", "ok", "8.9.7.29", "", "tensorrt")]


def pycuda(info: DeviceInfo, root: Path = NOWHERE, results: Mapping[Topic, ProbeResult] | None = None) -> Check:
    return check_pycuda(probe_machine(info, root) if results is None else ProbedMachine(info, root, results), "")


def test_without_pycuda() -> None:
    """PyCUDA is compiled on the machine with CUDA on PATH; without a GPU it is not needed."""
    assert pycuda(CPU) == Check("pycuda", "missing", "not installed; needs an NVIDIA GPU", "", "tensorrt")
    assert pycuda(JETSON).fix == "PATH=/usr/local/cuda/bin:$PATH pip install 'pycuda>=2024.1'"


def test_a_whole_pycuda(site: Path) -> None:
    """PyCUDA that loads is shown with its version and CUDA version, if known."""
    package(site, "pycuda.driver")
    assert pycuda(DESKTOP).detail == "installed"
    record(site, "pycuda", "2026.1")
    package(site, "pycuda.driver", "def get_version(): return (12, 6, 0)")
    assert pycuda(DESKTOP) == Check("pycuda", "ok", "2026.1, compiled for CUDA 12.6", "", "tensorrt")


def test_pycuda_is_quiet_without_a_gpu(site: Path) -> None:
    """PyCUDA never loads without a driver, which is no problem without a GPU."""
    package(site, "pycuda.driver", f"raise ImportError('libcuda.so.1: {LOST}')")
    check = pycuda(CPU)
    assert (check.status, check.fix) == ("missing", "")
    package(site, "pycuda.driver")
    assert pycuda(CPU).status == "ok"


@pytest.mark.parametrize(
    ("info", "files", "message", "fix"),
    [
        (DESKTOP, [], f"libcurand.so.10: {LOST}", "sudo apt-get install -y libcurand10"),
        (JETSON, [], f"libcurand.so.10: {LOST}", "sudo apt-get install -y nvidia-jetpack"),
        (
            JETSON, ["usr/local/cuda/lib64/libcurand.so.10.3.7"], f"libcurand.so.10: {LOST}",
            "echo /usr/local/cuda/lib64 | sudo tee /etc/ld.so.conf.d/cuda.conf && sudo ldconfig",
        ),
        (DESKTOP, [], f"libcurand.so.9.0: {LOST}", REBUILD),
        (DESKTOP, [], "/x/pycuda/_driver.cpython-310.so: undefined symbol: cuDevicePrimaryCtxRelease_v2", REBUILD),
        (DESKTOP, [], "numpy.core.multiarray failed to import", REBUILD),
    ],
)  # fmt: skip
def test_pycuda_that_does_not_load(
    site: Path, tmp_path: Path, info: DeviceInfo, files: list[str], message: str, fix: str
) -> None:
    """A missing library is found or installed; PyCUDA for another CUDA or numpy is compiled again."""
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    package(site, "pycuda.driver", f"raise ImportError({message!r})")
    check = pycuda(info, tmp_path, {"pycuda": ProbeResult({}, message)})
    assert (check.status, check.detail, check.fix) == ("problem", f"cannot be imported: {message}", fix)


def test_what_apt_installed_is_not_pips(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip is never used to remove or reinstall what apt installed into the system's Python."""
    record(site, "tensorrt", "10.3.0")
    assert tensorrt(JETSON, version("10.3.0", "10.16.2")).fix == "pip uninstall -y tensorrt"
    monkeypatch.setattr(trtchecks, "_SYSTEM_PACKAGES", str(site))
    assert tensorrt(JETSON, version("10.3.0", "10.16.2")).fix == f"{AGAIN} python3-libnvinfer"
    assert tensorrt(DESKTOP, version("10.3.0", "10.16.2")).fix == "pip install 'edge-resnet[tensorrt]'"


def test_pycuda_for_a_newer_cuda(site: Path) -> None:
    """PyCUDA for a CUDA that the driver does not run is compiled again with one that it does."""
    record(site, "pycuda", "2026.1")
    driver = ProbeResult({"cuda": "12.4"}, "")
    check = pycuda(DESKTOP, results={"driver": driver, "pycuda": ProbeResult({"cuda": "13.2"}, "")})
    assert (check.status, check.detail) == ("problem", "2026.1 was compiled for CUDA 13.2, the driver runs 12.4")
    assert check.fix == REBUILD.replace("/cuda/", "/cuda-12/")
    assert pycuda(DESKTOP, results={"driver": driver, "pycuda": ProbeResult({"cuda": "11.8"}, "")}).status == "ok"
