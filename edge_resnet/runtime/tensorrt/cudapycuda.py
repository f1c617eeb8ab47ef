"""CUDA through PyCUDA. Does not know about TensorRT or networks; what the classes do is said in ``cuda``.

The only module that imports PyCUDA. The primary context is pushed for each piece of work and popped afterwards, in the same
thread: PyCUDA aborts a process that exits with a context on its stack.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pycuda.driver as driver

from edge_resnet.core.errors import BackendError

__all__ = ["Cuda", "DeviceBuffer", "Kernel", "PinnedBuffer", "StreamTimer"]


class PinnedBuffer:
    """Pinned memory of one shape and dtype. ``host``: an array. ``address``: the device address of its content.

    On a GPU with its own memory, ``to_device`` and ``to_host`` copy between the two. On an integrated GPU they are the same
    memory, and nothing is copied.
    """

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike, *, mapped: bool) -> None:
        flags = driver.host_alloc_flags.DEVICEMAP if mapped else 0
        self.host: npt.NDArray[Any] = driver.pagelocked_empty(shape, dtype, mem_flags=flags)
        self._device: Any = None
        if mapped:
            pinned: Any = self.host.base
            self.address = int(pinned.get_device_pointer())
        else:
            self._device = driver.mem_alloc(self.host.nbytes)
            self.address = int(self._device)

    def to_device(self, stream: Any, count: int) -> None:
        """Queue the H2D copy of the first ``count`` rows."""
        if self._device is not None:
            driver.memcpy_htod_async(self._device, self.host[:count], stream)

    def to_host(self, stream: Any, count: int) -> None:
        """Queue the D2H copy of the first ``count`` rows."""
        if self._device is not None:
            driver.memcpy_dtoh_async(self.host[:count], self._device, stream)

    def free(self) -> None:
        """Free the memory; the context must be current."""
        if self._device is not None:
            self._device.free()
        self._device = None
        self.host = np.empty(0)


class DeviceBuffer:
    """Device memory of ``size`` bytes at ``address``. An integrated GPU also reads it faster than pinned memory."""

    def __init__(self, size: int) -> None:
        self._device: Any = driver.mem_alloc(size)
        self.size = size
        self.address = int(self._device)

    def fill(self, content: npt.NDArray[Any], stream: Any) -> None:
        """Queue the copy of a contiguous array to its start; the array must not change until the stream has been synchronized."""
        driver.memcpy_htod_async(self._device, content, stream)

    def free(self) -> None:
        """Free the memory; the context must be current."""
        if self._device is not None:
            self._device.free()
        self._device = None


class Kernel:
    """A CUDA kernel. ``arguments``: a letter per argument, ``P`` for an address, ``i`` for an int."""

    def __init__(self, function: Any, arguments: str) -> None:
        self._function = function.prepare(arguments)

    def launch(self, grid: tuple[int, int], block: int, stream: Any, *arguments: int) -> None:
        """Queue a launch of ``grid`` blocks with ``block`` threads each."""
        self._function.prepared_async_call(grid, (block, 1, 1), stream, *arguments)


class StreamTimer:
    """CUDA events on one stream, and the times between them on the GPU's clock. The context must be current for every call."""

    def __init__(self) -> None:
        self._events: list[Any] = []
        self._used = 0

    def begin(self, stream: Any) -> None:
        """Queue the first event, and forget those before it."""
        self._used = 0
        self.mark(stream)

    def mark(self, stream: Any) -> None:
        """Queue an event behind everything that is queued on the stream."""
        if self._used == len(self._events):
            self._events.append(driver.Event())
        self._events[self._used].record(stream)
        self._used += 1

    def milliseconds(self) -> list[float]:
        """The time from each event to the next, finer than a microsecond; the stream must have been synchronized."""
        marked = self._events[: self._used]
        return [float(before.time_till(after)) for before, after in pairwise(marked)]


class Cuda:
    """The primary context of the first GPU. ``close`` releases it and may be called twice.

    ``mapped``: whether pinned memory is mapped and not copied, as on an integrated GPU that can map the CPU's memory.
    """

    def __init__(self) -> None:
        with _mapped_errors("the CUDA driver does not start"):
            driver.init()
            device = driver.Device(0)
            attributes = driver.device_attribute
            self.mapped = bool(device.get_attribute(attributes.INTEGRATED)) and bool(
                device.get_attribute(attributes.CAN_MAP_HOST_MEMORY)
            )
            self._context: Any = device.retain_primary_context()

    @contextmanager
    def current(self, doing: str) -> Iterator[None]:
        """Make the context current in this thread during the block; CUDA errors become a BackendError about ``doing``."""
        if self._context is None:
            raise BackendError("this GPU context is closed", hint="open the artifact again")
        with _mapped_errors(doing):
            self._context.push()
            try:
                yield
            finally:
                driver.Context.pop()

    def stream(self) -> Any:
        """A new stream; TensorRT takes its ``handle``. The context must be current."""
        return driver.Stream()

    def timer(self) -> StreamTimer:
        """A timer for one stream. The context must be current."""
        return StreamTimer()

    def buffer(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> PinnedBuffer:
        """Pinned memory. The context must be current."""
        return PinnedBuffer(shape, dtype, mapped=self.mapped)

    def memory(self, size: int) -> DeviceBuffer:
        """Device memory of ``size`` bytes. The context must be current."""
        return DeviceBuffer(size)

    def kernels(self, code: bytes, arguments: Mapping[str, str]) -> list[Kernel]:
        """The kernels of a cubin or of PTX; ``arguments``: name → the types of its arguments."""
        module = driver.module_from_buffer(code)
        return [Kernel(module.get_function(name), types) for name, types in arguments.items()]

    def close(self) -> None:
        """Release the context."""
        context, self._context = self._context, None
        if context is not None:
            with _mapped_errors("the GPU context cannot be closed"):
                context.detach()


@contextmanager
def _mapped_errors(doing: str) -> Iterator[None]:
    try:
        yield
    except driver.MemoryError as error:
        raise BackendError(f"{doing}: GPU memory ran out", hint="close other programs, or use a smaller batch") from error
    except driver.Error as error:
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        raise BackendError(f"{doing}: {first}", hint="edge-resnet doctor checks the GPU; a restart clears a fault") from error
