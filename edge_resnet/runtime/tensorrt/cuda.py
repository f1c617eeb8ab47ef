"""What the backends need of CUDA, stated once, and the library that provides it: PyCUDA where it is installed, else cuda.core.

Loads neither before ``open_cuda``: each has its own module, which alone imports it. Does not know about TensorRT or networks.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, Protocol

import numpy.typing as npt

from edge_resnet.core.errors import MissingDependencyError, is_out_of_memory
from edge_resnet.core.packages import installed_version
from edge_resnet.device.gpu import refuse_old_driver
from edge_resnet.runtime.backend import Requirement

__all__ = [
    "CUDA",
    "OWNERS",
    "Cuda",
    "DeviceBuffer",
    "Kernel",
    "PinnedBuffer",
    "Stream",
    "StreamTimer",
    "open_cuda",
    "refuse_bindings",
    "refuse_driver_of_cuda",
    "require_cuda",
]

#: Import name of a library, in the order in which they are tried → the module that owns it.
OWNERS: Mapping[str, str] = MappingProxyType(
    {"pycuda": "edge_resnet.runtime.tensorrt.cudapycuda", "cuda.core": "edge_resnet.runtime.tensorrt.cudacore"}
)
#: What a backend requires that runs on the GPU.
CUDA = Requirement("pycuda", "pycuda", extra="tensorrt", alternatives=(Requirement("cuda.core", "cuda-core", extra="rtx"),))
_log = logging.getLogger(__name__)


class Stream(Protocol):
    """A queue of work on the GPU, which is done in order."""

    @property
    def handle(self) -> int:
        """The address of the CUstream, as TensorRT takes it."""
        ...

    def synchronize(self) -> None:
        """Wait until everything that is queued has been done; raises the errors of that work."""
        ...


class PinnedBuffer(Protocol):
    """Pinned memory of one shape and dtype. ``host``: an array. ``address``: the device address of its content.

    On a GPU with its own memory, ``to_device`` and ``to_host`` copy between the two. On an integrated GPU they are the same
    memory, and nothing is copied.
    """

    host: npt.NDArray[Any]
    address: int

    def to_device(self, stream: Any, count: int) -> None:
        """Queue the H2D copy of the first ``count`` rows."""
        ...

    def to_host(self, stream: Any, count: int) -> None:
        """Queue the D2H copy of the first ``count`` rows."""
        ...

    def free(self) -> None:
        """Free the memory; the context must be current. May be called again."""
        ...


class DeviceBuffer(Protocol):
    """Device memory of ``size`` bytes at ``address``. An integrated GPU also reads it faster than pinned memory."""

    size: int
    address: int

    def fill(self, content: npt.NDArray[Any], stream: Any) -> None:
        """Queue the copy of a contiguous array to its start; the array must not change until the stream has been synchronized."""
        ...

    def free(self) -> None:
        """Free the memory; the context must be current. May be called again."""
        ...


class Kernel(Protocol):
    """A CUDA kernel with the types of its arguments."""

    def launch(self, grid: tuple[int, int], block: int, stream: Any, *arguments: int) -> None:
        """Queue a launch of ``grid`` blocks with ``block`` threads each."""
        ...


class StreamTimer(Protocol):
    """CUDA events on one stream, and the times between them on the GPU's clock. The context must be current for every call."""

    def begin(self, stream: Any) -> None:
        """Queue the first event, and forget those before it."""
        ...

    def mark(self, stream: Any) -> None:
        """Queue an event behind everything that is queued on the stream."""
        ...

    def milliseconds(self) -> list[float]:
        """The time from each event to the next, finer than a microsecond; the stream must have been synchronized."""
        ...


class Cuda(Protocol):
    """The primary context of the first GPU, which TensorRT and torch use too. ``close`` releases it and may be called twice.

    ``mapped``: whether pinned memory is mapped and not copied, as on an integrated GPU that can map the CPU's memory.
    Streams, timers and memory belong to the library that made them: those of one are not passed to another.
    """

    mapped: bool

    def current(self, doing: str) -> AbstractContextManager[None]:
        """Make the context current in this thread during the block; CUDA errors become a BackendError about ``doing``.

        Afterwards the context that was current before is current again.
        """
        ...

    def stream(self) -> Stream:
        """A new stream. The context must be current."""
        ...

    def timer(self) -> StreamTimer:
        """A timer for one stream. The context must be current."""
        ...

    def buffer(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> PinnedBuffer:
        """Pinned memory. The context must be current."""
        ...

    def memory(self, size: int) -> DeviceBuffer:
        """Device memory of ``size`` bytes. The context must be current."""
        ...

    def kernels(self, code: bytes, arguments: Mapping[str, str]) -> list[Kernel]:
        """The kernels of a module, a cubin or PTX. The context must be current.

        ``arguments``: name → a letter per argument, ``P`` for an address, ``i`` for an int of 32 bits.
        """
        ...

    def close(self) -> None:
        """Release the context."""
        ...


def require_cuda() -> None:
    """Raise MissingDependencyError if no library that provides CUDA is installed. Imports none."""
    if not CUDA.is_installed():
        raise _missing("neither PyCUDA nor cuda.core is installed")


def refuse_driver_of_cuda() -> None:
    """Raise BackendError if the driver is too old for the library that ``open_cuda`` takes; PyCUDA's need is not recorded."""
    if importlib.util.find_spec("pycuda") is None:
        refuse_bindings()


def refuse_bindings() -> None:
    """Raise BackendError if the driver is older than the CUDA of cuda.core's bindings, whose calls it would not have."""
    version = installed_version("cuda-bindings")
    if version is not None:
        remedy = CUDA.alternatives[0].remedy
        refuse_old_driver(int(version.partition(".")[0]), f"cuda-bindings {version}", instead=remedy)


def open_cuda() -> Cuda:
    """The first GPU, with the first library of ``OWNERS`` that can be imported.

    Raises MissingDependencyError if none can, and BackendError if the driver does not start or is too old for the library.
    """
    failures = []
    for library, module in OWNERS.items():
        try:
            owner = importlib.import_module(module)
        except ImportError as error:
            if is_out_of_memory(error):
                raise MemoryError from error
            absent = isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == library.partition(".")[0]
            if not absent:
                failures.append(f"{library}: {str(error).partition(chr(10))[0]}")
            continue
        if failures:
            _log.warning("CUDA is used through %s; %s", library, "; ".join(failures))
        else:
            _log.info("CUDA is used through %s", library)
        opened: Cuda = owner.Cuda()
        return opened
    raise _missing("; ".join(["neither PyCUDA nor cuda.core can be imported", *failures]))


def _missing(message: str) -> MissingDependencyError:
    rtx, tensorrt = CUDA.alternatives[0].remedy, CUDA.remedy
    return MissingDependencyError(message, hint=f"{rtx} needs no compiler; {tensorrt} compiles PyCUDA with the CUDA toolkit")
