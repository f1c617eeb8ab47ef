"""probe.py with real child processes: packages that load, fail, hang and crash, and a C stand-in for the driver."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
from gpumachine import CPU, DESKTOP, JETSON, library, no_driver, package

from edge_resnet.deployment.doctor import probe
from edge_resnet.deployment.doctor.probe import ProbedMachine, ProbeResult, Topic, probe_machine
from edge_resnet.device.machine import DeviceInfo

#: As the module has them.
MODULES = probe._MODULES
NVINFER = '#include <stdlib.h>\nint getInferLibVersion(void) { return atoi(getenv("STUB_NVINFER")); }\n'


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder before all others on this Python's path."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture(autouse=True)
def _not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT for RTX and cuda.core, which this Python has, are asked in one test, not beside the topic of each."""
    monkeypatch.setattr(probe, "_MODULES", ("tensorrt", "pycuda"))


def answer(topic: Topic, info: DeviceInfo = CPU) -> ProbeResult:
    return probe_machine(info, Path("/nowhere")).results[topic]


def test_nothing_there_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a sign of a GPU, TensorRT, PyCUDA or cuda.core no child process is started."""
    monkeypatch.setattr(probe, "_MODULES", MODULES)
    for name in ("tensorrt", "tensorrt_rtx", "pycuda", "cuda.core"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(probe, "run_within", lambda *_: pytest.fail("a child was started"))
    assert probe_machine(CPU, Path("/nowhere")).results == {}


@pytest.mark.parametrize(
    "sign",
    ["dev/nvidiactl", "dev/nvmap", "usr/lib/x86_64-linux-gnu/libcuda.so.1", "usr/lib/aarch64-linux-gnu/nvidia/libcuda.so.1"],
)
def test_a_sign_of_a_driver_is_enough_to_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sign: str) -> None:
    """A device file or a library is enough to probe the driver, whatever nvidia-smi reports."""
    monkeypatch.setattr(probe, "_probe", lambda _: ProbeResult({}, "asked"))
    (tmp_path / sign).parent.mkdir(parents=True)
    (tmp_path / sign).touch()
    assert probe_machine(CPU, tmp_path).results == {"driver": ProbeResult({}, "asked")}


def test_the_driver_says_what_it_is(libcuda: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name, compute capability, kind of memory and the newest CUDA come from the driver itself."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(libcuda.parent))
    monkeypatch.setenv("STUB_CUDA", "13020")
    facts = {"name": "NVIDIA Stand-in", "compute_capability": "8.7", "memory": "shared", "cuda": "13.2"}
    assert answer("driver") == ProbeResult(facts, "")


def test_memory_that_is_mapped_and_a_driver_without_a_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that maps memory is recognised, and one that lacks a function is queried for the rest."""
    code = (
        "#define cuDriverGetVersion another\n#define cuDeviceGetAttribute stand_in\n#include <libcuda.c>\n"
        "#undef cuDeviceGetAttribute\n"
        "int cuDeviceGetAttribute(int *v, int a, int d) { return a == 19 ? (*v = 1, 0) : stand_in(v, a, d); }\n"
    )
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library(tmp_path / "libcuda.so.1", code).parent))
    assert answer("driver").facts.items() >= {"memory": "mapped", "cuda": ""}.items()


def test_a_driver_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU without its library is a failure in one line."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(no_driver(tmp_path)))
    assert answer("driver", DESKTOP) == ProbeResult({}, "this machine has no CUDA driver (libcuda.so.1 cannot be loaded)")


def test_a_driver_that_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that crashes ends only the child process, and the signal is named."""
    path = library(tmp_path / "libcuda.so.1", "#include <stdlib.h>\nint cuInit(unsigned flags) { abort(); }\n")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(path.parent))
    assert answer("driver") == ProbeResult({}, "crashed (SIGABRT)", died=True)


def test_a_driver_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that never answers costs the time limit and no more."""
    path = library(tmp_path / "libcuda.so.1", "#include <unistd.h>\nint cuInit(unsigned flags) { for (;;) pause(); }\n")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(path.parent))
    monkeypatch.setattr(probe, "_TIMEOUT_S", 1.0)
    start = time.monotonic()
    assert answer("driver") == ProbeResult({}, "no answer in 1 s", died=True)
    assert time.monotonic() - start < 60


@pytest.mark.alone
def test_all_are_asked_at_once(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that hang cost one time limit."""
    monkeypatch.setattr(probe, "_MODULES", MODULES)
    for name in ("tensorrt", "tensorrt_rtx", "pycuda"):
        package(site, name, "import time; time.sleep(60)")
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    monkeypatch.setattr(probe, "_TIMEOUT_S", 1.5)
    start = time.monotonic()
    results = probe_machine(CPU, Path("/nowhere")).results
    assert time.monotonic() - start < 2.8
    assert {said.failure for said in results.values()} == {"no answer in 1.5 s"}


@pytest.mark.parametrize(
    ("number", "version"), [("8602", "8.6.2"), ("9300", "9.3.0"), ("101303", "10.13.3"), ("110400", "11.4.0")]
)
def test_tensorrt_and_the_library_that_it_loaded(
    site: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: str, version: str
) -> None:
    """The module reports its version, and the library that it loaded is queried for its own."""
    path = library(tmp_path / "lib/libnvinfer.so.10", NVINFER)
    package(site, "tensorrt", f"import ctypes\nctypes.CDLL({str(path)!r})\n__version__ = '10.3.0'\nprint('noise')\n")
    monkeypatch.setenv("STUB_NVINFER", number)
    assert answer("tensorrt") == ProbeResult({"version": "10.3.0", "library": version}, "")


def test_tensorrt_without_a_library_to_ask(site: Path, tmp_path: Path) -> None:
    """A module that loads no libnvinfer, or one without a version, leaves the library unknown."""
    package(site, "tensorrt", "__version__ = '10.3.0'")
    assert answer("tensorrt").facts["library"] == ""
    path = library(tmp_path / "lib/libnvinfer.so.10", "int nothing;\n")
    package(site, "tensorrt", f"import ctypes\nctypes.CDLL({str(path)!r})\n__version__ = '10.3.0'\n")
    assert answer("tensorrt").facts["library"] == ""


def test_cuda_core_says_its_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real package, which loads without a driver."""
    monkeypatch.setattr(probe, "_MODULES", MODULES)
    versions = {"version": metadata.version("cuda-core"), "bindings": metadata.version("cuda-bindings")}
    assert answer("cuda.core") == ProbeResult(versions, "")


def test_pycuda_says_what_it_was_compiled_for(site: Path) -> None:
    """The CUDA version that PyCUDA was compiled for, or empty if it does not report one."""
    package(site, "pycuda.driver", "def get_version(): return (12, 6, 0)")
    assert answer("pycuda") == ProbeResult({"cuda": "12.6"}, "")
    package(site, "pycuda.driver")
    assert answer("pycuda") == ProbeResult({"cuda": ""}, "")


@pytest.mark.parametrize(
    ("body", "failure"),
    [
        ("raise ImportError('libfoo.so.1: cannot open\\nsecond line')", "libfoo.so.1: cannot open"),
        ("raise ImportError", "ImportError"),
        ("raise SystemExit('not here')", "not here"),
        ("import os; os._exit(3)", "ended with exit code 3 and no message"),
        ("import os; os.abort()", "crashed (SIGABRT)"),
        ("import sys, os; print('bad kernel', file=sys.stderr, flush=True); os.abort()", "crashed (SIGABRT): bad kernel"),
        ("import ctypes; ctypes.string_at(0)", "crashed (SIGSEGV)"),
        ("print('{\"a\": 1}', flush=True); import os; os._exit(0)", "ended with exit code 0 and no message"),
    ],
)
def test_a_module_that_does_not_load(site: Path, body: str, failure: str) -> None:
    """Whatever the import does to the child process, the parent gets the reason in one line."""
    package(site, "tensorrt", body)
    assert answer("tensorrt") == ProbeResult({}, failure, died=failure.startswith("crashed"))


@pytest.mark.parametrize("at_exit", ["os.abort", "time.sleep, 60"])
def test_a_module_that_fails_at_exit_works(site: Path, monkeypatch: pytest.MonkeyPatch, at_exit: str) -> None:
    """The child ends before the clean-up that lean TensorRT is known to crash in."""
    package(site, "tensorrt", f"import atexit, os, time\natexit.register({at_exit})\n__version__ = '10.3.0'\n")
    monkeypatch.setattr(probe, "_TIMEOUT_S", 5.0)
    assert answer("tensorrt") == ProbeResult({"version": "10.3.0", "library": ""}, "")


def test_a_child_that_cannot_be_started(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child process that cannot be started is a failure with its reason."""
    package(site, "tensorrt")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert answer("tensorrt") == ProbeResult({}, "cannot be probed: No such file or directory")


def test_a_child_sees_what_its_parent_sees(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that the parent removed from its path is not on the child's either."""
    package(site, "tensorrt", "import hidden\n__version__ = '1'")
    (site.parent / "elsewhere").mkdir()
    package(site.parent / "elsewhere", "hidden")
    monkeypatch.setenv("PYTHONPATH", str(site.parent / "elsewhere"))
    assert answer("tensorrt").failure == "No module named 'hidden'"


@pytest.mark.parametrize(
    ("files", "inside"),
    [
        ({}, False),
        ({".dockerenv": ""}, True),
        ({"run/.containerenv": ""}, True),
        ({"proc/1/cgroup": "0::/system.slice/docker-0123.scope\n"}, True),
        ({"proc/1/cgroup": "5:devices:/kubepods/besteffort\n"}, True),
        ({"proc/1/cgroup": "0::/init.scope\n"}, False),
    ],
)
def test_containers_are_known(tmp_path: Path, files: dict[str, str], inside: bool) -> None:
    """Docker, Podman and Kubernetes containers are recognised."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert ProbedMachine(CPU, tmp_path, {}).in_container is inside


def test_a_scene_puts_both_sources_together() -> None:
    """The driver's facts fill in what the files lack; a Jetson is recognised with and without its release file."""
    driver = ProbeResult({"name": "Orin", "compute_capability": "8.7", "memory": "mapped", "cuda": "12.6"}, "")
    assert ProbedMachine(CPU, Path("/"), {"driver": driver}).capability == "8.7"
    assert ProbedMachine(CPU, Path("/"), {"driver": driver}).has_gpu
    assert not ProbedMachine(CPU, Path("/"), {"driver": ProbeResult({}, "no")}).has_gpu
    assert ProbedMachine(replace(CPU, gpu_failure="dead"), Path("/"), {}).has_gpu
    assert ProbedMachine(JETSON, Path("/"), {}).is_jetson
    assert ProbedMachine(replace(CPU, board="NVIDIA Jetson Orin Nano"), Path("/"), {}).is_jetson
    assert not ProbedMachine(DESKTOP, Path("/"), {}).is_jetson
