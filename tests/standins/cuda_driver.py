"""A CUDA driver written in Python, on which the real cuda.core and the real bindings run: no class of theirs is replaced.

libcuda.c is what they load; it asks here for the address of each call by name. Memory, streams, faults and the clock are those of
pycuda_driver.py, so that one test holds for both libraries. A call that is not here is one that the driver lacks.
"""

# ruff: noqa: N802 - the driver's own names

from __future__ import annotations

import atexit
import ctypes
import importlib
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_float, c_int, c_size_t, c_uint, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from standins import pycuda_driver as gpu

__all__ = ["BROKEN", "RETAINED", "SEEN", "become", "load", "said"]

#: What the driver found wrong in how it was called; a callback cannot raise it.
BROKEN: list[str] = []
#: The calls that were made → the CUDA version that they came with, as the bindings ask for them: 12000 is 12.0.
SEEN: dict[str, int] = {}
#: How often the primary context is retained.
RETAINED = [0]

_CONTEXT, _VERSION = 0xC0DE, 13_000
_INTEGRATED = [False]
_SUCCESS, _NO_MEMORY, _NO_IMAGE, _NOT_FOUND, _NOT_READY, _UNKNOWN = 0, 2, 200, 500, 600, 999
#: What pycuda_driver.py says of a module that does not load → the CUresult.
_REFUSALS = {
    "stand-in": _UNKNOWN,
    "image is invalid": _NO_IMAGE,
    "JIT compilation": 218,
    "library not found": 221,
    "toolchain": 222,
}
_NAMES = {
    218: b"CUDA_ERROR_INVALID_PTX",
    221: b"CUDA_ERROR_JIT_COMPILER_NOT_FOUND",
    222: b"CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
    _NO_MEMORY: b"CUDA_ERROR_OUT_OF_MEMORY",
    _NO_IMAGE: b"CUDA_ERROR_INVALID_IMAGE",
    _NOT_FOUND: b"CUDA_ERROR_NOT_FOUND",
    _NOT_READY: b"CUDA_ERROR_NOT_READY",
    _UNKNOWN: b"CUDA_ERROR_UNKNOWN",
}
#: CUdevice_attribute of the CUDA driver API → value.
_ATTRIBUTES: dict[int, Callable[[], int]] = {
    18: lambda: int(_INTEGRATED[0]),
    19: lambda: int(_INTEGRATED[0]),
    41: lambda: 1,
    75: lambda: 8,
    76: lambda: 7,
}
_calls: dict[str, tuple[Callable[..., None], Any]] = {}
#: They must live as long as the bindings.
_entries: dict[tuple[str, int], Any] = {}
_events: dict[int, gpu.Event] = {}
_hosts: dict[int, Any] = {}
_modules: dict[int, ctypes.CDLL] = {}
_kernels: dict[int, tuple[ctypes.CDLL, str]] = {}
_numbers = iter(range(0x1000, 1 << 40, 0x10))
_loaded: list[Any] = []


class _RefusedError(Exception):
    """``code``: the CUresult that the call returns."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _driver(*types: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A call of the driver with arguments of these C types; what it raises becomes a CUresult."""

    def registered(function: Callable[..., None]) -> Callable[..., None]:
        _calls[function.__name__] = (function, ctypes.CFUNCTYPE(c_int, *types))
        return function

    return registered


def _entry(name: str, version: int) -> Any:
    """The address of a call as it came with a CUDA version: the bindings may know several forms of one name."""
    function, prototype = _calls[name]

    def call(*arguments: Any) -> int:
        SEEN[name] = max(version, SEEN.get(name, 0))
        try:
            function(*arguments)
        except _RefusedError as error:
            return error.code
        except gpu.MemoryError:
            return _NO_MEMORY
        except gpu.Error as error:
            return _NOT_READY if "not ready" in str(error) else _UNKNOWN
        except BaseException as error:  # asserts, too, must reach the test and not ctypes
            BROKEN.append(f"{name}: {type(error).__name__}: {error}")
            return _UNKNOWN
        return _SUCCESS

    return prototype(call)


def load(path: Path) -> ctypes.CDLL:
    """Make this process's cuda.core load the stand-in at ``path``; skips if cuda.core is not here, or has a real driver."""
    if _loaded:
        return _loaded[0]
    pytest.importorskip("cuda.core", reason="cuda-core is not installed")
    pathfinder = importlib.import_module("cuda.pathfinder")
    try:
        pathfinder.load_nvidia_dynamic_lib("cuda")
    except pathfinder.DynamicLibNotFoundError:
        pass
    else:
        pytest.skip("this process has loaded the real CUDA driver")
    library = ctypes.CDLL(str(path))
    found = pathfinder.LoadedDL(str(path), True, library._handle, "system-search")
    # The module of the bindings that loads the driver, when it is first called.
    bindings = importlib.import_module("cuda.bindings._internal.driver")
    bindings.load_nvidia_dynamic_lib = lambda name: found
    _loaded[:] = [library, _LOOKUP(_look_up), _HOOK(_retain), _HOOK(_release)]
    library.stub_serve(*_loaded[1:])
    # cuda.core lets go of the context when the process has already shut Python down.
    atexit.register(library.stub_serve, None, None, None)
    importlib.import_module("cuda.bindings.driver").cuInit(0)  # the bindings load the driver once
    return library


def become(*, integrated: bool) -> None:
    """Which GPU it is from now on."""
    _INTEGRATED[0] = integrated
    BROKEN.clear()


def said(call: str) -> str:
    """What is said of that call's failure: by PyCUDA, and by cuda.core, which does not say the call and not always the error."""
    core = "CUDA_ERROR_(UNKNOWN|INVALID_IMAGE)(: This indicates .*)?|CUDA error 999|Failed to create CUDA event"
    return f"({call} failed: stand-in|{core})$"


_LOOKUP = ctypes.CFUNCTYPE(c_int, c_char_p, c_int, POINTER(c_void_p))
_HOOK = ctypes.CFUNCTYPE(c_int)


def _look_up(name: bytes, version: int, address: Any) -> int:
    key = name.decode(), version
    if key[0] not in _calls:
        address[0] = None
        return _NOT_FOUND
    if key not in _entries:
        _entries[key] = _entry(*key)
    address[0] = ctypes.cast(_entries[key], c_void_p).value
    return _SUCCESS


def _retain() -> int:
    try:
        gpu._call("retain_primary_context", current=False)
    except gpu.Error:
        return _UNKNOWN
    RETAINED[0] += 1
    return _SUCCESS


def _release() -> int:
    RETAINED[0] -= 1
    return _SUCCESS


@_driver(c_uint)
def cuInit(flags: int) -> None:
    gpu._call("init", current=False)


@_driver(POINTER(c_int))
def cuDriverGetVersion(version: Any) -> None:
    gpu._call("init", current=False)
    version[0] = _VERSION


@_driver(c_int, POINTER(c_char_p))
def cuGetErrorName(code: int, name: Any) -> None:
    name[0] = _NAMES[code]


@_driver(c_int, POINTER(c_char_p))
def cuGetErrorString(code: int, words: Any) -> None:
    words[0] = b"stand-in"


@_driver(POINTER(c_int))
def cuDeviceGetCount(count: Any) -> None:
    count[0] = 1


@_driver(POINTER(c_int), c_int)
def cuDeviceGet(device: Any, ordinal: int) -> None:
    assert ordinal == 0
    device[0] = 0


@_driver(POINTER(c_int), c_int, c_int)
def cuDeviceGetAttribute(value: Any, attribute: int, device: int) -> None:
    value[0] = _ATTRIBUTES[attribute]()


@_driver(c_void_p)
def cuCtxPushCurrent(context: int) -> None:
    assert context == _CONTEXT
    gpu._call("push", current=False)
    gpu._stack.depth = gpu.depth() + 1


@_driver(POINTER(c_void_p))
def cuCtxPopCurrent(context: Any) -> None:
    assert gpu.depth() > 0, "the context stack is empty"
    gpu._stack.depth = gpu.depth() - 1
    if context:
        context[0] = _CONTEXT


@_driver(c_void_p)
def cuCtxSetCurrent(context: int | None) -> None:
    assert context == _CONTEXT
    assert gpu.depth() > 0, "the caller's context is replaced, and not pushed aside"


@_driver(POINTER(c_void_p))
def cuCtxGetCurrent(context: Any) -> None:
    context[0] = _CONTEXT if gpu.depth() else None


@_driver(POINTER(c_int))
def cuCtxGetDevice(device: Any) -> None:
    device[0] = 0


@_driver(POINTER(c_int), POINTER(c_int))
def cuCtxGetStreamPriorityRange(least: Any, greatest: Any) -> None:
    least[0], greatest[0] = 0, -5


@_driver(POINTER(c_void_p), c_uint, c_int)
def cuStreamCreateWithPriority(stream: Any, flags: int, priority: int) -> None:
    assert flags == 1, "a stream must not wait for the default one"
    stream[0] = gpu.Stream().handle


@_driver(c_void_p)
def cuStreamSynchronize(stream: int) -> None:
    if stream > 2:  # 1 and 2 are the default streams, on which nothing is queued
        gpu.STREAMS[stream].synchronize()


@_driver(c_void_p)
def cuStreamDestroy(stream: int) -> None:
    del gpu.STREAMS[stream]


@_driver(POINTER(c_void_p), c_uint)
def cuEventCreate(event: Any, flags: int) -> None:
    assert not flags & 2, "an event without its time"
    made, number = gpu.Event(), next(_numbers)
    _events[number] = made
    event[0] = number


@_driver(c_void_p, c_void_p)
def cuEventRecord(event: int, stream: int) -> None:
    _events[event].record(gpu.STREAMS[stream])


@_driver(POINTER(c_float), c_void_p, c_void_p)
def cuEventElapsedTime(milliseconds: Any, before: int, after: int) -> None:
    milliseconds[0] = _events[before].time_till(_events[after])


@_driver(c_void_p)
def cuEventDestroy(event: int) -> None:
    del _events[event]


@_driver(POINTER(c_uint64), c_size_t)
def cuMemAlloc(address: Any, size: int) -> None:
    address[0] = int(gpu._Allocation(size))


@_driver(c_uint64)
def cuMemFree(address: int) -> None:
    gpu._call("free")
    del gpu.MEMORY[address]


@_driver(POINTER(c_void_p), c_size_t)
def cuMemAllocHost(address: Any, size: int) -> None:
    host = gpu.pagelocked_empty((size,), np.uint8)
    _hosts[host.ctypes.data] = host
    address[0] = host.ctypes.data


@_driver(c_void_p)
def cuMemFreeHost(address: int) -> None:
    gpu._call("free_host")
    host = _hosts.pop(address)
    for mapped in [device for device, memory in list(gpu.MEMORY.items()) if memory.ctypes.data == address]:
        del gpu.MEMORY[mapped]
    host[:] = 0xDD  # whoever still reads it shall see so


@_driver(POINTER(c_uint64), c_void_p, c_uint)
def cuMemHostGetDevicePointer(device: Any, address: int, flags: int) -> None:
    assert flags == 0
    device[0] = _hosts[address].base.get_device_pointer()


def _pinned(address: int, size: int) -> np.ndarray[Any, Any]:
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), np.uint8)


@_driver(c_uint64, c_void_p, c_size_t, c_void_p)
def cuMemcpyHtoDAsync(device: int, host: int, size: int, stream: int) -> None:
    assert size <= gpu.MEMORY[device].size
    gpu.memcpy_htod_async(device, _pinned(host, size), gpu.STREAMS[stream])  # type: ignore[arg-type]


@_driver(c_void_p, c_uint64, c_size_t, c_void_p)
def cuMemcpyDtoHAsync(host: int, device: int, size: int, stream: int) -> None:
    assert size <= gpu.MEMORY[device].size
    gpu.memcpy_dtoh_async(_pinned(host, size), device, gpu.STREAMS[stream])  # type: ignore[arg-type]


@_driver(POINTER(c_void_p), c_void_p, c_void_p, c_void_p, c_uint, c_void_p, c_void_p, c_uint)
def cuLibraryLoadData(library: Any, code: int, *options: Any) -> None:
    try:
        loaded = gpu.module_from_buffer(_image(code))
    except gpu.Error as error:
        raise _RefusedError(next(code for words, code in _REFUSALS.items() if words in str(error))) from error
    library[0] = next(_numbers)
    _modules[library[0]] = loaded.library


def _image(code: int) -> bytes:
    """A module is loaded from an address without a length: an ELF file ends with its table of sections, and text with a zero."""
    if ctypes.string_at(code, 4) != b"\x7fELF":
        return ctypes.string_at(code) + b"\0"
    sections = int.from_bytes(ctypes.string_at(code + 0x28, 8), "little")
    size, count = (int.from_bytes(ctypes.string_at(code + place, 2), "little") for place in (0x3A, 0x3C))
    return ctypes.string_at(code, sections + size * count)


@_driver(POINTER(c_void_p), c_void_p, c_char_p)
def cuLibraryGetKernel(kernel: Any, library: int, name: bytes) -> None:
    gpu._call("get_function")
    if not hasattr(_modules[library], name.decode()):
        raise _RefusedError(_NOT_FOUND)
    kernel[0] = next(_numbers)
    _kernels[kernel[0]] = (_modules[library], name.decode())


@_driver(c_void_p)
def cuLibraryUnload(library: int) -> None:
    _modules.pop(library)


class _LaunchConfig(ctypes.Structure):
    """CUlaunchConfig of the CUDA driver API."""

    _fields_ = (
        *((f"{what}_{axis}", c_uint) for what in ("grid", "block") for axis in "xyz"),
        ("shared", c_uint),
        ("stream", c_void_p),
        ("attributes", c_void_p),
        ("attribute_count", c_uint),
    )


#: The kernels of resize.cu: what the real driver reads from the module.
_SIGNATURES = {"resize_rows": "PiPiP", "resize_columns": "PiPiP"}


@_driver(POINTER(_LaunchConfig), c_void_p, POINTER(c_void_p), c_void_p)
def cuLaunchKernelEx(config: Any, kernel: int, parameters: Any, extra: int | None) -> None:
    library, name = _kernels[kernel]
    how, letters = config[0], _SIGNATURES[name]
    assert (how.grid_z, how.shared, how.attribute_count, extra) == (1, 0, 0, None)
    types = {"P": c_uint64, "i": c_int}
    values = [types[letter].from_address(parameters[index]).value for index, letter in enumerate(letters)]
    function = gpu._Function(gpu._Module(library), name).prepare(letters)
    grid, block = (how.grid_x, how.grid_y), (how.block_x, how.block_y, how.block_z)
    function.prepared_async_call(grid, block, gpu.STREAMS[how.stream], *values)
