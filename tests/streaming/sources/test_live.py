"""The thread between a capture and the caller: order, ends, and that nobody waits longer than the timeout."""

from __future__ import annotations

import threading
import time
from itertools import islice

import numpy as np
import pytest

from edge_resnet.core.errors import EdgeResnetError, MissingDependencyError, SourceError
from edge_resnet.streaming.records import Frame
from edge_resnet.streaming.sources.live import CapturedImage, LiveSource
from edge_resnet.streaming.sources.uri import Timeouts

_SOON = Timeouts(open_s=0.6, read_s=0.3)


class _Capture:
    """Delivers ``count`` images and then fails with ``then``, or hangs until it is interrupted."""

    def __init__(self, count: int, then: Exception | None = None, *, deaf: bool = False) -> None:
        self.lost = 0
        self.reads = 0
        self.closed = threading.Event()
        self._count, self._then, self._deaf = count, then, deaf
        self._interrupted = threading.Event()
        self.opens_in_s = 0.0

    def open(self) -> None:
        self._interrupted.wait(self.opens_in_s)

    def read(self) -> CapturedImage:
        if self.reads == self._count:
            if self._then is not None:
                raise self._then
            (threading.Event() if self._deaf else self._interrupted).wait(1.2)
            raise SourceError("interrupted", hint="x")
        self.reads += 1
        return CapturedImage(np.full((2, 2, 3), self.reads, np.uint8), time.monotonic_ns())

    def interrupt(self) -> None:
        self._interrupted.set()

    def close(self) -> None:
        self.closed.set()


def test_every_image_in_order_then_the_error() -> None:
    """Images from before the failure arrive before the error, which stays."""
    capture = _Capture(5, SourceError("the cable broke", hint="mend it"))
    with LiveSource("x", capture, _SOON, "hint") as source:
        assert [int(frame.image[0, 0, 0]) for frame in islice(source, 5)] == [1, 2, 3, 4, 5]
        for _ in range(2):
            with pytest.raises(SourceError, match="the cable broke"):
                next(iter(source))
    assert capture.closed.is_set()


def test_the_capture_waits_for_its_caller() -> None:
    """A slow caller loses nothing: at most one image is held."""
    capture = _Capture(50, SourceError("end", hint="x"))
    with LiveSource("x", capture, _SOON, "hint") as source:
        time.sleep(0.1)
        assert capture.reads <= 2
        assert [frame.index for frame in islice(source, 50)] == list(range(50))


@pytest.mark.parametrize("deaf", [False, True])
@pytest.mark.alone
def test_a_capture_that_hangs(deaf: bool) -> None:
    """The caller gets an error after the timeout, whether or not the capture can be interrupted."""
    capture = _Capture(1, deaf=deaf)
    with LiveSource("cam", capture, _SOON, "kick it") as source:
        next(iter(source))
        started = time.monotonic()
        with pytest.raises(SourceError, match=r"cam gave no frame for 0\.3 s") as caught:
            next(iter(source))
        assert 0.25 < time.monotonic() - started < 1
    assert caught.value.hint == "kick it"
    assert capture.closed.wait(2)


@pytest.mark.alone
def test_a_capture_that_does_not_open() -> None:
    """The constructor raises when the first frame is overdue, and the capture is closed."""
    capture = _Capture(0)
    started = time.monotonic()
    with pytest.raises(SourceError, match=r"cam gave no frame within 0\.6 s"):
        LiveSource("cam", capture, _SOON, "hint")
    assert time.monotonic() - started < 1.5
    assert capture.closed.wait(1)


@pytest.mark.parametrize("error", [SourceError("refused", hint="x"), MissingDependencyError("no cv2", hint="x")])
def test_an_error_of_opening_is_the_constructors(error: Exception) -> None:
    """It is raised unchanged, and the thread ends."""
    capture = _Capture(0, error)
    with pytest.raises(type(error), match=str(error)):
        LiveSource("cam", capture, _SOON, "hint")
    assert capture.closed.wait(1)


def test_a_foreign_error_is_not_quoted() -> None:
    """OpenCV's messages may contain the URI: only the type of the error is named."""
    with pytest.raises(SourceError, match=r"^cam failed \(ValueError\)$") as caught:
        LiveSource("cam", _Capture(0, ValueError("rtsp://u:hunter2@h")), _SOON, "hint")
    assert caught.value.__cause__ is None
    assert "hunter2" not in repr(caught.value.__context__)


@pytest.mark.alone
def test_closing_ends_a_waiting_reader_at_once() -> None:
    """In another thread, without an error, even if the capture does not react; close itself waits for the capture."""
    capture = _Capture(1, deaf=True)
    source = LiveSource("cam", capture, Timeouts(5, 5), "hint")
    seen: list[float] = []

    def read() -> None:
        list(source)
        seen.append(time.monotonic())

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.1)
    started = time.monotonic()
    source.close()
    reader.join(5)
    assert seen[0] - started < 0.6
    assert capture.closed.is_set()
    assert list(source) == []
    source.close()


def test_lost_images_are_counted() -> None:
    """The count is the capture's, and the error of a timeout mentions it."""
    capture = _Capture(1)
    capture.lost = 7
    with LiveSource("cam", capture, _SOON, "hint") as source:
        next(iter(source))
        assert source.dropped == 7
        with pytest.raises(SourceError, match="and 7 that cannot"):
            next(iter(source))


class _Receiver:
    """Takes delivered frames, up to ``limit``, and the error."""

    def __init__(self, limit: int = 10**6) -> None:
        self.indices: list[int] = []
        self.values: list[int] = []
        self.errors: list[str] = []
        self.threads: set[str] = set()
        self.done = threading.Event()
        self._limit = limit

    def take(self, frame: Frame) -> bool:
        self.indices.append(frame.index)
        self.values.append(int(frame.image[0, 0, 0]))
        self.threads.add(threading.current_thread().name)
        if len(self.indices) == self._limit:
            self.done.set()
        return len(self.indices) < self._limit

    def failed(self, error: EdgeResnetError) -> None:
        self.errors.append(error.message)
        self.done.set()


def test_delivered_frames_come_in_order_from_the_reading_thread() -> None:
    """The frame that the constructor waited for is the first one, none is held or repeated, and the failure is reported once."""
    receiver = _Receiver()
    with LiveSource("cam", _Capture(50, SourceError("the cable broke", hint="replace it")), _SOON, "hint") as source:
        thread = source.deliver(receiver.take, receiver.failed)
        assert receiver.done.wait(5)
        thread.join(5)
    assert receiver.indices == list(range(50))
    assert receiver.values == list(range(1, 51))
    assert receiver.errors == ["the cable broke"]
    assert receiver.threads == {thread.name}


def test_delivery_continues_an_iteration() -> None:
    """Frames that were iterated before are not delivered again."""
    receiver = _Receiver(3)
    with LiveSource("cam", _Capture(9), _SOON, "hint") as source:
        assert [frame.index for frame in islice(source, 2)] == [0, 1]
        source.deliver(receiver.take, receiver.failed).join(5)
    assert receiver.indices == [2, 3, 4]
    assert receiver.errors == []


def test_delivery_ends_when_no_more_are_wanted() -> None:
    """The capture is closed by the thread that read it, without an error."""
    capture, receiver = _Capture(10**6), _Receiver(4)
    source = LiveSource("cam", capture, _SOON, "hint")
    source.deliver(receiver.take, receiver.failed).join(5)
    assert capture.closed.is_set()
    assert (receiver.indices, receiver.errors) == ([0, 1, 2, 3], [])
    source.close()


def test_a_source_that_has_failed_already_says_so_at_once() -> None:
    """Between the first frame and the delivery a camera may be unplugged."""
    receiver = _Receiver()
    with LiveSource("cam", _Capture(1, SourceError("unplugged", hint="x")), _SOON, "hint") as source:
        next(iter(source))
        with pytest.raises(SourceError, match="unplugged"):
            next(iter(source))
        source.deliver(receiver.take, receiver.failed)
        assert receiver.errors == ["unplugged"]


def test_closing_ends_a_delivery_without_a_frame_after_it() -> None:
    """A thread that waits for a frame is woken; the end that the caller asked for may be reported, a frame is not."""
    receiver = _Receiver()
    source = LiveSource("cam", _Capture(1), Timeouts(5, 5), "hint")
    thread = source.deliver(receiver.take, receiver.failed)
    assert receiver.indices in ([], [0])
    source.close()
    assert not thread.is_alive()
    assert receiver.indices in ([], [0])


def test_what_is_overdue() -> None:
    """The error is that of the iteration, its remedy and the unreadable images included; the caller decides when to ask."""
    capture = _Capture(1)
    capture.lost = 2
    with LiveSource("cam", capture, _SOON, "check the cable") as source:
        assert source.overdue(0.29) is None
        error = source.overdue(0.31)
    assert error is not None
    assert error.message == "cam gave no frame for 0.3 s that can be read, and 2 that cannot"
    assert error.hint == "check the cable"
