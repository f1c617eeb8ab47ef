"""CUDA through cuda.core, NVIDIA's package for Python. Does not know about TensorRT or networks; see ``cuda`` for the interface.

The only module that imports cuda.core and the bindings below it. The bindings serve where cuda.core has nothing that fits: a
context that is pushed and popped, the copy of a part of a buffer, and device memory outside a pool, which would keep it from
other programs after it is freed. Pinned memory is that of cuMemAllocHost: pools of it need CUDA 12.6 and gain nothing here.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from cuda.bindings import driver
from cuda.core import Device, EventOptions, LaunchConfig, LegacyPinnedMemoryResource, ObjectCode, launch

from edge_resnet.core.errors import BackendError
from edge_resnet.runtime.tensorrt.cuda import refuse_bindings

__all__ = ["Cuda", "DeviceBuffer", "Kernel", "PinnedBuffer", "Stream", "StreamTimer"]

_ELF = b"\x7fELF"
#: A letter of an argument's type → what cuda.core passes on as that type; an int is an address to it.
_ARGUMENTS: Mapping[str, type] = {"P": int, "i": np.int32}


class Stream:
    """A stream that does not wait for the default one. ``core``: cuda.core's object."""

    def __init__(self, device: Any) -> None:
        self.core = device.create_stream()
        self.handle = int(self.core.handle)

    def synchronize(self) -> None:
        """Wait until everything that is queued has been done."""
        self.core.sync()


class PinnedBuffer:
    """Pinned memory, with device memory of the same size unless it is mapped."""

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike, *, mapped: bool) -> None:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        self._pinned: Any = LegacyPinnedMemoryResource().allocate(size)
        place = int(self._pinned.handle)
        self.host: npt.NDArray[Any] = np.ndarray(shape, dtype, memoryview((ctypes.c_uint8 * size).from_address(place)))
        self._device: DeviceBuffer | None = None
        try:
            if mapped:
                self.address = int(_checked(driver.cuMemHostGetDevicePointer(place, 0)))
            else:
                self._device = DeviceBuffer(size)
                self.address = self._device.address
        except BaseException:
            self.free()  # now: garbage is collected later, when the context is no longer current
            raise

    def to_device(self, stream: Stream, count: int) -> None:
        """Queue the H2D copy of the first ``count`` rows."""
        if self._device is not None:
            self._device.fill(self.host[:count], stream)

    def to_host(self, stream: Stream, count: int) -> None:
        """Queue the D2H copy of the first ``count`` rows."""
        if self._device is not None:
            part = self.host[:count]
            _checked(driver.cuMemcpyDtoHAsync(part.ctypes.data, self.address, part.nbytes, stream.handle))

    def free(self) -> None:
        """Free the memory; the context must be current. May be called again."""
        device, pinned, self._device, self._pinned = self._device, self._pinned, None, None
        self.host = np.empty(0)
        if device is not None:
            device.free()
        if pinned is not None:
            pinned.close()


class DeviceBuffer:
    """Device memory of ``size`` bytes at ``address``."""

    def __init__(self, size: int) -> None:
        self.address = int(_checked(driver.cuMemAlloc(size)))
        self.size = size
        self._freed = False

    def fill(self, content: npt.NDArray[Any], stream: Stream) -> None:
        """Queue the copy of a contiguous array to its start; the array must not change until the stream has been synchronized."""
        _checked(driver.cuMemcpyHtoDAsync(self.address, content.ctypes.data, content.nbytes, stream.handle))

    def free(self) -> None:
        """Free the memory; the context must be current. May be called again."""
        if not self._freed:
            self._freed = True
            _checked(driver.cuMemFree(self.address))


class Kernel:
    """A CUDA kernel. ``arguments``: a letter per argument, ``P`` for an address, ``i`` for an int."""

    def __init__(self, kernel: Any, arguments: str) -> None:
        self._kernel = kernel
        self._types = [_ARGUMENTS[letter] for letter in arguments]

    def launch(self, grid: tuple[int, int], block: int, stream: Stream, *arguments: int) -> None:
        """Queue a launch of ``grid`` blocks with ``block`` threads each."""
        typed = [kind(argument) for kind, argument in zip(self._types, arguments, strict=True)]
        launch(stream.core, LaunchConfig(grid=grid, block=(block, 1, 1)), self._kernel, *typed)


class StreamTimer:
    """CUDA events on one stream, and the times between them on the GPU's clock."""

    def __init__(self, device: Any) -> None:
        self._device = device
        self._events: list[Any] = []
        self._used = 0

    def begin(self, stream: Stream) -> None:
        """Queue the first event, and forget those before it."""
        self._used = 0
        self.mark(stream)

    def mark(self, stream: Stream) -> None:
        """Queue an event behind everything that is queued on the stream."""
        if self._used == len(self._events):
            self._events.append(self._device.create_event(EventOptions(timing_enabled=True)))
        stream.core.record(self._events[self._used])
        self._used += 1

    def milliseconds(self) -> list[float]:
        """The time from each event to the next, finer than a microsecond; the stream must have been synchronized."""
        return [float(after - before) for before, after in pairwise(self._events[: self._used])]


class Cuda:
    """The primary context of the first GPU. ``close`` releases it and may be called twice; cuda.core keeps it for the process."""

    def __init__(self) -> None:
        refuse_bindings()
        with _mapped_errors("the CUDA driver does not start"):
            _checked(driver.cuInit(0))
            self._device: Any = Device(0)
            known = driver.CUdevice_attribute
            wanted = (known.CU_DEVICE_ATTRIBUTE_INTEGRATED, known.CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY)
            self.mapped = all(_checked(driver.cuDeviceGetAttribute(attribute, 0)) for attribute in wanted)
            self._context: Any = _checked(driver.cuDevicePrimaryCtxRetain(0))
        try:
            with self.current("the CUDA driver does not start"):
                self._device.set_current()
        except BaseException:
            self.close()
            raise

    @contextmanager
    def current(self, doing: str) -> Iterator[None]:
        """Make the context current in this thread during the block; CUDA errors become a BackendError about ``doing``."""
        if self._context is None:
            raise BackendError("this GPU context is closed", hint="open the artifact again")
        with _mapped_errors(doing):
            _checked(driver.cuCtxPushCurrent(self._context))
            try:
                yield
            finally:
                driver.cuCtxPopCurrent()

    def stream(self) -> Stream:
        """A new stream. The context must be current."""
        return Stream(self._device)

    def timer(self) -> StreamTimer:
        """A timer for one stream. The context must be current."""
        return StreamTimer(self._device)

    def buffer(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> PinnedBuffer:
        """Pinned memory. The context must be current."""
        return PinnedBuffer(shape, dtype, mapped=self.mapped)

    def memory(self, size: int) -> DeviceBuffer:
        """Device memory of ``size`` bytes. The context must be current."""
        return DeviceBuffer(size)

    def kernels(self, code: bytes, arguments: Mapping[str, str]) -> list[Kernel]:
        """The kernels of a cubin or of PTX; ``arguments``: name → the types of its arguments. The context must be current."""
        module = ObjectCode.from_cubin(code) if code.startswith(_ELF) else ObjectCode.from_ptx(code)
        return [Kernel(module.get_kernel(name), types) for name, types in arguments.items()]

    def close(self) -> None:
        """Release the context."""
        context, self._context = self._context, None
        if context is not None:
            with _mapped_errors("the GPU context cannot be closed"):
                _checked(driver.cuDevicePrimaryCtxRelease(0))


class _CallError(Exception):
    """A call of the bindings that failed."""


def _checked(result: tuple[Any, ...]) -> Any:
    """The value of a call of the bindings, which return the error code first."""
    code, *values = result
    if code != driver.CUresult.CUDA_SUCCESS:
        raise _CallError(getattr(code, "name", f"error {code}"))
    return values[0] if values else None


@contextmanager
def _mapped_errors(doing: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not _is_cudas(error):
            raise
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        first = f"CUDA error {first}" if first.isdecimal() else first
        if "CUDA_ERROR_OUT_OF_MEMORY" in first:
            raise BackendError(f"{doing}: GPU memory ran out", hint="close other programs, or use a smaller batch") from error
        raise BackendError(f"{doing}: {first}", hint="edge-resnet doctor checks the GPU; a restart clears a fault") from error


def _is_cudas(error: Exception) -> bool:
    """Whether it was raised inside cuda.core or the bindings: most of their errors are RuntimeErrors, and their own class is
    private."""
    trace, origin = error.__traceback__, ""
    while trace is not None:
        origin, trace = str(trace.tb_frame.f_globals.get("__name__", "")), trace.tb_next
    return isinstance(error, _CallError) or origin.startswith("cuda.")
