"""The GPU through PyCUDA: its primary context, streams, and memory that both sides reach. Knows no TensorRT and no networks.

The one owner of PyCUDA. The primary context is the one that TensorRT and torch use; it is pushed for each piece of work and
popped after, in whichever thread that is: PyCUDA ends the process that leaves its stack filled.
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
    """Memory of one shape and dtype: ``host``, a pinned array, and ``address``, where the GPU finds its content.

    On a GPU with memory of its own the two are copies of each other, made by ``to_device`` and ``to_host``; on an integrated one
    they are the same memory, and nothing is copied.
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
        """Queue the copy of the first ``count`` rows."""
        if self._device is not None:
            driver.memcpy_htod_async(self._device, self.host[:count], stream)

    def to_host(self, stream: Any, count: int) -> None:
        """Queue the copy back of the first ``count`` rows."""
        if self._device is not None:
            driver.memcpy_dtoh_async(self.host[:count], self._device, stream)

    def free(self) -> None:
        """Give the GPU's memory back; the context must be current."""
        if self._device is not None:
            self._device.free()
        self._device = None
        self.host = np.empty(0)


class DeviceBuffer:
    """Memory of ``size`` bytes at ``address`` that only the GPU reaches, also on an integrated one, which reads it faster."""

    def __init__(self, size: int) -> None:
        self._device: Any = driver.mem_alloc(size)
        self.size = size
        self.address = int(self._device)

    def fill(self, content: npt.NDArray[Any], stream: Any) -> None:
        """Queue the copy of a contiguous array to its beginning; the array must stay as it is until the stream was waited for."""
        driver.memcpy_htod_async(self._device, content, stream)

    def free(self) -> None:
        """Give the memory back; the context must be current."""
        if self._device is not None:
            self._device.free()
        self._device = None


class Kernel:
    """A function that runs on the GPU. ``arguments``: their types, ``P`` an address, ``i`` an int."""

    def __init__(self, function: Any, arguments: str) -> None:
        self._function = function.prepare(arguments)

    def launch(self, grid: tuple[int, int], block: int, stream: Any, *arguments: int) -> None:
        """Queue a run in ``grid`` blocks of ``block`` threads."""
        self._function.prepared_async_call(grid, (block, 1, 1), stream, *arguments)


class StreamTimer:
    """Moments on a stream as the GPU itself sees them, and the times between them. The context must be current throughout."""

    def __init__(self) -> None:
        self._events: list[Any] = []
        self._used = 0

    def begin(self, stream: Any) -> None:
        """Queue the first moment; what was taken before is forgotten."""
        self._used = 0
        self.take(stream)

    def take(self, stream: Any) -> None:
        """Queue a moment behind all that was queued on the stream."""
        if self._used == len(self._events):
            self._events.append(driver.Event())
        self._events[self._used].record(stream)
        self._used += 1

    def milliseconds(self) -> list[float]:
        """Between each moment and the next; the stream must have been waited for. Finer than a microsecond."""
        taken = self._events[: self._used]
        return [float(before.time_till(after)) for before, after in pairwise(taken)]


class Cuda:
    """The first GPU's primary context. ``close`` lets go of it and may be called twice.

    ``mapped``: whether buffers are shared with the GPU and not copied: it is integrated, and can map the processor's memory.
    """

    def __init__(self) -> None:
        with _in_words("the CUDA driver does not start"):
            driver.init()
            device = driver.Device(0)
            attributes = driver.device_attribute
            self.mapped = bool(device.get_attribute(attributes.INTEGRATED)) and bool(
                device.get_attribute(attributes.CAN_MAP_HOST_MEMORY)
            )
            self._context: Any = device.retain_primary_context()

    @contextmanager
    def current(self, doing: str) -> Iterator[None]:
        """Make the context this thread's while the block runs; what CUDA raises becomes a BackendError that says ``doing``."""
        if self._context is None:
            raise BackendError("this GPU context is closed", hint="open the artifact again")
        with _in_words(doing):
            self._context.push()
            try:
                yield
            finally:
                driver.Context.pop()

    def stream(self) -> Any:
        """A stream of its own; ``handle`` is what TensorRT takes. The context must be current."""
        return driver.Stream()

    def laps(self) -> StreamTimer:
        """A stopwatch for one stream. The context must be current."""
        return StreamTimer()

    def buffer(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> PinnedBuffer:
        """Memory that both sides reach. The context must be current."""
        return PinnedBuffer(shape, dtype, mapped=self.mapped)

    def memory(self, size: int) -> DeviceBuffer:
        """Memory of ``size`` bytes for the GPU alone. The context must be current."""
        return DeviceBuffer(size)

    def kernels(self, cubin: bytes, arguments: Mapping[str, str]) -> list[Kernel]:
        """Functions of a compiled module, by name with the types of their arguments. The context must be current."""
        module = driver.module_from_buffer(cubin)
        return [Kernel(module.get_function(name), types) for name, types in arguments.items()]

    def close(self) -> None:
        """Let go of the context."""
        context, self._context = self._context, None
        if context is not None:
            with _in_words("the GPU context cannot be closed"):
                context.detach()


@contextmanager
def _in_words(doing: str) -> Iterator[None]:
    try:
        yield
    except driver.MemoryError as error:
        raise BackendError(f"{doing}: GPU memory ran out", hint="close other programs, or lower --batch") from error
    except driver.Error as error:
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        raise BackendError(f"{doing}: {first}", hint="edge-resnet doctor looks at the GPU; a restart clears a fault") from error
