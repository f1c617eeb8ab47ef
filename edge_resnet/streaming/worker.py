"""Batches on their way through the backend: prepared by the caller, run in a thread of its own, both at once. Opens no source."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import Preprocess
from edge_resnet.images.preprocess import ImageArray, preprocess_bgr
from edge_resnet.runtime.backend import Backend, Logits, PipelinedBackend
from edge_resnet.streaming.filereader import Taken

__all__ = ["Batch", "Roi", "Worker"]

#: How much the newest duration counts in the expected one.
_NEWEST = 0.2


@dataclass(frozen=True)
class Roi:
    """The part of a frame that is classified, in pixels."""

    x: int
    y: int
    width: int
    height: int

    def __post_init__(self) -> None:
        if min(self.x, self.y) < 0 or min(self.width, self.height) < 1:
            raise ConfigError(f"a region of {self.width}x{self.height} at {self.x},{self.y} is none", hint="--roi 100,50,640,480")

    def of(self, image: ImageArray) -> ImageArray:
        """The part, as a view. Raises ConfigError where it does not lie in the image."""
        height, width = image.shape[:2]
        if self.x + self.width > width or self.y + self.height > height:
            raise ConfigError(
                f"the region {self.x},{self.y},{self.width},{self.height} does not lie in a frame of {width}x{height}",
                hint="--roi x,y,width,height in pixels of the frame",
            )
        return image[self.y : self.y + self.height, self.x : self.x + self.width]


@dataclass
class Batch:
    """Frames that are classified at once; times on time.perf_counter_ns."""

    taken: list[Taken]
    run: Callable[[], Logits]
    taken_ns: int
    prepared_ns: int
    #: 0 until it runs.
    begun_ns: int
    done_ns: int = 0
    logits: Logits | None = None
    error: BaseException | None = None


@dataclass
class Worker:
    """Runs batches one after another; ``news`` is told when one is done. ``close`` ends the thread."""

    backend: Backend
    preprocess: Preprocess
    roi: Roi | None
    news: threading.Condition
    #: Seconds that a batch is expected to be prepared and to be run.
    preparing_s: float = 0.0
    running_s: float = 0.0
    _under_way: deque[Batch] = field(default_factory=deque)
    _queue: queue.SimpleQueue[Batch | None] = field(default_factory=queue.SimpleQueue)

    def __post_init__(self) -> None:
        # Asked once: a protocol is looked up name by name.
        self._pipelined = self.backend if isinstance(self.backend, PipelinedBackend) else None
        self._thread = threading.Thread(target=self._serve, name="inference", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Batches under way."""
        return len(self._under_way)

    def at_once(self, wanted: int) -> int:
        """How many frames make a batch, where ``wanted`` are wished for: a device's engine has its limit."""
        return wanted if self._pipelined is None else min(wanted, self._pipelined.max_batch)

    def start(self, taken: Sequence[Taken]) -> None:
        """Prepare frames and hand them over."""
        taken_ns = time.perf_counter_ns()
        images = [frame.image if self.roi is None else self.roi.of(frame.image) for frame, _ in taken]
        backend, begun_ns = self._pipelined, 0
        if backend is not None and backend.resizes:
            begun_ns = prepared_ns = taken_ns  # preprocessing is a part of what the device does
            run = partial(backend.result, backend.submit_frames(images))
        else:
            pixels = np.stack([preprocess_bgr(image, self.preprocess) for image in images])
            prepared_ns = time.perf_counter_ns()
            if backend is not None:
                begun_ns = prepared_ns
                run = partial(backend.result, backend.submit(pixels))
            else:
                run = partial(self.backend.infer, pixels)
        batch = Batch(list(taken), run, taken_ns, prepared_ns, begun_ns)
        self.preparing_s = _blend(self.preparing_s, (time.perf_counter_ns() - taken_ns) / 1e9)
        self._under_way.append(batch)
        self._queue.put(batch)

    def is_done(self) -> bool:
        """Whether ``finished`` would give a batch."""
        return bool(self._under_way) and self._under_way[0].done_ns > 0

    def finished(self) -> Batch | None:
        """The oldest batch, where it is done; raises what its run raised."""
        if not self.is_done():
            return None
        batch = self._under_way.popleft()
        if batch.error is not None:
            raise batch.error
        self.running_s = _blend(self.running_s, (batch.done_ns - batch.begun_ns) / 1e9)
        return batch

    def left_s(self) -> float:
        """Seconds until the one batch that runs is expected to be done."""
        if not self._under_way or not self._under_way[0].begun_ns:
            return self.running_s
        return max(0.0, self.running_s - (time.perf_counter_ns() - self._under_way[0].begun_ns) / 1e9)

    def oldest_s(self) -> float:
        """Seconds since the oldest batch that is under way was taken; 0 where there is none."""
        return (time.perf_counter_ns() - self._under_way[0].taken_ns) / 1e9 if self._under_way else 0.0

    def close(self, within_s: float) -> None:
        """End the thread once the batches are through, or leave it after so many seconds."""
        self._queue.put(None)
        self._thread.join(within_s)

    def _serve(self) -> None:
        while (batch := self._queue.get()) is not None:
            batch.begun_ns = batch.begun_ns or time.perf_counter_ns()
            try:
                batch.logits = batch.run()
            except BaseException as error:  # raised again in the loop's thread
                batch.error = error
            with self.news:
                batch.done_ns = time.perf_counter_ns()
                self.news.notify_all()


def _blend(expected: float, newest: float) -> float:
    return newest if expected == 0.0 else expected + _NEWEST * (newest - expected)
