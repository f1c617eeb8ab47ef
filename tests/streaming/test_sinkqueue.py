"""sinkqueue.py: a sink that is slow, fails, hangs or leaves never blocks the caller, and every prediction is accounted for."""

from __future__ import annotations

import logging
import threading
import time

import numpy as np
import pytest

from edge_resnet.core.errors import ConfigError
from edge_resnet.runtime.postprocess import ClassScore
from edge_resnet.streaming.records import Answer, Frame, Prediction
from edge_resnet.streaming.sinkqueue import SinkQueue

FRAME = Frame(np.zeros((4, 4, 3), np.uint8), 0, 0, "cam")


def prediction(index: int, *, changed: bool = True) -> Prediction:
    return Prediction("cam", index, 0, 1.0, (ClassScore(0, "cat", 0.9),), {}, 0, Answer(0, "cat", 0.9, changed))


class Slow:
    """A sink that waits for the test before each prediction, or fails for some."""

    name = "slow"

    def __init__(self, *, wants_frames: bool = False, failing: range = range(0), held: bool = False) -> None:
        self.wants_frames = wants_frames
        self.taken: list[int] = []
        self.shapes: set[tuple[int, ...]] = set()
        self.go = threading.Event()
        self._failing = failing
        if not held:
            self.go.set()

    def write(self, prediction: Prediction, frame: Frame) -> None:
        """Take one."""
        self.go.wait(90)
        self.shapes.add(frame.image.shape)
        if prediction.frame in self._failing:
            raise ConfigError("disk full", hint="free some space")
        self.taken.append(prediction.frame)

    def close(self) -> None:
        """Nothing."""

    def __enter__(self) -> Slow:
        return self

    def __exit__(self, *_: object) -> None:
        return


def wait_for(held: object) -> None:
    deadline = time.monotonic() + 10
    while not held() and time.monotonic() < deadline:  # type: ignore[operator]
        time.sleep(0.002)
    assert held()  # type: ignore[operator]


@pytest.mark.parametrize("lossless", [True, False])
def test_all_predictions_arrive_in_order(lossless: bool) -> None:
    """If the sink keeps up; others are counted as lost."""
    sink = Slow()
    outlet = SinkQueue(sink, lossless=lossless)
    for index in range(300):
        outlet.write(prediction(index), FRAME)
    outlet.close(10)
    assert sink.taken == list(range(300))
    assert (outlet.status().written, outlet.status().lost) == (300, 0)


@pytest.mark.parametrize(("wants_frames", "kept"), [(True, 8), (False, 512)])
def test_a_sink_that_hangs_blocks_nobody(wants_frames: bool, kept: int) -> None:
    """Writing takes no time; what the queue cannot hold is lost, and the rest arrives in order later."""
    sink = Slow(wants_frames=wants_frames, held=True)
    outlet = SinkQueue(sink, lossless=False)
    outlet.write(prediction(0), FRAME)
    wait_for(lambda: not outlet._waiting)
    started = time.monotonic()
    for index in range(1, 2001):
        outlet.write(prediction(index), FRAME)
    assert time.monotonic() - started < 60
    assert outlet.status().lost == 2000 - kept
    sink.go.set()
    outlet.close(10)
    assert sink.taken == list(range(kept + 1))
    assert outlet.status().written + outlet.status().lost == 2001


@pytest.mark.parametrize(("side", "kept"), [(1000, 8), (2000, 5), (6000, 1)])
def test_large_frames_wait_within_64_mib(side: int, kept: int) -> None:
    """The queue's bytes are limited, too; one frame always has a place, however large."""
    sink = Slow(wants_frames=True, held=True)
    outlet = SinkQueue(sink, lossless=False)
    frame = Frame(np.broadcast_to(np.uint8(0), (side, side, 3)), 0, 0, "cam")
    outlet.write(prediction(0), frame)
    wait_for(lambda: not outlet._waiting)
    for index in range(1, 21):
        outlet.write(prediction(index), frame)
    assert outlet.status().lost == 20 - kept
    sink.go.set()
    outlet.close(10)
    assert sink.taken == list(range(kept + 1))


def test_lossless_waits() -> None:
    """The frames of a file wait for a slow sink."""
    sink = Slow(wants_frames=True, held=True)
    outlet = SinkQueue(sink, lossless=True)
    writer = threading.Thread(target=lambda: [outlet.write(prediction(index), FRAME) for index in range(40)], daemon=True)
    writer.start()
    time.sleep(0.1)
    assert writer.is_alive()
    sink.go.set()
    writer.join(10)
    outlet.close(10)
    assert sink.taken == list(range(40))


def test_a_failing_sink_is_retried_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Twenty predictions meet a full disk: they are lost, two lines say so, the others are written."""
    sink = Slow(failing=range(5, 25))
    outlet = SinkQueue(sink, lossless=True)
    with caplog.at_level(logging.WARNING, logger="edge_resnet"):
        for index in range(40):
            outlet.write(prediction(index), FRAME)
        outlet.close(10)
    assert sink.taken == [*range(5), *range(25, 40)]
    assert (outlet.status().written, outlet.status().lost, outlet.status().error) == (20, 20, "")
    assert [record.getMessage() for record in caplog.records] == [
        "slow lost a prediction: disk full", "slow takes predictions again; 20 were lost",
    ]  # fmt: skip


def test_a_sink_that_fails_differently_each_time_is_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the text of its errors changes, and however often it works in between: two lines a minute at most."""
    now = [1000.0]
    monkeypatch.setattr("edge_resnet.streaming.sinkqueue.time.monotonic", lambda: now[0])
    sink = Slow()
    take = sink.write

    def fail(prediction: Prediction, frame: Frame) -> None:
        now[0] += 1.0
        if prediction.frame % 3:
            raise ConfigError(f"cannot write {prediction.frame:06}.jpg: disk full", hint="free some space")
        take(prediction, frame)

    sink.write = fail  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING, logger="edge_resnet"):
        outlet = SinkQueue(sink, lossless=True)
        for index in range(1, 201):
            outlet.write(prediction(index), FRAME)
        outlet.close(10)
    lost = [text for text in caplog.messages if "lost a prediction" in text]
    assert len(lost) == 4, "in 200 s"
    assert len(caplog.messages) <= 8
    assert outlet.status().lost == 134


def test_a_sink_that_hangs_for_good_does_not_block_the_end() -> None:
    """After the time limit the waiting predictions are lost and counted."""
    outlet = SinkQueue(Slow(held=True), lossless=False)
    for index in range(10):
        outlet.write(prediction(index), FRAME)
    started = time.monotonic()
    outlet.close(0.2)
    assert time.monotonic() - started < 60
    assert outlet.status().lost >= 9
    outlet.write(prediction(11), FRAME)
    assert outlet.status().written == 0


def test_a_reader_that_left_is_known() -> None:
    """The rest is lost and counted; nobody waits, lossless or not."""
    sink = Slow()

    def leave(prediction: Prediction, frame: Frame) -> None:
        raise BrokenPipeError

    sink.write = leave  # type: ignore[method-assign]
    outlet = SinkQueue(sink, lossless=True)
    for index in range(2000):
        outlet.write(prediction(index), FRAME)
    assert outlet.gone.wait(10)
    outlet.close(10)
    assert outlet.status().lost == 2000


@pytest.mark.parametrize("wants_frames", [True, False])
def test_images_are_kept_only_for_sinks_that_want_them(wants_frames: bool) -> None:
    """A queue of predictions keeps no images in memory."""
    sink = Slow(wants_frames=wants_frames)
    outlet = SinkQueue(sink, lossless=True)
    outlet.write(prediction(0), FRAME)
    outlet.close(10)
    assert sink.shapes == {(4, 4, 3) if wants_frames else (0, 0, 3)}


def test_only_changes() -> None:
    """A sink for events gets the predictions whose answer changed, and the others do not count as lost."""
    sink = Slow()
    outlet = SinkQueue(sink, lossless=True, only_changes=True)
    for index in range(9):
        outlet.write(prediction(index, changed=index % 3 == 0), FRAME)
    outlet.close(10)
    assert sink.taken == [0, 3, 6]
    assert outlet.status().lost == 0
