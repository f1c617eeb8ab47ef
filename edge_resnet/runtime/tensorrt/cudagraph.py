"""CUDA graphs through the CUDA driver API: work on a stream is captured once and then launched as a whole.

Uses ctypes, because PyCUDA has no calls for graphs, and takes a stream's handle, so that it serves cuda.core too. A graph saves
the CPU's time for launching each kernel. Does not know about TensorRT, PyCUDA or cuda.core.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from contextlib import suppress

from edge_resnet.core.errors import BackendError
from edge_resnet.device.gpu import LIBRARY

__all__ = ["Graph", "Recorder"]

#: CU_STREAM_CAPTURE_MODE_THREAD_LOCAL of the CUDA driver API: calls of other threads are neither captured nor forbidden.
_THREAD_LOCAL = 1
_POINTER = ctypes.c_void_p
_CALLS: dict[str, tuple[type, ...]] = {
    "cuStreamBeginCapture_v2": (_POINTER, ctypes.c_int),
    "cuStreamEndCapture": (_POINTER, ctypes.POINTER(_POINTER)),
    "cuGraphInstantiateWithFlags": (ctypes.POINTER(_POINTER), _POINTER, ctypes.c_ulonglong),
    "cuGraphLaunch": (_POINTER, _POINTER),
    "cuGraphExecDestroy": (_POINTER,),
    "cuGraphDestroy": (_POINTER,),
}
_log = logging.getLogger(__name__)


class Graph:
    """Captured work. It uses the addresses that it was captured with, which must stay valid as long as the graph is launched."""

    def __init__(self, cuda: ctypes.CDLL, executable: ctypes.c_void_p) -> None:
        self._cuda = cuda
        self._executable: ctypes.c_void_p | None = executable

    def launch(self, stream: int) -> None:
        """Queue it on the stream with that handle. The CUDA context must be current. Raises BackendError."""
        _call(self._cuda, "cuGraphLaunch", self._executable, stream)

    def free(self) -> None:
        """Free it; it must not be running. May be called again."""
        executable, self._executable = self._executable, None
        if executable is not None:
            with suppress(BackendError):
                _call(self._cuda, "cuGraphExecDestroy", executable)


class Recorder:
    """Captures work as graphs until that fails once: some layers (those of the DLA, loops) cannot be captured."""

    def __init__(self, library: str = LIBRARY) -> None:
        try:
            self._cuda = ctypes.CDLL(library)
            for name, types in _CALLS.items():
                getattr(self._cuda, name).argtypes = types
        except (OSError, AttributeError) as error:
            self._give_up(error)
        else:
            self.works = True

    def record(self, stream: int, work: Callable[[], None]) -> Graph | None:
        """Capture what ``work`` queues on the stream with that handle, without running it; None if it cannot be captured.

        ``work`` must have run once before, so that it allocates nothing. The CUDA context must be current, and the stream must
        not be the default one.
        """
        if not self.works:
            return None
        try:
            return self._recorded(stream, work)
        except Exception as error:  # next time the work runs without a graph, and raises it there
            self._give_up(error)
            return None

    def _recorded(self, stream: int, work: Callable[[], None]) -> Graph:
        graph, executable = _POINTER(), _POINTER()
        _call(self._cuda, "cuStreamBeginCapture_v2", stream, _THREAD_LOCAL)
        try:
            try:
                work()
            finally:
                # A stream that is left in capture mode accepts no other work.
                ended = self._cuda.cuStreamEndCapture(stream, ctypes.byref(graph))
            if ended or not graph:
                raise BackendError(f"cuStreamEndCapture gave error {ended}")
            _call(self._cuda, "cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
        finally:
            if graph:
                with suppress(BackendError):
                    _call(self._cuda, "cuGraphDestroy", graph)
        return Graph(self._cuda, executable)

    def _give_up(self, error: Exception) -> None:
        self.works = False
        _log.warning("CUDA graphs are off, each kernel is launched by itself: %s", str(error).partition("\n")[0])


def _call(cuda: ctypes.CDLL, name: str, *arguments: object) -> None:
    result = int(getattr(cuda, name)(*arguments))
    if result:
        raise BackendError(f"{name} gave error {result}", hint="edge-resnet doctor checks the GPU; a restart clears a fault")
