"""CUDA graphs through the driver's calls: a stream's work, recorded once, is launched as a whole. Knows no TensorRT, no PyCUDA.

PyCUDA has no calls for graphs, hence ctypes. What a graph saves is the processor's time for launching each kernel.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from contextlib import suppress

from edge_resnet.core.errors import BackendError
from edge_resnet.device.gpu import LIBRARY

__all__ = ["Graph", "Recorder"]

#: CU_STREAM_CAPTURE_MODE_THREAD_LOCAL of the CUDA driver API: what other threads do meanwhile is neither recorded nor forbidden.
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
    """Recorded work, at the addresses that it was recorded with: they must live as long as the graph is launched."""

    def __init__(self, cuda: ctypes.CDLL, executable: ctypes.c_void_p) -> None:
        self._cuda = cuda
        self._executable: ctypes.c_void_p | None = executable

    def launch(self, stream: int) -> None:
        """Queue it on the stream of that handle. The GPU's context must be current. Raises BackendError."""
        _call(self._cuda, "cuGraphLaunch", self._executable, stream)

    def free(self) -> None:
        """Give it back; nothing of it may still run. Harmless when repeated."""
        executable, self._executable = self._executable, None
        if executable is not None:
            with suppress(BackendError):
                _call(self._cuda, "cuGraphExecDestroy", executable)


class Recorder:
    """Records work as graphs, until that fails once: some layers (the DLA's, loops) cannot be, and then none is tried again."""

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
        """What ``work`` queues on the stream of that handle, which is not run; None where it cannot be recorded.

        ``work`` must have run once before, so that nothing is allocated in it. The GPU's context must be current, and the stream
        not CUDA's default one.
        """
        if not self.works:
            return None
        try:
            return self._recorded(stream, work)
        except Exception as error:  # whatever the work raises, it is run without a graph next time, and raises it there
            self._give_up(error)
            return None

    def _recorded(self, stream: int, work: Callable[[], None]) -> Graph:
        graph, executable = _POINTER(), _POINTER()
        _call(self._cuda, "cuStreamBeginCapture_v2", stream, _THREAD_LOCAL)
        try:
            try:
                work()
            finally:
                # A stream that is left in capture mode takes no other work.
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
        _log.warning("without CUDA graphs, each kernel launched by itself: %s", str(error).partition("\n")[0])


def _call(cuda: ctypes.CDLL, name: str, *arguments: object) -> None:
    result = int(getattr(cuda, name)(*arguments))
    if result:
        raise BackendError(f"{name} gave error {result}", hint="edge-resnet doctor looks at the GPU; a restart clears a fault")
