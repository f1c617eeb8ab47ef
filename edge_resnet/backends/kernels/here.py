"""The kernels for the GPU at hand, made when they are first wanted. Where that fails it says so once, and None is the answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from edge_resnet.backends.kernels import compile_kernels
from edge_resnet.core.errors import EdgeResnetError
from edge_resnet.device.machine import cache_folder, find_nvcc

__all__ = ["Kernels"]

_log = logging.getLogger(__name__)


class Kernels:
    """Of a GPU of that compute capability, such as ``8.7``. May be asked from several threads.

    ``check``: raises one of edge_resnet.core.errors where the GPU does not take the compiled kernels.
    """

    def __init__(self, compute_capability: str, check: Callable[[bytes], None]) -> None:
        self._compute_capability = compute_capability
        self._check = check
        self._cubin: bytes | None = None
        self._asked = False
        self._lock = threading.Lock()

    def cubin(self) -> bytes | None:
        """The compiled kernels, from the cache or compiled now; None where there is no compiler, it fails, or the GPU refuses."""
        with self._lock:
            if not self._asked:
                self._cubin = self._made()
                self._asked = True
        return self._cubin

    def _made(self) -> bytes | None:
        nvcc = find_nvcc()
        if nvcc is None:
            _log.warning("frames are resized on the processor: nvcc is not here (edge-resnet doctor says how to get it)")
            return None
        try:
            cubin = compile_kernels(nvcc, self._compute_capability, cache_folder() / "kernels").read_bytes()
            self._check(cubin)
        except (EdgeResnetError, OSError) as error:
            _log.warning("frames are resized on the processor: %s", str(error).partition("\n")[0])
            return None
        return cubin
