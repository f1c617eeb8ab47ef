"""Batches on their way through the backend: prepared by the caller while another one runs in the worker's thread. Opens no
source."""

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

#: Weight of the newest duration in the expected one.
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
            raise ConfigError(
                f"{self.width}x{self.height} at {self.x},{self.y} is not a region of a frame", hint="--roi 100,50,640,480"
            )

    def fits(self, image: ImageArray) -> bool:
        """Whether it is inside the image."""
        height, width = image.shape[:2]
        return bool(self.x + self.width <= width and self.y + self.height <= height)

    def of(self, image: ImageArray) -> ImageArray:
        """The part, as a view. Raises ConfigError if it is not inside the image."""
        if not self.fits(image):
            height, width = image.shape[:2]
            raise ConfigError(
                f"the region {self.x},{self.y},{self.width},{self.height} is not inside a frame of {width}x{height}",
                hint="--roi x,y,width,height in pixels of the frame",
            )
        return image[self.y : self.y + self.height, self.x : self.x + self.width]


@dataclass
class Batch:
    """Frames that are classified together; times as of time.perf_counter_ns."""

    taken: list[Taken]
    run: Callable[[], Logits]
    taken_ns: int
    prepared_ns: int
    #: 0 until it runs.
    started_ns: int
    done_ns: int = 0
    logits: Logits | None = None
    error: BaseException | None = None


@dataclass
class Worker:
    """Runs batches one after another, and notifies ``news`` when one is done. ``close`` ends the thread."""

    backend: Backend
    preprocess: Preprocess
    roi: Roi | None
    news: threading.Condition
    #: Expected seconds to prepare and to run a batch.
    preparing_s: float = 0.0
    running_s: float = 0.0
    _in_flight: deque[Batch] = field(default_factory=deque)
    _queue: queue.SimpleQueue[Batch | None] = field(default_factory=queue.SimpleQueue)

    def __post_init__(self) -> None:
        # Checked once: isinstance with a protocol looks up each of its members.
        self._pipelined = self.backend if isinstance(self.backend, PipelinedBackend) else None
        self._thread = threading.Thread(target=self._serve, name="inference", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """The number of batches in flight."""
        return len(self._in_flight)

    def batch_size(self, wanted: int) -> int:
        """The largest batch up to ``wanted`` that the backend takes."""
        return wanted if self._pipelined is None else min(wanted, self._pipelined.max_batch)

    def start(self, taken: Sequence[Taken]) -> None:
        """Preprocess frames and queue them as a batch."""
        taken_ns = time.perf_counter_ns()
        images = [frame.image if self.roi is None else self.roi.of(frame.image) for frame, _ in taken]
        backend, started_ns = self._pipelined, 0
        if backend is not None and backend.resizes:
            started_ns = prepared_ns = taken_ns  # the device preprocesses, too
            run = partial(backend.result, backend.submit_frames(images))
        else:
            pixels = np.stack([preprocess_bgr(image, self.preprocess) for image in images])
            prepared_ns = time.perf_counter_ns()
            if backend is not None:
                started_ns = prepared_ns
                run = partial(backend.result, backend.submit(pixels))
            else:
                run = partial(self.backend.infer, pixels)
        batch = Batch(list(taken), run, taken_ns, prepared_ns, started_ns)
        self.preparing_s = _blend(self.preparing_s, (time.perf_counter_ns() - taken_ns) / 1e9)
        self._in_flight.append(batch)
        self._queue.put(batch)

    def is_done(self) -> bool:
        """Whether ``finished`` would return a batch."""
        return bool(self._in_flight) and self._in_flight[0].done_ns > 0

    def finished(self) -> Batch | None:
        """The oldest batch if it is done, else None. Raises what its run raised."""
        if not self.is_done():
            return None
        batch = self._in_flight.popleft()
        if batch.error is not None:
            raise batch.error
        self.running_s = _blend(self.running_s, (batch.done_ns - batch.started_ns) / 1e9)
        return batch

    def left_s(self) -> float:
        """Seconds until the running batch is expected to be done."""
        if not self._in_flight or not self._in_flight[0].started_ns:
            return self.running_s
        return max(0.0, self.running_s - (time.perf_counter_ns() - self._in_flight[0].started_ns) / 1e9)

    def oldest_s(self) -> float:
        """Seconds since the frames of the oldest batch in flight were taken, 0 if there is none."""
        return (time.perf_counter_ns() - self._in_flight[0].taken_ns) / 1e9 if self._in_flight else 0.0

    def close(self, within_s: float) -> None:
        """End the thread when its batches are done, or abandon it after so many seconds."""
        self._queue.put(None)
        self._thread.join(within_s)

    def _serve(self) -> None:
        while (batch := self._queue.get()) is not None:
            batch.started_ns = batch.started_ns or time.perf_counter_ns()
            try:
                batch.logits = batch.run()
            except BaseException as error:  # raised again in the loop's thread
                batch.error = error
            with self.news:
                batch.done_ns = time.perf_counter_ns()
                self.news.notify_all()


def _blend(expected: float, newest: float) -> float:
    return newest if expected == 0.0 else expected + _NEWEST * (newest - expected)
