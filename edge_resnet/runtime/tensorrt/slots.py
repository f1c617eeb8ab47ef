"""One place where a batch runs: an execution context, a stream and buffers for the largest batch. Knows one batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from edge_resnet.core.errors import BackendError
from edge_resnet.images.preprocess import ImageArray
from edge_resnet.runtime.backend import Images, Logits
from edge_resnet.runtime.tensorrt.cuda import Cuda, PinnedBuffer, StreamTimer
from edge_resnet.runtime.tensorrt.cudagraph import Graph, Recorder
from edge_resnet.runtime.tensorrt.resize import GpuResize

__all__ = ["Bindings", "Slot"]

#: What is queued with the network: copies of images and logits, of logits alone, or none.
Copies: TypeAlias = Literal["both", "back", "none"]

#: TensorRT's name of a type → NumPy's; trt.nptype fails with newer NumPy in old versions.
_DTYPES = {"FLOAT": np.float32, "HALF": np.float16, "UINT8": np.uint8}
#: Graphs kept per slot: each holds memory of the driver's, and a caller has few batch sizes.
_GRAPHS = 8


class Bindings:
    """Names, types and batches of an engine's one input and one output, by the named-tensor API that every version has."""

    def __init__(self, trt: Any, engine: Any) -> None:
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        outputs = [name for name in names if name not in inputs]
        if len(inputs) != 1 or len(outputs) != 1:
            raise BackendError(
                f"the engine has {len(inputs)} inputs and {len(outputs)} outputs", hint="compile the artifact again"
            )
        (self.input,), (self.output,) = inputs, outputs
        least, _, most = engine.get_tensor_profile_shape(self.input, 0)
        self.least, self.most = int(least[0]), int(most[0])
        self.image = tuple(int(size) for size in most[1:])
        self.classes = int(engine.get_tensor_shape(self.output)[-1])
        self.dtype = _DTYPES[engine.get_tensor_dtype(self.output).name]


class Slot:
    """Starts a batch and waits for it; between the two the GPU works and the caller need not.

    A batch size that comes again is recorded as a graph, and launched as one from then on.
    """

    def __init__(self, cuda: Cuda, engine: Any, bindings: Bindings, recorder: Recorder | None = None) -> None:
        self._bindings = bindings
        self._context = engine.create_execution_context()
        if self._context is None:
            raise BackendError("TensorRT gives no execution context", hint="close other programs: it needs GPU memory of its own")
        self._stream = cuda.stream()
        self._laps: StreamTimer | None = cuda.laps()
        self._copies = not cuda.mapped
        self._shape = 0
        self._recorder = recorder
        #: By batch size and copies; None where such a batch ran once and was not recorded yet.
        self._graphs: dict[tuple[int, Copies], Graph | None] = {}
        self._resize: GpuResize | None = None
        self._buffers: list[PinnedBuffer] = []
        rows = ((bindings.input, bindings.image, np.uint8), (bindings.output, (bindings.classes,), bindings.dtype))
        try:
            for name, row, dtype in rows:
                self._buffers.append(cuda.buffer((bindings.most, *row), dtype))
                if not self._context.set_tensor_address(name, self._buffers[-1].address):
                    raise BackendError(f"TensorRT does not take the memory of {name}", hint="edge-resnet doctor")
        except BaseException:
            self.free()
            raise
        self._images, self._logits = self._buffers

    def start(self, images: Images) -> None:
        """Queue copy, network and copy back of up to the largest batch. The GPU's context must be current."""
        count = max(len(images), self._bindings.least)
        self._images.host[: len(images)] = images
        self._run(count, "both")

    def start_frames(self, frames: Sequence[ImageArray], make_resize: Callable[[], GpuResize]) -> None:
        """The same of frames as captured, which the GPU preprocesses; ``make_resize`` is asked once."""
        if self._resize is None:
            self._resize = make_resize()
        self._resize.queue(frames, self._images.address, self._stream)
        self._run(max(len(frames), self._bindings.least), "back")

    def start_timed(self, images: Images) -> None:
        """As ``start``, with the GPU's own times of each part, which ``split`` gives after ``finish``."""
        count = max(len(images), self._bindings.least)
        self._images.host[: len(images)] = images
        laps, stream = self._laps, self._stream
        assert laps is not None, "the slot was freed"
        laps.begin(stream)
        self._images.to_device(stream, count)
        laps.take(stream)
        self._run(count, "none")
        laps.take(stream)
        self._logits.to_host(stream, count)
        laps.take(stream)

    def split(self) -> dict[str, float]:
        """Milliseconds of ``h2d``, ``compute`` and ``d2h`` of what ``start_timed`` began; no copies where memory is shared."""
        assert self._laps is not None, "the slot was freed"
        h2d, compute, d2h = self._laps.milliseconds()
        return {"h2d": h2d, "compute": compute, "d2h": d2h} if self._copies else {"compute": compute}

    def finish(self, count: int) -> Logits:
        """Wait, and return the first ``count`` rows, the caller's to keep."""
        self._stream.synchronize()
        return np.array(self._logits.host[:count], np.float32)

    def drain(self) -> None:
        """Wait for what may still run; a failed one is over too."""
        self._stream.synchronize()

    def free(self) -> None:
        """Give memory and context back, in the order in which they depend on each other. The GPU's context must be current."""
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
        self._laps = None
        self._stream = None

    def _run(self, count: int, copies: Copies) -> None:
        """Queue the network with those copies before and after it."""
        graph = self._graphs.get((count, copies))
        if graph is not None:
            graph.launch(self._stream.handle)
            return
        if count != self._shape:
            self._shape = 0  # what a failure leaves behind is not known
            if not self._context.set_input_shape(self._bindings.input, (count, *self._bindings.image)):
                raise BackendError(f"TensorRT does not take a batch of {count}", hint="compile with a larger --batch")
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
        """Record the batch size that runs for the second time, right after it ran: TensorRT allocates in the first run after a
        change of shape, which cannot be recorded."""
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
