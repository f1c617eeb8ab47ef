"""gate.py: a driver that is too old is an error in words, before an object is constructed that would end the interpreter."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from edge_resnet.core.errors import BackendError
from edge_resnet.device.gpu import driver_cuda, first_gpu
from edge_resnet.runtime.tensorrt import gate
from edge_resnet.runtime.tensorrt.gate import make_builder, make_runtime, needed_cuda
from edge_resnet.runtime.tensorrt.log import log_to_python

DPKG = """Package: libnvinfer-lean10
Status: install ok installed
Version: 9.9.9.9-1+cuda11.4

Package: libnvinfer10
Status: install ok installed
Architecture: arm64
Version: 10.3.0.30-1+cuda12.5
Depends: libcudart
"""


@pytest.fixture
def trt(tensorrt_of: Callable[[str], ModuleType], libcuda: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """TensorRT 10.3, which JetPack's packages say is for CUDA 12, and a driver that finds a GPU."""
    monkeypatch.setattr(gate, "first_gpu", lambda: first_gpu(str(libcuda)))
    monkeypatch.setattr(driver_cuda, "__defaults__", (str(libcuda),))
    monkeypatch.setattr(gate, "needed_cuda", lambda name, version: 12)
    return tensorrt_of("10.3.0")


@pytest.mark.parametrize("make", [make_builder, make_runtime])
def test_an_old_driver_is_refused_before_anything_is_constructed(
    trt: ModuleType, monkeypatch: pytest.MonkeyPatch, make: Callable[..., object]
) -> None:
    """cuInit succeeds, and TensorRT's class would crash: the error names both versions of CUDA."""
    monkeypatch.setenv("STUB_CUDA", "11040")
    for name in ("Builder", "Runtime"):
        monkeypatch.setattr(getattr(trt, name), "__init__", lambda self, logger: pytest.fail("it was constructed"))
    with pytest.raises(BackendError, match=r"runs CUDA up to 11\.4, and TensorRT 10\.3\.0 needs CUDA 12") as caught:
        make(trt, log_to_python(trt))
    assert caught.value.hint.startswith("install the driver 525.60.13 or newer; ")


@pytest.mark.parametrize("cuda", ["12000", "12060", "13000"])
def test_a_driver_of_the_same_major_version_will_do(trt: ModuleType, monkeypatch: pytest.MonkeyPatch, cuda: str) -> None:
    """Within a major version, and above it, a driver runs any CUDA."""
    monkeypatch.setenv("STUB_CUDA", cuda)
    assert isinstance(make_builder(trt, log_to_python(trt)), trt.Builder)
    assert isinstance(make_runtime(trt, log_to_python(trt)), trt.Runtime)


@pytest.mark.parametrize("make", [make_builder, make_runtime])
@pytest.mark.parametrize("made", ["null", "none"])
def test_an_object_that_cannot_be_made_is_an_error_of_ours(
    trt: ModuleType, monkeypatch: pytest.MonkeyPatch, make: Callable[..., object], made: str
) -> None:
    """pybind11's TypeError for a null pointer, and None, with the reason that TensorRT logged as a warning."""
    log = log_to_python(trt)

    def construct(logger: object) -> None:
        log.logger.log(trt.ILogger.Severity.WARNING, "CUDA initialization failure with error: 35. Please check your installation")
        if made == "null":
            raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(trt, "Builder", construct)
    monkeypatch.setattr(trt, "Runtime", construct)
    with pytest.raises(BackendError, match="failure with error: 35") as caught:
        make(trt, log)
    assert "too old" in caught.value.hint


def test_pips_packages_say_which_cuda_is_needed() -> None:
    """The real package tensorrt-rtx-cu12 is for CUDA 12, as its name says; a package of another version says nothing."""
    rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed", exc_type=ImportError)
    assert needed_cuda("tensorrt_rtx", rtx.__version__) in (12, 13)
    assert needed_cuda("tensorrt_rtx") == needed_cuda("tensorrt_rtx", rtx.__version__)
    assert needed_cuda("tensorrt_rtx", "0.0.1") is None


@pytest.mark.parametrize(
    ("version", "requires", "cuda"),
    [
        ("8.6.1", ["nvidia-cuda-runtime-cu12", "nvidia-cudnn-cu12"], 12),
        ("10.3.0", ["tensorrt-cu11==10.3.0"], 11),
        ("8.6.1", [], None),
    ],
)
def test_requirements_say_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, requires: list[str], cuda: int | None
) -> None:
    """Packages of TensorRT without CUDA in their names require those of CUDA's runtime."""
    record = tmp_path / f"tensorrt-{version}.dist-info" / "METADATA"
    record.parent.mkdir()
    lines = ["Metadata-Version: 2.1", "Name: tensorrt", f"Version: {version}", *(f"Requires-Dist: {name}" for name in requires)]
    record.write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert needed_cuda("tensorrt", version, tmp_path / "none") == cuda


def test_jetpacks_packages_say_it(tmp_path: Path) -> None:
    """Debian's record of libnvinfer of the same release; another release, another package or no record says nothing."""
    record = tmp_path / "status"
    record.write_text(DPKG, encoding="utf-8")
    assert needed_cuda("tensorrt", "10.3.0", record) == needed_cuda("tensorrt", None, record) == 12
    assert needed_cuda("tensorrt", "8.6.1", record) is None
    assert needed_cuda("tensorrt_rtx", "10.3.0", record) is None
    assert needed_cuda("tensorrt", "10.3.0", tmp_path / "none") is None


def test_a_runtime_that_crashes_ends_a_child(trt: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody knows TensorRT's CUDA, a child constructs its Runtime first: a crash there is an error in words here."""
    name = "crashing_runtime"
    code = "import os\nclass Logger: pass\ndef Runtime(logger): os.kill(os.getpid(), 11)\n"
    (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(gate, "needed_cuda", lambda name, version: None)
    trt.__dict__.update(__file__=f"{name}.py", __name__=name)
    with pytest.raises(BackendError, match="SIGSEGV"):
        make_runtime(trt, log_to_python(trt))


def test_driver_cuda_is_what_the_driver_says(libcuda: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """12060 is 12.6; None for a call that fails and for a machine without a driver."""
    assert driver_cuda(str(libcuda)) == (12, 6)
    assert driver_cuda("libcuda-that-is-not-there.so.1") is None
    monkeypatch.setenv("STUB_FAILS", "cuDriverGetVersion=3")
    assert driver_cuda(str(libcuda)) is None
