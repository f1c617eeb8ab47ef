"""cuda.py and its two owners: the same holds through PyCUDA's stand-in, and through the real cuda.core, whose classes and
signatures are NVIDIA's, on a driver that stands in."""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import inspect
import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from standins import cuda_driver, pycuda_driver

from edge_resnet.core.errors import BackendError, MissingDependencyError
from edge_resnet.device.gpu import driver_cuda
from edge_resnet.runtime.backend import Requirement
from edge_resnet.runtime.tensorrt import cuda as interface
from edge_resnet.runtime.tensorrt.cuda import CUDA, OWNERS, Cuda, open_cuda, require_cuda
from edge_resnet.runtime.tensorrt.cudagraph import Recorder

CLASSES = ("Cuda", "PinnedBuffer", "DeviceBuffer", "Kernel", "StreamTimer")


@pytest.fixture
def opened(gpu: Callable[[bool], None]) -> Iterator[Callable[..., Cuda]]:
    """Opens a GPU through each owner in turn; afterwards, no memory may be left on it."""
    made: list[Cuda] = []

    def one(*, integrated: bool = False) -> Cuda:
        gpu(integrated)
        made.append(open_cuda())
        return made[-1]

    yield one
    for cuda in made:
        cuda.close()
    if not any(cuda.mapped for cuda in made):
        assert not pycuda_driver.MEMORY


@pytest.fixture
def core(libcuda: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process uses the real cuda.core on the driver that stands in, and has no PyCUDA."""
    cuda_driver.load(libcuda)
    cuda_driver.become(integrated=False)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.delitem(sys.modules, OWNERS["pycuda"], raising=False)
    yield
    cuda_driver.become(integrated=False)


@pytest.mark.parametrize("name", CLASSES)
def test_both_owners_have_the_interface(gpu: Callable[[bool], None], opened: Callable[..., Cuda], name: str) -> None:
    """Each public method of the interface, with the same parameters of the same kinds, and no other public method."""
    owner = importlib.import_module(type(opened()).__module__)
    stated, real = (
        {key: value for key, value in vars(getattr(module, name)).items() if inspect.isfunction(value) and key[0] != "_"}
        for module in (interface, owner)
    )
    assert stated.keys() == real.keys()
    for key, method in stated.items():
        wanted, found = (
            [(parameter.name, parameter.kind) for parameter in inspect.signature(inspect.unwrap(which)).parameters.values()]
            for which in (method, real[key])
        )
        assert wanted == found, key


def test_work_is_done_in_order_and_not_before(opened: Callable[..., Cuda]) -> None:
    """Copies to the GPU and back return what was in memory when the stream came to them; nothing happens before that."""
    cuda = opened()
    with cuda.current("the test"):
        stream, sent, back = cuda.stream(), cuda.buffer((4, 3), np.uint8), cuda.buffer((4, 3), np.uint8)
        sent.host[:] = 7
        back.host[:] = 0
        sent.to_device(stream, 4)
        assert (pycuda_driver.MEMORY[sent.address] == 171).all()
        stream.synchronize()
        assert (pycuda_driver.MEMORY[sent.address] == 7).all()
        pycuda_driver.MEMORY[back.address][:] = np.arange(12)
        back.to_host(stream, 2)
        stream.synchronize()
        np.testing.assert_array_equal(back.host, [[0, 1, 2], [3, 4, 5], [0, 0, 0], [0, 0, 0]])
        for buffer in (sent, back, sent):
            buffer.free()


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
def test_pinned_memory_is_an_array_of_its_shape(opened: Callable[..., Cuda], dtype: Any) -> None:
    """Contiguous, writeable, and as many bytes on the GPU as in it."""
    cuda = opened()
    with cuda.current("the test"):
        buffer = cuda.buffer((3, 5, 2), dtype)
        assert (buffer.host.shape, buffer.host.dtype) == ((3, 5, 2), np.dtype(dtype))
        assert buffer.host.flags.c_contiguous
        assert buffer.host.flags.writeable
        assert pycuda_driver.MEMORY[buffer.address].size == buffer.host.nbytes
        buffer.free()


def test_an_integrated_gpu_maps_memory(opened: Callable[..., Cuda]) -> None:
    """What is written into the array is at the device address at once, and nothing is copied."""
    cuda = opened(integrated=True)
    assert cuda.mapped
    with cuda.current("the test"):
        stream, buffer = cuda.stream(), cuda.buffer((6,), np.uint8)
        buffer.host[:] = 5
        assert (pycuda_driver.MEMORY[buffer.address] == 5).all()
        buffer.to_device(stream, 6)
        buffer.to_host(stream, 6)
        assert not pycuda_driver.STREAMS[stream.handle].work
        buffer.free()


def test_device_memory_is_filled_and_freed_once(opened: Callable[..., Cuda]) -> None:
    """An array is copied to its start, and the second ``free`` does nothing."""
    cuda = opened()
    with cuda.current("the test"):
        stream, memory = cuda.stream(), cuda.memory(16)
        memory.fill(np.arange(10, dtype=np.uint8), stream)
        stream.synchronize()
        assert (memory.size, list(pycuda_driver.MEMORY[memory.address][8:12])) == (16, [8, 9, 171, 171])
        memory.free()
        memory.free()


def test_the_timer_gives_the_times_between_events(opened: Callable[..., Cuda]) -> None:
    """On the GPU's clock, again after ``begin``, with no more events than before."""
    cuda = opened()
    with cuda.current("the test"):
        stream, timer = cuda.stream(), cuda.timer()
        for _ in range(2):
            timer.begin(stream)
            for milliseconds in (1.5, 0.25):
                pycuda_driver.STREAMS[stream.handle].work.append(lambda spent=milliseconds: pycuda_driver.spend(spent))
                timer.mark(stream)
            stream.synchronize()
            assert timer.milliseconds() == [pytest.approx(1.5, abs=1e-4), pytest.approx(0.25, abs=1e-4)]


def test_a_graph_is_captured_on_the_stream_of_either(opened: Callable[..., Cuda], libcuda: Path) -> None:
    """The handle is an int that the driver's calls for graphs take; a launch repeats the captured copy."""
    cuda = opened()
    stub = ctypes.CDLL(str(libcuda))
    pycuda_driver.record_through(stub)
    with cuda.current("the test"):
        stream, buffer = cuda.stream(), cuda.buffer((4,), np.uint8)
        assert type(stream.handle) is int
        graph = Recorder(str(libcuda)).record(stream.handle, lambda: buffer.to_device(stream, 4))
        assert graph is not None
        for value in (3, 9):
            buffer.host[:] = value
            graph.launch(stream.handle)
            stream.synchronize()
            assert (pycuda_driver.MEMORY[buffer.address] == value).all()
        graph.free()
        buffer.free()
    assert stub.stub_executables() == 0


def test_the_context_is_current_during_the_block_alone(opened: Callable[..., Cuda]) -> None:
    """In each thread by itself, nested too, and after an error; a stream of one thread serves another."""
    cuda, depths = opened(), []
    with cuda.current("the test"):
        stream = cuda.stream()

        def other() -> None:
            depths.append(pycuda_driver.depth())
            with cuda.current("the test"):
                buffer = cuda.buffer((2,), np.uint8)
                buffer.to_device(stream, 2)
                stream.synchronize()
                buffer.free()
                cuda.stream().synchronize()
                depths.append(pycuda_driver.depth())
            depths.append(pycuda_driver.depth())

        thread = threading.Thread(target=other)
        thread.start()
        thread.join(30)
        with pytest.raises(KeyError), cuda.current("the test"):
            raise KeyError
        assert pycuda_driver.depth() == 1
    assert (depths, pycuda_driver.depth()) == ([0, 1, 0], 0)


@pytest.mark.parametrize("error", [RuntimeError("of the caller"), ValueError("of the caller"), BackendError("of the caller")])
def test_other_errors_pass(opened: Callable[..., Cuda], error: Exception) -> None:
    """Only what CUDA's library raised becomes an error about the GPU."""
    cuda = opened()
    with pytest.raises(type(error), match=r"^of the caller") as caught, cuda.current("the test"):
        raise error
    assert caught.value is error


def test_memory_that_runs_out_is_said(opened: Callable[..., Cuda]) -> None:
    """Half a pinned buffer is freed at once, and the next one is whole."""
    cuda = opened()
    pycuda_driver.FAULTS["mem_alloc"] = 2
    for make in (lambda: cuda.memory(8), lambda: cuda.buffer((8,), np.uint8)):
        with pytest.raises(BackendError, match=r"^the test: GPU memory ran out$") as caught, cuda.current("the test"):
            make()
        assert "smaller batch" in caught.value.hint
    assert not pycuda_driver.MEMORY
    with cuda.current("the test"):
        cuda.buffer((8,), np.uint8).free()


def test_a_closed_context_is_refused(opened: Callable[..., Cuda]) -> None:
    """``close`` may be repeated; afterwards nothing becomes current."""
    cuda = opened()
    cuda.close()
    cuda.close()
    with pytest.raises(BackendError, match="context is closed"), cuda.current("the test"):
        pass


def test_cuda_core_needs_no_call_that_the_oldest_driver_lacks(core: None) -> None:
    """Every call came with the first CUDA of the bindings' major version at the latest: that is the version that is checked."""
    cuda_driver.SEEN.clear()
    oldest = 1000 * int(importlib.metadata.version("cuda-bindings").partition(".")[0])
    cuda = open_cuda()
    with cuda.current("the test"):
        stream, timer, buffer = cuda.stream(), cuda.timer(), cuda.buffer((4,), np.uint8)
        timer.begin(stream)
        buffer.to_device(stream, 4)
        timer.mark(stream)
        buffer.to_host(stream, 4)
        stream.synchronize()
        timer.milliseconds()
        buffer.free()
    with pytest.raises(BackendError, match="CUDA_ERROR_INVALID_IMAGE"), cuda.current("the test"):
        cuda.kernels(b"no PTX", {"resize_rows": "P"})
    del stream, timer
    cuda.close()
    assert {"cuMemcpyHtoDAsync", "cuMemAllocHost", "cuEventElapsedTime", "cuLibraryLoadData"} <= cuda_driver.SEEN.keys()
    assert {name for name, version in cuda_driver.SEEN.items() if version > oldest} == set()
    assert cuda_driver.BROKEN == []


@pytest.mark.parametrize("runs", [11_080, 12_060])
def test_an_old_driver_is_refused_before_any_work(core: None, libcuda: Path, monkeypatch: pytest.MonkeyPatch, runs: int) -> None:
    """The error names both versions and the oldest driver, and CUDA 12's bindings where those would do; cuInit is not called."""
    monkeypatch.setattr(interface, "installed_version", {"cuda-bindings": "13.5.0"}.get)
    monkeypatch.setattr(driver_cuda, "__defaults__", (str(libcuda),))
    monkeypatch.setenv("STUB_CUDA", str(runs))
    cuda_driver.SEEN.clear()
    with pytest.raises(
        BackendError, match=rf"runs CUDA up to {runs // 1000}\.\d, and cuda-bindings 13.5.0 needs CUDA 13$"
    ) as caught:
        open_cuda()
    assert caught.value.hint.startswith("install the driver 580 or newer")
    assert ("edge-resnet[rtx]" in caught.value.hint) == (runs >= 12_000)
    assert cuda_driver.SEEN == {}


def test_the_bindings_of_cuda_12_take_a_driver_of_cuda_12(core: None, libcuda: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA 12.0 is new enough for any 12.x, and 11.8 is told to install 525.60.13."""
    monkeypatch.setattr(interface, "installed_version", {"cuda-bindings": "12.9.4"}.get)
    monkeypatch.setattr(driver_cuda, "__defaults__", (str(libcuda),))
    monkeypatch.setenv("STUB_CUDA", "12000")
    open_cuda().close()
    monkeypatch.setenv("STUB_CUDA", "11080")
    with pytest.raises(BackendError, match=r"needs CUDA 12$") as caught:
        open_cuda()
    assert caught.value.hint.startswith("install the driver 525.60.13 or newer; ")


def test_a_call_that_the_driver_lacks_is_a_backend_error(core: None) -> None:
    """The bindings raise a plain RuntimeError for it."""
    cuda = open_cuda()
    bindings = importlib.import_module("cuda.bindings.driver")
    with pytest.raises(BackendError, match="cuMemAllocPitch"), cuda.current("the test"):
        bindings.cuMemAllocPitch(1, 1, 4)
    cuda.close()


def test_pycuda_is_first(gpu: Callable[[bool], None], caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest) -> None:
    """Where it can be imported it is used, else cuda.core, and the log says which."""
    gpu(False)
    with caplog.at_level(logging.INFO, logger="edge_resnet"):
        cuda = open_cuda()
    cuda.close()
    name = request.node.callspec.params["gpu"]
    assert type(cuda).__module__ == OWNERS[name]
    assert [record.getMessage() for record in caplog.records] == [f"CUDA is used through {name}"]


def test_a_pycuda_that_does_not_load_is_passed_over_aloud(
    core: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A library that PyCUDA lacks is no reason to stop, and is said in one line."""
    (tmp_path / "pycuda").mkdir()
    (tmp_path / "pycuda" / "__init__.py").touch()
    (tmp_path / "pycuda" / "driver.py").write_text("raise ImportError('libcurand.so.10: cannot open')", encoding="utf-8")
    monkeypatch.delitem(sys.modules, "pycuda")
    monkeypatch.syspath_prepend(str(tmp_path))
    with caplog.at_level(logging.WARNING, logger="edge_resnet"):
        open_cuda().close()
    sys.modules.pop("pycuda", None)
    assert [record.getMessage() for record in caplog.records] == [
        "CUDA is used through cuda.core; pycuda: libcurand.so.10: cannot open"
    ]


def test_without_either_both_remedies_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a GPU is opened, and before, when only the packages are looked for."""
    for module in OWNERS.values():
        monkeypatch.delitem(sys.modules, module, raising=False)
    for name in ("pycuda", "cuda", "cuda.core", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(Requirement, "is_installed", lambda self: False)
    for ask in (open_cuda, require_cuda):
        with pytest.raises(MissingDependencyError, match=r"neither PyCUDA nor cuda\.core") as caught:
            ask()
        assert all(f"'edge-resnet[{extra}]'" in caught.value.hint for extra in ("rtx", "tensorrt"))


def test_either_library_is_enough() -> None:
    """The requirement is met by any of its packages, and a module in a package that is not there is none."""
    absent = Requirement("no_such_package.core", "no-such-package")
    assert not absent.is_installed()
    assert Requirement("no_such_package", "none", alternatives=(absent, Requirement("numpy", "numpy"))).is_installed()
    assert CUDA.packages == {"pycuda", "cuda-core"}


def test_without_a_driver_cuda_core_says_so_in_one_line() -> None:
    """The real package on a machine without a driver: a BackendError, no crash at the process's end."""
    pytest.importorskip("cuda.core", reason="cuda-core is not installed")
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a driver")
    code = (
        "from edge_resnet.core.errors import BackendError\nfrom edge_resnet.runtime.tensorrt.cudacore import Cuda\n"
        "try:\n    Cuda()\nexcept BackendError as error:\n    print(error.message)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("the CUDA driver does not start: ")
    assert "driver" in done.stdout.partition(": ")[2]


def test_pycuda_is_used_as_it_is() -> None:
    """Every name of pycuda.driver that its owner uses, and every parameter of the stand-in, is one of the real PyCUDA's, whose
    surface is kept from its source: it cannot be imported without a driver."""
    folder = Path(pycuda_driver.__file__).parent
    surface = json.loads((folder / "pycuda_surface.json").read_text(encoding="utf-8"))
    functions, classes = surface["functions"], surface["classes"]
    owner = Path(interface.__file__).with_name("cudapycuda.py").read_text(encoding="utf-8")
    used = set(re.findall(r"\bdriver\.(\w+)", owner.partition("import pycuda.driver as driver")[2]))
    assert {"init", "Stream", "memcpy_htod_async"} <= used
    assert used <= functions.keys() | classes.keys()
    stand_in = vars(pycuda_driver.driver(integrated=False))
    assert used <= stand_in.keys()
    for name in functions.keys() - {"init", "mem_alloc"}:
        assert set(inspect.signature(stand_in[name]).parameters) <= set(functions[name]), name
    kinds = {"Context": "_Context", "DeviceAllocation": "_Allocation", "Function": "_Function", "Module": "_Module"}
    own = {"before", "library", "recorded_by", "references", "work"}  # the simulation's
    for name in classes.keys() - {"Device", "Error", "MemoryError", "PagelockedHostAllocation"}:
        found = stand_in.get(name) or getattr(pycuda_driver, kinds[name])
        for key, member in vars(found).items():
            if key[0] != "_" and key not in own:
                assert key in classes[name], f"{name}.{key}"
                if inspect.isfunction(member):
                    parameters = set(inspect.signature(member).parameters) - {"self"}
                    assert len(parameters) <= len(classes[name][key]), f"{name}.{key}"
