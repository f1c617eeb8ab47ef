"""A live source: its frames are read in a thread of its own, so that no caller waits for a frame longer than the timeout.

Does not know about cameras or protocols: those are captures. OpenCV cannot be interrupted or closed while it reads, and some of
its backends have no timeout. The caller therefore waits for the thread and may stop waiting.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from edge_resnet.core.errors import EdgeResnetError, SourceError
from edge_resnet.streaming.records import Frame
from edge_resnet.streaming.sources.uri import Timeouts

__all__ = ["Capture", "CapturedImage", "HungReaderError", "LiveSource", "end_readers"]

_log = logging.getLogger(__name__)

#: Added to the read timeout when the source is closed: the thread needs this long to notice that it should end.
_GRACE_S = 1.0
#: Sources whose thread runs: a process ends once, so there is one list.
_running: set[LiveSource] = set()


class HungReaderError(SourceError):
    """A source failed, and its reading thread did not end: it hangs in a driver or a decoder. ``thread``: that thread."""

    def __init__(self, error: EdgeResnetError, thread: threading.Thread) -> None:
        super().__init__(error.message, hint=error.hint)
        self.thread = thread


class CapturedImage(NamedTuple):
    """One image (H, W, 3) uint8 BGR, and when it was captured on the monotonic clock."""

    image: npt.NDArray[np.uint8]
    captured_ns: int


class Capture(Protocol):
    """Delivers images. ``open``, ``read`` and ``close`` are called by one thread, ``interrupt`` by any thread."""

    @property
    def lost(self) -> int:
        """Images that arrived and could not be read."""
        ...

    def open(self) -> None:
        """Connect. Raises SourceError with the reason if that fails."""
        ...

    def read(self) -> CapturedImage:
        """Wait for the next image. Raises SourceError if no more will come."""
        ...

    def interrupt(self) -> None:
        """Make ``open`` and ``read`` return soon, if that is possible."""
        ...

    def close(self) -> None:
        """Release the device or the connection; also called after ``open`` failed."""
        ...


@dataclass(frozen=True)
class _Receiver:
    take: Callable[[Frame], bool]
    failed: Callable[[EdgeResnetError], object]


class LiveSource:
    """The frames of ``capture`` under ``name``. The first frame is there when the constructor returns.

    When iterated, a frame is held until it is taken, and only then is the next one read: a caller that needs the newest frame
    uses ``deliver``. Raises SourceError if the capture fails or a frame does not come in time; ``hint`` is the remedy for the
    latter. If the reading thread does not end then, the error is a HungReaderError.
    """

    live = True

    def __init__(self, name: str, capture: Capture, timeouts: Timeouts, hint: str) -> None:
        self._name, self._capture, self._timeouts, self._hint = name, capture, timeouts, hint
        self._changed = threading.Condition()
        self._held: CapturedImage | None = None
        self._receiver: _Receiver | None = None
        self._error: EdgeResnetError | None = None
        self._closed = self._waited = False
        self._index = 0
        # A daemon: a driver that never returns must not keep the process alive.
        self._thread = threading.Thread(target=self._work, name=f"read {name}", daemon=True)
        self._thread.start()
        _running.add(self)
        atexit.unregister(_wait_at_exit)
        atexit.register(_wait_at_exit)
        try:
            with self._changed:
                self._wait(timeouts.open_s, f"gave no frame within {timeouts.open_s:g} s")
                if self._held is None and self._error is not None:
                    raise self._error
        except EdgeResnetError as error:
            self.close()
            if self._thread.is_alive():
                raise HungReaderError(error, self._thread) from error
            raise
        except BaseException:  # Ctrl-C: nobody waits for the camera
            self._end()
            raise

    @property
    def dropped(self) -> int:
        """Images that arrived and could not be read."""
        return self._capture.lost

    def __iter__(self) -> Iterator[Frame]:
        while True:
            with self._changed:
                self._wait(self._timeouts.read_s, f"gave no frame for {self._timeouts.read_s:g} s")
                if self._closed:
                    return
                held, self._held = self._held, None
                if held is None:
                    assert self._error is not None
                    raise self._error
                self._changed.notify_all()
            yield self._next_frame(held)

    def deliver(self, take: Callable[[Frame], bool], failed: Callable[[EdgeResnetError], object]) -> threading.Thread:
        """Call ``take`` with each frame as soon as it is read, until it returns False, and ``failed`` once if no more will come.

        Both are called on the source's own thread, which is returned; if the source has failed already, ``failed`` is called
        before this returns. The source itself no longer applies the read timeout: the caller checks it with ``overdue``.
        """
        with self._changed:
            self._receiver = _Receiver(take, failed)
            error = self._error
            self._changed.notify_all()
        if error is not None:
            failed(error)
        return self._thread

    def overdue(self, waited_s: float) -> SourceError | None:
        """The error for a caller that has waited so long for a frame, None while that is within the read timeout."""
        if waited_s < self._timeouts.read_s:
            return None
        return self._late(f"gave no frame for {self._timeouts.read_s:g} s")

    def close(self) -> None:
        """End the iteration at once, in whichever thread; then wait for the reading thread as long as a frame may take."""
        self._end()
        self._thread.join(self._timeouts.read_s + _GRACE_S)
        self._waited = True
        if self._thread.is_alive():
            _log.warning("%s does not release its device", self._name)

    def __enter__(self) -> LiveSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()

    def _end(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._capture.interrupt()

    def _wait(self, seconds: float, complaint: str) -> None:
        """Wait, with the lock held, until there is a frame, an error or the end."""
        if not self._changed.wait_for(lambda: self._closed or self._held is not None or self._error is not None, seconds):
            self._error = self._late(complaint)
            self._capture.interrupt()
            raise self._error

    def _late(self, complaint: str) -> SourceError:
        unreadable = f" that can be read, and {self.dropped} that cannot" if self.dropped else ""
        return SourceError(f"{self._name} {complaint}{unreadable}", hint=self._hint)

    def _next_frame(self, captured: CapturedImage) -> Frame:
        frame = Frame(captured.image, self._index, captured.captured_ns, self._name)
        self._index += 1
        return frame

    def _work(self) -> None:
        try:
            self._capture.open()
            while self._hand_over(self._capture.read()):
                pass
        except EdgeResnetError as error:
            self._fail(error)
        except Exception as error:  # OpenCV's; the text may hold the URI with its password
            _log.debug("%s failed with %s", self._name, type(error).__name__)
            self._fail(SourceError(f"{self._name} failed ({type(error).__name__})", hint=self._hint))
        finally:
            with suppress(Exception):
                self._capture.close()
            _running.discard(self)

    def _hand_over(self, captured: CapturedImage) -> bool:
        """Deliver an image, or hold it until it is taken; False if no more are wanted."""
        with self._changed:
            if self._receiver is None:
                self._held = captured
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._held is None or self._receiver is not None or self._is_over())
                if self._held is None:
                    return not self._is_over()
                if self._receiver is not None:
                    self._held = None
            if self._is_over():
                return False
            receiver = self._receiver
        return receiver is not None and receiver.take(self._next_frame(captured))

    def _is_over(self) -> bool:
        return self._closed or self._error is not None

    def _fail(self, error: EdgeResnetError) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()
            receiver = self._receiver
        if receiver is not None:
            receiver.failed(error)


def end_readers(within_s: float) -> bool:
    """Interrupt every reading thread of the process, and wait for all of them together; returns whether all have ended."""
    return _end_all(dict.fromkeys(list(_running), within_s))


def _wait_at_exit() -> None:
    """End every reading thread, and wait as long as a frame may take, for all of them together.

    Python aborts the process (SIGABRT) if OpenCV returns to a thread that still runs when the interpreter ends. A thread for
    which ``close`` has waited in vain hangs for good: it is not waited for again.
    """
    _end_all({source: 0.0 if source._waited else source._timeouts.read_s + _GRACE_S for source in list(_running)})


def _end_all(limits: Mapping[LiveSource, float]) -> bool:
    began = time.monotonic()
    for source in limits:
        source._end()
    for source, limit_s in limits.items():
        source._thread.join(max(0.0, began + limit_s - time.monotonic()))
    return not any(source._thread.is_alive() for source in limits)
