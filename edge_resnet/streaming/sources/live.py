"""A source whose frames come when they come, read in a thread of its own so that nothing waits longer than it says.

Knows no camera and no protocol: those are feeds. OpenCV can neither be interrupted nor closed while it reads, and some of its
readers know no timeout; so whoever iterates waits for the thread, and may stop waiting.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from edge_resnet.core.errors import EdgeResnetError, SourceError
from edge_resnet.streaming.records import Frame
from edge_resnet.streaming.sources.uri import Timeouts

__all__ = ["Feed", "LiveSource", "Shot"]

_log = logging.getLogger(__name__)

#: Beyond the patience for a frame: what a reader needs to notice that its time is over.
_GRACE_S = 1.0


class Shot(NamedTuple):
    """One image (H, W, 3) uint8 BGR, and when it was captured on the monotonic clock."""

    image: npt.NDArray[np.uint8]
    captured_ns: int


class Feed(Protocol):
    """What delivers images. ``open``, ``read`` and ``close`` are called by one thread, ``interrupt`` by any."""

    @property
    def lost(self) -> int:
        """Images that came and could not be read."""
        ...

    def open(self) -> None:
        """Connect. Raises SourceError that says why not."""
        ...

    def read(self) -> Shot:
        """Wait for the next image. Raises SourceError where no more will come."""
        ...

    def interrupt(self) -> None:
        """Make ``open`` and ``read`` return soon, where that is possible."""
        ...

    def close(self) -> None:
        """Let go of the device or the connection; also where ``open`` failed."""
        ...


class LiveSource:
    """The frames of a feed under ``name``, the first of which is there once the constructor returns.

    A frame waits for its reader, and the next is taken when it is gone: whoever must not be late reads all the time. Raises
    SourceError where the feed fails, or where a frame does not come in time; ``hint`` is the remedy of the latter.
    """

    live = True

    def __init__(self, name: str, feed: Feed, patience: Timeouts, hint: str) -> None:
        self.dropped = 0
        self._name, self._feed, self._patience, self._hint = name, feed, patience, hint
        self._changed = threading.Condition()
        self._shot: Shot | None = None
        self._error: EdgeResnetError | None = None
        self._closed = False
        self._index = 0
        # A daemon: a driver that never returns must not keep the process alive.
        self._thread = threading.Thread(target=self._work, name=f"read {name}", daemon=True)
        self._thread.start()
        # Python ends a process hard (SIGABRT) where OpenCV comes back to a thread that was left behind.
        atexit.register(self.close)
        try:
            with self._changed:
                self._await(patience.open_s, f"gave no frame within {patience.open_s:g} s")
                if self._shot is None and self._error is not None:
                    raise self._error
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Frame]:
        while True:
            with self._changed:
                self._await(self._patience.read_s, f"gave no frame for {self._patience.read_s:g} s")
                if self._closed:
                    return
                shot, self._shot = self._shot, None
                if shot is None:
                    assert self._error is not None
                    raise self._error
                self._changed.notify_all()
            yield Frame(shot.image, self._index, shot.captured_ns, self._name)
            self._index += 1

    def close(self) -> None:
        """End the iteration, in whichever thread, at once; then wait for the reader to let go, as long as a frame may take."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._feed.interrupt()
        self._thread.join(self._patience.read_s + _GRACE_S)
        if self._thread.is_alive():
            _log.warning("%s does not let go of its device", self._name)
        else:
            atexit.unregister(self.close)

    def __enter__(self) -> LiveSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()

    def _await(self, seconds: float, complaint: str) -> None:
        """Wait, with the lock held, until there is a frame, an error or an end."""
        done = self._changed.wait_for(lambda: self._closed or self._shot is not None or self._error is not None, seconds)
        self.dropped = self._feed.lost
        if not done:
            lost = f" that can be read, and {self.dropped} that cannot" if self.dropped else ""
            self._error = SourceError(f"{self._name} {complaint}{lost}", hint=self._hint)
            self._feed.interrupt()
            raise self._error

    def _work(self) -> None:
        try:
            self._feed.open()
            while self._hand_over(self._feed.read()):
                pass
        except EdgeResnetError as error:
            self._fail(error)
        except Exception as error:  # OpenCV's; their text may hold the URI, password and all
            _log.debug("%s failed with %s", self._name, type(error).__name__)
            self._fail(SourceError(f"{self._name} failed ({type(error).__name__})", hint=self._hint))
        finally:
            with suppress(Exception):
                self._feed.close()

    def _hand_over(self, shot: Shot) -> bool:
        with self._changed:
            self._shot = shot
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed or self._error is not None or self._shot is None)
            return not self._closed and self._error is None

    def _fail(self, error: EdgeResnetError) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()
