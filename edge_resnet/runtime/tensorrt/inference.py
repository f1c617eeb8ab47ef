"""Runs a TensorRT engine in two slots: the copies of one batch overlap the network of another.

``infer`` takes any batch from any thread; ``submit`` and ``result`` let a caller keep the GPU busy. Both take preprocessed
images, or frames as captured. Builds no engine.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from edge_resnet.core.errors import BackendError, ConfigError, EdgeResnetError, IncompatibleEngineError
from edge_resnet.device.gpu import first_gpu
from edge_resnet.images.preprocess import ImageArray, preprocess_bgr
from edge_resnet.runtime.backend import Images, Logits, check_images
from edge_resnet.runtime.tensorrt.cuda import open_cuda
from edge_resnet.runtime.tensorrt.cudagraph import Recorder
from edge_resnet.runtime.tensorrt.gate import make_runtime
from edge_resnet.runtime.tensorrt.kernels import Kernels
from edge_resnet.runtime.tensorrt.library import library_of, load_library
from edge_resnet.runtime.tensorrt.log import log_to_python
from edge_resnet.runtime.tensorrt.native import NativeLibrary
from edge_resnet.runtime.tensorrt.plans import Contexts, PlanLibrary, StoredPlan, runtime_cache
from edge_resnet.runtime.tensorrt.resize import GpuResize
from edge_resnet.runtime.tensorrt.slots import Bindings, Slot

__all__ = ["TensorRtBackend", "Ticket"]

_SLOTS = 2
_logger = logging.getLogger(__name__)
_TENSORRT = NativeLibrary()


@dataclass(eq=False)
class Ticket:
    """A running batch, for one call of ``result``."""

    slot: Slot | None
    count: int


class TensorRtBackend:
    """An engine on the first GPU. ``submit`` waits while every slot is busy; ``result`` makes a ticket's slot free again.

    ``library``: the one that built the plan. ``slots``: batches that run at once. ``graphs``: launch batch sizes that are used
    again as CUDA graphs.
    """

    def __init__(self, plan: StoredPlan, library: PlanLibrary = _TENSORRT, *, slots: int = _SLOTS, graphs: bool = True) -> None:
        gpu = first_gpu()
        self.name = library.backend
        self.classes = plan.classes
        self._trt = load_library(library.name)
        self._library = library
        self._plan = plan
        self._input_size = plan.preprocess.crop
        self._max_batch = 0
        self._log = log_to_python(self._trt)
        self._runtime: Any = None
        self._engine: Any = None
        self._contexts: Contexts | None = None
        #: Whether a batch has run, and whether what the first ones compiled has been stored.
        self._ran, self._stored = False, False
        self._slots: list[Slot] = []
        self._kernels = Kernels(gpu.compute_capability, self._check_kernels)
        #: None wakes the threads that wait for a slot, when the backend is closed.
        self._free: queue.SimpleQueue[Slot | None] = queue.SimpleQueue()
        self._closed, self._working = False, 0
        self._idle = threading.Condition()
        self._cuda = open_cuda()
        try:
            self._open(slots, runtime_cache(plan.key, gpu), graphs=graphs)
        except BaseException:
            self.close()
            raise

    @property
    def max_batch(self) -> int:
        """The engine's largest batch."""
        return self._max_batch

    @property
    def resizes(self) -> bool:
        """Whether frames are preprocessed on the GPU, or else on the CPU. The first call may compile kernels."""
        return self._kernels.module() is not None

    def infer(self, images: Images) -> Logits:
        """(N, H, W, 3) uint8 RGB → logits (N, classes) float32, which belong to the caller. N may exceed the largest batch."""
        check_images(images, self._input_size, closed=self._closed)
        return self._infer(images)

    def infer_timed(self, images: Images) -> tuple[Logits, dict[str, float]]:
        """As ``infer``, one piece after another, with milliseconds of ``h2d``, ``compute`` and ``d2h`` on the GPU's clock.

        On an integrated GPU nothing is copied, and there is only ``compute``.
        """
        check_images(images, self._input_size, closed=self._closed)
        found: list[Logits] = []
        split: dict[str, float] = {}
        for start in range(0, len(images), self._max_batch):
            piece = images[start : start + self._max_batch]
            slot = self._a_slot(wait=True)
            assert slot is not None
            try:
                with self._at_work("the GPU failed while it ran the network"):
                    slot.start_timed(piece)
                    found.append(self._finished(slot, len(piece)))
                    for part, milliseconds in slot.split().items():
                        split[part] = split.get(part, 0.0) + milliseconds
            finally:
                self._free.put(slot)
        return np.concatenate(found), split

    def infer_frames(self, frames: Sequence[ImageArray]) -> Logits:
        """Frames as captured, (H, W, 3) uint8 BGR of any sizes → logits (N, classes) float32, which belong to the caller.

        They are preprocessed as the artifact says, on the GPU if ``resizes``, to the same bytes. Raises ConfigError for a frame
        of another shape or dtype.
        """
        if not frames:
            raise ConfigError("there is no frame to run", hint="give at least one")
        return self._infer(frames) if self.resizes else self.infer(self._preprocessed(frames))

    def submit(self, images: Images) -> Ticket:
        """Start a batch of at most ``max_batch`` images. Raises ConfigError for more."""
        check_images(images, self._input_size, closed=self._closed)
        return self._submit(images)

    def submit_frames(self, frames: Sequence[ImageArray]) -> Ticket:
        """Start a batch of frames as captured; the caller may reuse them when this returns."""
        if not frames:
            raise ConfigError("there is no frame to run", hint="give at least one")
        return self._submit(frames) if self.resizes else self.submit(self._preprocessed(frames))

    def result(self, ticket: Ticket) -> Logits:
        """Wait for a batch: logits (N, classes) float32, which belong to the caller. Raises BackendError for a used ticket."""
        slot, ticket.slot = ticket.slot, None
        if slot is None or self._closed:
            raise BackendError(
                "this ticket was used, or its backend was closed", hint="call result once per ticket, before close"
            )
        try:
            with self._at_work("the GPU failed while it ran the network"):
                return self._finished(slot, ticket.count)
        finally:
            self._free.put(slot)

    def close(self) -> None:
        """Free the engine and the GPU's memory, once running batches have ended. May be called again."""
        with self._idle:
            if self._closed:
                return
            self._closed = True
            self._idle.wait_for(lambda: self._working == 0)
        self._free.put(None)
        try:
            with suppress(BackendError), self._cuda.current("the GPU failed while it was closed"):
                for slot in self._slots:
                    with suppress(Exception):  # a batch that failed has ended too
                        slot.drain()
                if self._ran and self._contexts is not None:
                    with suppress(Exception):  # the GPU may have failed
                        self._contexts.keep()
                for slot in self._slots:
                    slot.free()
                self._slots.clear()
                self._contexts = None
                self._engine = None
                self._runtime = None
        finally:
            self._cuda.close()

    def __enter__(self) -> TensorRtBackend:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()

    def _open(self, slots: int, cache: Path, *, graphs: bool) -> None:
        title, again = library_of(self._trt).title, f"edge-resnet compile ARTIFACT --backend {self.name}"
        with self._cuda.current("the engine cannot be opened"):
            self._runtime = make_runtime(self._trt, self._log)
            self._library.check(self._trt, self._runtime, self._plan.content)
            self._runtime.engine_host_code_allowed = self._plan.own_code
            self._engine = self._runtime.deserialize_cuda_engine(self._plan.content)
            if self._engine is None:
                raise IncompatibleEngineError(
                    f"{title} {self._trt.__version__} cannot open the engine: {self._log.last()}", hint=again
                )
            bindings = Bindings(self._trt, self._engine)
            if bindings.classes != self.classes or bindings.image != (self._input_size, self._input_size, 3):
                raise IncompatibleEngineError(
                    f"the engine belongs to another network: {bindings.image} → {bindings.classes} classes", hint=again
                )
            self._max_batch = bindings.max_batch
            self._contexts = self._library.contexts(self._trt, self._engine, cache, graphs=graphs)
            recorder = Recorder() if graphs and not self._contexts.captures else None
            for _ in range(slots):
                self._slots.append(Slot(self._cuda, self._contexts, bindings, recorder))
        for slot in self._slots:
            self._free.put(slot)

    def _finished(self, slot: Slot, count: int) -> Logits:
        """The logits of a slot. What the first batch compiled is stored after it: a process may be killed before it closes.

        Not while another thread starts a batch, and no thread starts one meanwhile: what it compiles would be half in the cache.
        """
        logits = slot.finish(count)
        with self._idle:
            self._ran = True
            if not self._stored and self._working == 1:
                assert self._contexts is not None
                self._stored = True
                self._contexts.keep()
        return logits

    def _preprocessed(self, frames: Sequence[ImageArray]) -> Images:
        return np.stack([preprocess_bgr(frame, self._plan.preprocess) for frame in frames])

    def _infer(self, batch: Images | Sequence[ImageArray]) -> Logits:
        pending: deque[Ticket] = deque()
        found: list[Logits] = []
        try:
            for start in range(0, len(batch), self._max_batch):
                piece = batch[start : start + self._max_batch]
                # A thread that holds a slot does not wait for another one: two such threads would wait for each other.
                slot = self._a_slot(wait=not pending)
                while slot is None:
                    found.append(self.result(pending.popleft()))
                    slot = self._a_slot(wait=not pending)
                pending.append(self._start(slot, piece))
            while pending:
                found.append(self.result(pending.popleft()))
        finally:
            while pending:
                with suppress(EdgeResnetError):
                    self.result(pending.popleft())
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _submit(self, batch: Images | Sequence[ImageArray]) -> Ticket:
        if len(batch) > self._max_batch:
            raise ConfigError(
                f"the engine takes at most {self._max_batch} images, not {len(batch)}", hint="infer takes any number"
            )
        slot = self._a_slot(wait=True)
        assert slot is not None
        return self._start(slot, batch)

    def _start(self, slot: Slot, batch: Images | Sequence[ImageArray]) -> Ticket:
        """``batch``: an array of preprocessed images, or a sequence of frames."""
        try:
            with self._at_work("the GPU failed while it started the network"):
                if isinstance(batch, np.ndarray):
                    slot.start(batch)
                else:
                    slot.start_frames(batch, self._resize)
        except BaseException:
            self._free.put(slot)
            raise
        return Ticket(slot, len(batch))

    def _check_kernels(self, module: bytes) -> None:
        with self._at_work("the GPU refuses the kernels"):
            GpuResize(self._cuda, module, self._plan.preprocess, 1).free()

    def _resize(self) -> GpuResize:
        """The preprocessing of one slot, made when its first frames arrive."""
        module = self._kernels.module()
        assert module is not None
        return GpuResize(self._cuda, module, self._plan.preprocess, self._max_batch)

    def _a_slot(self, *, wait: bool) -> Slot | None:
        """A free slot; None if there is none now and ``wait`` is false. Raises BackendError if the backend is closed."""
        try:
            slot = self._free.get(block=wait)
        except queue.Empty:
            return None
        if slot is None:
            self._free.put(None)  # for the next thread that waits
            raise BackendError("this backend was closed", hint="open the artifact again")
        return slot

    @contextmanager
    def _at_work(self, doing: str) -> Iterator[None]:
        """Delay ``close`` and make the CUDA context current during the block."""
        with self._idle:
            if self._closed:
                raise BackendError("this backend is closed", hint="open the artifact again")
            self._working += 1
        try:
            with self._cuda.current(doing):
                yield
        finally:
            with self._idle:
                self._working -= 1
                self._idle.notify_all()
