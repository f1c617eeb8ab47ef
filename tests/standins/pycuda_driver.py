"""A stand-in of pycuda.driver with real memory, in which the work of a stream is run when the stream is synchronized.

It detects a copy that is read before it is synchronized, a freed address, and work without a current context.
A cubin is a shared library of the same functions for the CPU, which take the launch's grid and block last. PTX is translated to
one, if it is for an instruction set that the driver knows.
"""

from __future__ import annotations

import ctypes
import itertools
import tempfile
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from standins import ptx

__all__ = [
    "CLOCK", "FAULTS", "GRAPHS", "KIB_MS", "MEMORY", "NEWEST_ISA", "STREAMS",
    "driver", "read", "record_through", "spend", "write",
]  # fmt: skip

#: Call → how often it still fails; filled by tests.
FAULTS: dict[str, int] = {}
#: Device memory by address, and streams by handle.
MEMORY: dict[int, np.ndarray[Any, Any]] = {}
STREAMS: dict[int, Stream] = {}
#: Captured work by its number, and the calls that the driver's stand-in makes.
GRAPHS: dict[int, list[Callable[[], None]]] = {}
#: The GPU's clock in milliseconds, and the time to copy a KiB; the engine adds the time of the network.
CLOCK: dict[str, float] = {"ms": 0.0}
KIB_MS = 0.5
#: The newest PTX that the driver takes: that of CUDA 12.2, as on JetPack 6.0.
NEWEST_ISA = (8, 2)
_hooks: list[Any] = []
_numbers = itertools.count(1 << 20, 1 << 20)
#: Far enough apart that an address within an allocation identifies it.
_addresses = itertools.count(1 << 40, 1 << 36)
_stack = threading.local()


class Error(Exception):
    """CUDA's."""


class MemoryError(Error):  # noqa: A001 - PyCUDA's own name
    """CUDA's."""


def _call(name: str, *, current: bool = True) -> None:
    if FAULTS.get(name):
        FAULTS[name] -= 1
        raise (MemoryError if name == "mem_alloc" else Error)(f"{name} failed: stand-in\nand more")
    assert not current or getattr(_stack, "depth", 0) > 0, f"{name} without a current context"


def depth() -> int:
    """Number of contexts on this thread's stack."""
    return int(getattr(_stack, "depth", 0))


def read(address: int, count: int) -> np.ndarray[Any, Any]:
    """The first bytes at an allocated address."""
    return MEMORY[address][:count]


def write(address: int, content: np.ndarray[Any, Any]) -> None:
    """Write bytes at an allocated address."""
    MEMORY[address][: content.size] = content


class Stream:
    def __init__(self) -> None:
        _call("Stream")
        self.handle = next(_numbers)
        self.work: list[Callable[[], None]] = []
        #: While the stream is captured: the work that was queued before the capture.
        self.before: list[Callable[[], None]] | None = None
        self.recorded_by = 0
        STREAMS[self.handle] = self

    def synchronize(self) -> None:
        _call("synchronize")
        assert self.before is None, "a stream that is recorded cannot be waited for"
        work, self.work = self.work, []
        for step in work:
            step()


class Event:
    """An event on a stream, on a GPU clock that only work advances; its time is known once the stream has been synchronized."""

    def __init__(self) -> None:
        _call("Event")
        self._at: float | None = None

    def record(self, stream: Stream) -> None:
        _call("record")
        assert stream.before is None, "a moment that is recorded into a graph cannot be asked for"
        self._at = None
        stream.work.append(lambda: setattr(self, "_at", CLOCK["ms"]))

    def time_till(self, later: Event) -> float:
        _call("time_till")
        if self._at is None or later._at is None:
            raise Error("cuEventElapsedTime failed: device not ready")
        return later._at - self._at


def spend(milliseconds: float) -> None:
    """Advance the GPU's clock; work on a stream calls it."""
    CLOCK["ms"] += milliseconds


_HOOK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_long)


def record_through(library: ctypes.CDLL) -> None:
    """Let the stand-in of the driver (libcuda.c) capture and launch the work of these streams."""

    def begin(handle: int, number: int) -> None:
        stream = STREAMS[handle]
        stream.before, stream.work, stream.recorded_by = stream.work, [], threading.get_ident()

    def end(handle: int, number: int) -> None:
        stream = STREAMS[handle]
        GRAPHS[number], stream.work, stream.before, stream.recorded_by = stream.work, stream.before or [], None, 0

    def launch(handle: int, number: int) -> None:
        STREAMS[handle].work.extend(GRAPHS[number])

    _hooks[:] = [_HOOK(hook) for hook in (begin, end, launch)]  # they must live as long as the library uses them
    library.stub_hooks(*_hooks)


class _Allocation:
    def __init__(self, size: int) -> None:
        _call("mem_alloc")
        recorded_by = {stream.recorded_by for stream in STREAMS.values()}
        assert threading.get_ident() not in recorded_by, "nothing may be allocated while a stream is recorded"
        self._address = next(_addresses)
        MEMORY[self._address] = np.full(size, 171, np.uint8)

    def __int__(self) -> int:
        return self._address

    def free(self) -> None:
        _call("free")
        del MEMORY[self._address]


class _Host(bytearray):
    """The memory of a pinned array, and its base, as PyCUDA's allocation is."""

    def get_device_pointer(self) -> int:
        address = next(_addresses)
        MEMORY[address] = np.frombuffer(self, np.uint8)
        return address


def pagelocked_empty(shape: tuple[int, ...], dtype: Any, order: str = "C", mem_flags: int = 0) -> np.ndarray[Any, Any]:
    _call("pagelocked_empty")
    assert order == "C"
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.ndarray(shape, dtype, buffer=_Host(b"\xab" * size))


def memcpy_htod_async(dest: _Allocation, src: np.ndarray[Any, Any], stream: Stream) -> None:
    _call("memcpy_htod_async")
    assert src.flags.c_contiguous

    def copy() -> None:
        write(int(dest), src.view(np.uint8).reshape(-1))
        spend(KIB_MS * src.nbytes / 1024)

    stream.work.append(copy)


def memcpy_dtoh_async(dest: np.ndarray[Any, Any], src: _Allocation, stream: Stream) -> None:
    _call("memcpy_dtoh_async")
    assert dest.flags.c_contiguous

    def copy() -> None:
        flat = dest.view(np.uint8).reshape(-1)
        flat[:] = read(int(src), flat.size)
        spend(KIB_MS * flat.size / 1024)

    stream.work.append(copy)


#: The letters of PyCUDA's argument types that the stand-in supports.
_C_TYPES = {"P": ctypes.c_void_p, "i": ctypes.c_int}


def _pointer(address: int) -> int:
    """The host address of a device address, which may point into the middle of an allocation."""
    begin = max((known for known in list(MEMORY) if known <= address), default=0)  # other threads allocate meanwhile
    assert address - begin < MEMORY.get(begin, np.empty(0)).size, f"nothing is allocated at {address:#x}"
    return int(MEMORY[begin].ctypes.data) + address - begin


class _Function:
    def __init__(self, module: _Module, name: str) -> None:
        self._module, self._name = module, name
        self._types: list[str] | None = None

    def prepare(self, arg_types: Any, texrefs: Any = None) -> _Function:
        assert texrefs is None
        self._types = list(arg_types)
        assert set(self._types) <= set(_C_TYPES)
        return self

    def prepared_async_call(self, grid: tuple[int, ...], block: tuple[int, ...], stream: Stream, *args: int) -> None:
        _call("prepared_async_call")
        assert self._types is not None, "the function was not prepared"
        assert len(args) == len(self._types)
        assert all(type(argument) is int for argument in args)
        assert isinstance(block, tuple)
        assert len(block) == 3
        assert block[1:] == (1, 1)
        assert 1 <= block[0] <= 1024
        assert len(grid) == 2
        assert 1 <= grid[0] < 1 << 31
        assert 1 <= grid[1] < 1 << 16
        types = [_C_TYPES[letter] for letter in self._types]
        assert all(-(1 << 31) <= value < 1 << 31 for value, kind in zip(args, types, strict=True) if kind is ctypes.c_int)

        def run() -> None:
            given = [kind(_pointer(value) if kind is ctypes.c_void_p else value) for value, kind in zip(args, types, strict=True)]
            function = getattr(self._module.library, self._name)
            function.restype = None
            function(*given, *map(ctypes.c_int, (*grid, block[0])))

        stream.work.append(run)


class _Module:
    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library

    def get_function(self, name: str) -> _Function:
        _call("get_function")
        if not hasattr(self.library, name):
            raise Error("cuModuleGetFunction failed: named symbol not found")
        return _Function(self, name)


def module_from_buffer(buffer: bytes) -> _Module:
    _call("module_from_buffer")
    if b".version" in buffer:
        return _Module(_compiled(buffer))
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        file.write(buffer)
        file.flush()
        try:
            return _Module(ctypes.CDLL(file.name))
        except OSError as error:
            raise Error("cuModuleLoadDataEx failed: device kernel image is invalid - ") from error


def _compiled(text: bytes) -> ctypes.CDLL:
    assert text.endswith(b"\0"), "the driver reads PTX up to a NUL"
    content = text.partition(b"\0")[0].decode("ascii")
    if ptx.isa_of(content) > NEWEST_ISA:
        raise Error("cuModuleLoadDataEx failed: the provided PTX was compiled with an unsupported toolchain. - ")
    try:
        return ptx.library_of(content)
    except NotImplementedError as error:
        raise Error(f"cuModuleLoadDataEx failed: a PTX JIT compilation failed - ptxas fatal: {error}") from error
    except FileNotFoundError as error:
        raise Error("cuModuleLoadDataEx failed: PTX JIT compiler library not found - ") from error


class _Context:
    references = 0

    def push(self) -> None:
        _call("push", current=False)
        _stack.depth = depth() + 1

    def detach(self) -> None:
        _call("detach", current=False)
        _Context.references -= 1

    @staticmethod
    def pop() -> None:
        assert depth() > 0, "the context stack is empty"
        _stack.depth = depth() - 1


class _Attribute:
    INTEGRATED = "INTEGRATED"
    CAN_MAP_HOST_MEMORY = "CAN_MAP_HOST_MEMORY"


class _Flags:
    DEVICEMAP = 2


def driver(*, integrated: bool) -> ModuleType:
    """The module for a GPU with or without its own memory."""

    class _Device:
        def __init__(self, ordinal: int) -> None:
            assert ordinal == 0

        def get_attribute(self, which: str) -> int:
            return int(integrated)

        def retain_primary_context(self) -> _Context:
            _call("retain_primary_context", current=False)
            _Context.references += 1
            return _Context()

    module = ModuleType("pycuda.driver")
    names = {
        "init": lambda: _call("init", current=False),
        "Device": _Device,
        "Context": _Context,
        "Stream": Stream,
        "Event": Event,
        "Error": Error,
        "MemoryError": MemoryError,
        "device_attribute": _Attribute,
        "host_alloc_flags": _Flags,
        "pagelocked_empty": pagelocked_empty,
        "mem_alloc": _Allocation,
        "memcpy_htod_async": memcpy_htod_async,
        "memcpy_dtoh_async": memcpy_dtoh_async,
        "module_from_buffer": module_from_buffer,
    }
    module.__dict__.update(names)
    return module
