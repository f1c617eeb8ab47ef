"""A slot runs one batch at a time: an execution context, a CUDA stream, and pinned memory for the largest batch.

Does not know about threads, or about other slots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from edge_resnet.core.errors import BackendError
from edge_resnet.images.preprocess import ImageArray
from edge_resnet.runtime.backend import Images, Logits
from edge_resnet.runtime.tensorrt.cuda import Cuda, PinnedBuffer, StreamTimer
from edge_resnet.runtime.tensorrt.cudagraph import Graph, Recorder
from edge_resnet.runtime.tensorrt.plans import Contexts
from edge_resnet.runtime.tensorrt.resize import GpuResize

__all__ = ["Bindings", "Slot"]

#: The copies that are queued with the network: of images and logits, of logits alone (D2H), or none.
Copies: TypeAlias = Literal["both", "d2h", "none"]

#: TensorRT's name of a type → NumPy's; trt.nptype of old versions fails with a newer NumPy.
_DTYPES = {"FLOAT": np.float32, "HALF": np.float16, "UINT8": np.uint8}
#: CUDA graphs kept per slot: each takes memory of the driver, and a caller uses few batch sizes.
_GRAPHS = 8


class Bindings:
    """Names, types and batches of an engine's input and output, read with the named-tensor API, which every version has."""

    def __init__(self, trt: Any, engine: Any) -> None:
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        outputs = [name for name in names if name not in inputs]
        if len(inputs) != 1 or len(outputs) != 1:
            raise BackendError(
                f"the engine has {len(inputs)} inputs and {len(outputs)} outputs", hint="compile the artifact again"
            )
        (self.input,), (self.output,) = inputs, outputs
        smallest, _, largest = engine.get_tensor_profile_shape(self.input, 0)
        self.min_batch, self.max_batch = int(smallest[0]), int(largest[0])
        self.image = tuple(int(size) for size in largest[1:])
        self.classes = int(engine.get_tensor_shape(self.output)[-1])
        self.dtype = _DTYPES[engine.get_tensor_dtype(self.output).name]


class Slot:
    """Starts a batch and waits for it; in between, the caller is free while the GPU works.

    A batch size that is used a second time is captured as a CUDA graph, and launched as one from then on.
    """

    def __init__(self, cuda: Cuda, contexts: Contexts, bindings: Bindings, recorder: Recorder | None = None) -> None:
        self._bindings = bindings
        self._context = contexts.create_execution_context()
        if self._context is None:
            raise BackendError("TensorRT gives no execution context", hint="close other programs, it needs GPU memory of its own")
        self._stream: Any = cuda.stream()
        self._timer: StreamTimer | None = cuda.timer()
        self._copies = not cuda.mapped
        self._shape = 0
        self._recorder = recorder
        #: By batch size and copies; None if such a batch has run once and is not captured yet.
        self._graphs: dict[tuple[int, Copies], Graph | None] = {}
        self._resize: GpuResize | None = None
        self._buffers: list[PinnedBuffer] = []
        rows = ((bindings.input, bindings.image, np.uint8), (bindings.output, (bindings.classes,), bindings.dtype))
        try:
            for name, row, dtype in rows:
                self._buffers.append(cuda.buffer((bindings.max_batch, *row), dtype))
                if not self._context.set_tensor_address(name, self._buffers[-1].address):
                    raise BackendError(f"TensorRT does not take the memory of {name}", hint="edge-resnet doctor checks the GPU")
        except BaseException:
            self.free()
            raise
        self._images, self._logits = self._buffers

    def start(self, images: Images) -> None:
        """Queue H2D copy, network and D2H copy of at most the largest batch. The CUDA context must be current."""
        count = max(len(images), self._bindings.min_batch)
        self._images.host[: len(images)] = images
        self._run(count, "both")

    def start_frames(self, frames: Sequence[ImageArray], make_resize: Callable[[], GpuResize]) -> None:
        """As ``start``, with frames as captured, which the GPU preprocesses; ``make_resize`` is called once per slot."""
        if self._resize is None:
            self._resize = make_resize()
        self._resize.queue(frames, self._images.address, self._stream)
        self._run(max(len(frames), self._bindings.min_batch), "d2h")

    def start_timed(self, images: Images) -> None:
        """As ``start``, timing each part on the GPU's clock: ``split`` returns the times after ``finish``."""
        count = max(len(images), self._bindings.min_batch)
        self._images.host[: len(images)] = images
        timer, stream = self._timer, self._stream
        assert timer is not None, "the slot was freed"
        timer.begin(stream)
        self._images.to_device(stream, count)
        timer.mark(stream)
        self._run(count, "none")
        timer.mark(stream)
        self._logits.to_host(stream, count)
        timer.mark(stream)

    def split(self) -> dict[str, float]:
        """Milliseconds of ``h2d``, ``compute`` and ``d2h`` after ``start_timed``; ``compute`` alone if memory is mapped."""
        assert self._timer is not None, "the slot was freed"
        h2d, compute, d2h = self._timer.milliseconds()
        return {"h2d": h2d, "compute": compute, "d2h": d2h} if self._copies else {"compute": compute}

    def finish(self, count: int) -> Logits:
        """Wait, and return the first ``count`` rows of logits, which belong to the caller."""
        self._stream.synchronize()
        return np.array(self._logits.host[:count], np.float32)

    def drain(self) -> None:
        """Wait until nothing runs any more; a batch that failed has ended too."""
        self._stream.synchronize()

    def free(self) -> None:
        """Free memory and execution context, in the order of their dependence. The CUDA context must be current."""
        for graph in self._graphs.values():
            if graph is not None:
                graph.free()
        self._graphs.clear()
        if self._resize is not None:
            self._resize.free()
            self._resize = None
        self._context = None
        while self._buffers:
            self._buffers.pop().free()
        self._timer = None
        self._stream = None

    def _run(self, count: int, copies: Copies) -> None:
        """Queue the network, with copies before and after it."""
        graph = self._graphs.get((count, copies))
        if graph is not None:
            graph.launch(self._stream.handle)
            return
        if count != self._shape:
            self._shape = 0  # the state after a failure is not known
            if not self._context.set_input_shape(self._bindings.input, (count, *self._bindings.image)):
                raise BackendError(
                    f"TensorRT does not take a batch of {count}",
                    hint="edge-resnet build --batch sets the largest batch of an artifact",
                )
            self._shape = count
        self._queue(count, copies)
        self._record(count, copies)

    def _queue(self, count: int, copies: Copies) -> None:
        if copies == "both":
            self._images.to_device(self._stream, count)
        if not self._context.execute_async_v3(self._stream.handle):
            raise BackendError("TensorRT did not run the network", hint="--debug shows TensorRT's log")
        if copies != "none":
            self._logits.to_host(self._stream, count)

    def _record(self, count: int, copies: Copies) -> None:
        """Capture a batch size right after its second run: TensorRT allocates in the first run after a change of shape, which
        cannot be captured."""
        if self._recorder is None or not self._recorder.works:
            return
        key = (count, copies)
        if key not in self._graphs:
            if len(self._graphs) < _GRAPHS:
                self._graphs[key] = None
            return
        self._graphs[key] = self._recorder.record(self._stream.handle, lambda: self._queue(count, copies))
        if self._graphs[key] is None:
            self._shape = 0
