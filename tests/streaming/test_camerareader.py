"""camerareader.py: cameras that fail, hang, freeze or are too fast; every frame is predicted, dropped or still in flight."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.core.errors import ConfigError, SourceError
from edge_resnet.core.records import Preprocess
from edge_resnet.runtime.fake import FakeBackend
from edge_resnet.streaming.camerareader import CameraReader, CameraSpec, RetryPolicy, backoff
from edge_resnet.streaming.loop import Roi, RunHooks, RunOptions, run
from edge_resnet.streaming.records import Frame, Prediction
from edge_resnet.streaming.sources import FrameSource, live
from edge_resnet.streaming.sources.live import CapturedImage, LiveSource
from edge_resnet.streaming.sources.uri import Timeouts

QUICK = RetryPolicy(read_s=0.4, frozen_s=0.3, black_s=0.2, min_s=0.02, max_s=0.1, hangs=3)
OPTIONS = RunOptions(Preprocess(resize=32, crop=32), tuple("abcdefghij"), retry=QUICK)


def noise(seed: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)


@dataclass
class Scripted:
    """A camera that delivers a number of frames and then fails, hangs or ends."""

    frames: int
    then: str = "end"
    every_s: float = 0.005
    still: bool = False
    live = True
    dropped: int = 0
    closed: threading.Event = field(default_factory=threading.Event)

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.frames):
            if self.closed.wait(self.every_s):
                return
            yield Frame(noise(0 if self.still else index), index, time.monotonic_ns(), "cam")
        if self.then == "hang":
            self.closed.wait(60)
        elif self.then == "hang for good":
            time.sleep(60)
        elif self.then == "fail":
            raise SourceError("cam stopped", hint="is it plugged in?")
        elif self.then == "crash":
            raise ValueError("a driver's surprise\nand more")

    def close(self) -> None:
        """Wake the reader."""
        self.closed.set()

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Desk:
    """Opens cameras one after another, or fails to; counts how often it was called."""

    def __init__(self, *acts: Scripted | str) -> None:
        self.acts, self.asked = list(acts), 0

    def __call__(self, uri: str) -> FrameSource:
        """The next one; an endless camera after the last one."""
        self.asked += 1
        act = self.acts.pop(0) if self.acts else Scripted(10**6)
        if isinstance(act, str):
            raise SourceError(act, hint="try again")
        return act


class Kept:
    """A sink that keeps predictions."""

    name, wants_frames = "kept", False

    def __init__(self) -> None:
        self.predictions: list[Prediction] = []

    def write(self, prediction: Prediction, frame: Frame) -> None:
        """Keep it."""
        self.predictions.append(prediction)

    def close(self) -> None:
        """Nothing."""

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *_: object) -> None:
        return


def until(held: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not held() and time.monotonic() < deadline:
        time.sleep(0.002)
    assert held()


@pytest.mark.parametrize("then", ["fail", "end", "crash", "hang", "hang for good"])
def test_a_camera_comes_back_three_times(then: str, caplog: pytest.LogCaptureFixture) -> None:
    """However it stops, it is reopened; frame numbers continue, and none is counted twice or lost."""
    desk = Desk(*[Scripted(6, then) for _ in range(3)], Scripted(10**6))
    kept = Kept()
    with FakeBackend(10) as backend, caplog.at_level(logging.WARNING, logger="edge_resnet"):
        summary = run(backend, [CameraSpec("cam", open=desk)], [kept], RunOptions(**{**vars(OPTIONS), "frames": 40}))
    assert desk.asked == 4
    assert summary.reconnects == 3
    assert summary.frames == 40 == len(kept.predictions)
    assert summary.read == summary.frames + summary.dropped
    numbers = [prediction.frame for prediction in kept.predictions]
    assert numbers == sorted(set(numbers))
    assert sum("again" in record.getMessage() for record in caplog.records) >= 3


def test_a_camera_that_is_not_there_yet_is_waited_for() -> None:
    """Opened by the reader: refused three times, then it delivers."""
    desk = Desk("refused", "refused", "no route", Scripted(10**6))
    with FakeBackend(10) as backend:
        summary = run(backend, [CameraSpec("cam", open=desk)], [], RunOptions(**{**vars(OPTIONS), "frames": 5}))
    assert (summary.frames, desk.asked) == (5, 4)


def test_one_camera_that_is_gone_does_not_disturb_the_other() -> None:
    """The other's frames continue while the first is retried."""
    gone, there = Desk(*["refused"] * 1000), Desk(Scripted(10**6, every_s=0.002))
    hooks = RunHooks()
    with FakeBackend(10) as backend:
        options = RunOptions(**{**vars(OPTIONS), "frames": 100})
        summary = run(backend, [CameraSpec("a", open=gone), CameraSpec("b", open=there)], [], options, hooks)
    assert summary.frames == 100
    assert gone.asked >= 2
    states = {status.source: status for status in hooks.counters.status().sources}
    assert states["a"].state in ("reconnecting", "opening")
    assert states["a"].error == "refused"
    assert states["cam"].predicted == 100


def test_readers_that_hang_for_good_end_the_run() -> None:
    """Beyond the limit the run ends with an error, instead of a growing number of threads."""
    desk = Desk(*[Scripted(1, "hang for good") for _ in range(9)])
    with FakeBackend(10) as backend, pytest.raises(SourceError, match="has failed"):
        run(
            backend,
            [CameraSpec("cam", open=desk)],
            [],
            RunOptions(**{**vars(OPTIONS), "retry": replace(QUICK, read_s=0.1, hangs=2)}),
        )
    assert desk.asked == 3


def test_readers_that_hang_while_they_open_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that never returns from the first frame holds its memory: after as many as the limit the camera has failed."""
    monkeypatch.setattr(live, "_GRACE_S", 0.02)
    captures = [Silent(0, deaf=True) for _ in range(9)]
    left = iter(captures)
    spec = CameraSpec("cam", open=lambda uri: LiveSource("cam", next(left), Timeouts(0.05, 0.02), "hint"))
    try:
        with FakeBackend(10) as backend, pytest.raises(SourceError, match=r"has failed: cam gave no frame within 0\.05 s"):
            run(backend, [spec], [], RunOptions(**{**vars(OPTIONS), "retry": replace(QUICK, read_s=5, hangs=2)}))
        assert sum(1 for _ in left) == 6, "three were opened"
    finally:
        for capture in captures:
            capture.released.set()


def test_the_newest_frame_wins_and_the_others_are_counted() -> None:
    """With a network slower than the camera, predictions are fresh, and read = predicted + dropped."""

    class Slow(FakeBackend):
        def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            time.sleep(0.03)
            return super().infer(images)

    kept = Kept()
    with Slow(10) as backend:
        summary = run(
            backend,
            [CameraSpec("cam", open=Desk(Scripted(10**6, every_s=0.002)))],
            [kept],
            RunOptions(**{**vars(OPTIONS), "frames": 30}),
        )
    assert summary.dropped > summary.frames, "even on a busy machine"
    assert summary.read == 30 + summary.dropped
    ages = sorted(prediction.age_ms for prediction in kept.predictions)
    assert ages[15] < 30 + 25, "half of the answers are about one inference old"


@dataclass
class Switching(Scripted):
    """A camera whose frames have sizes of which only every third holds the region of interest."""

    always: bool = False

    def __iter__(self) -> Iterator[Frame]:
        for frame in super().__iter__():
            small = frame.index % 3 != 2 or self.always
            yield replace(frame, image=frame.image[:8, :8] if small else frame.image)


def test_a_camera_that_changes_its_size_loses_frames_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Frames that do not hold the region of interest are lost and counted, with one warning; another camera goes on."""
    hooks, kept = RunHooks(), Kept()
    cameras = [CameraSpec("a", open=Desk(Switching(10**6, every_s=0.01))), CameraSpec("b", open=Desk(Scripted(10**6)))]
    options = RunOptions(**{**vars(OPTIONS), "frames": 60, "roi": Roi(4, 4, 16, 16)})
    with FakeBackend(10) as backend, caplog.at_level(logging.WARNING, logger="edge_resnet"):
        summary = run(backend, cameras, [kept], options, hooks)
    changed, steady = hooks.counters.status().sources
    assert summary.frames == 60 == changed.predicted + steady.predicted
    assert changed.predicted >= 1
    assert steady.predicted >= 10
    assert changed.lost == summary.missed >= 2
    assert summary.read == summary.frames + summary.dropped
    assert steady.lost == 0
    assert sum("a frame is lost: the region 4,4,16,16 is not inside a frame of 8x8" in text for text in caplog.messages) == 1


def test_a_region_that_no_frame_holds_is_an_error() -> None:
    """If none of the first frames holds it, the region is wrong, not the camera; with another camera the run goes on."""
    options = RunOptions(**{**vars(OPTIONS), "frames": 50, "roi": Roi(4, 4, 16, 16)})
    wrong = CameraSpec("a", open=lambda uri: Switching(10**6, always=True))
    with FakeBackend(10) as backend:
        with pytest.raises(ConfigError, match="not inside a frame of 8x8"):
            run(backend, [wrong], [], options)
        assert run(backend, [wrong, CameraSpec("b", open=Desk(Scripted(10**6)))], [], options).frames == 50


def test_frames_of_several_cameras_are_classified_at_once() -> None:
    """Two cameras and a batch of two: fewer inferences than frames, and each prediction belongs to its camera."""
    sizes: list[int] = []

    class Counting(FakeBackend):
        def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            sizes.append(len(images))
            time.sleep(0.02)
            return super().infer(images)

    cameras = [CameraSpec(name, open=Desk(Scripted(10**6, every_s=0.002))) for name in ("a", "b")]
    with Counting(10) as backend:
        summary = run(backend, cameras, [], RunOptions(**{**vars(OPTIONS), "frames": 40, "batch": 2}))
    assert summary.frames == sum(sizes) == 40
    assert max(sizes) == 2
    assert sizes.count(2) > len(sizes) // 2


def test_a_rate_limits_predictions() -> None:
    """Twenty of two hundred frames per second are predicted; the rest is dropped and counted."""
    with FakeBackend(10) as backend:
        options = RunOptions(**{**vars(OPTIONS), "duration_s": 1.0, "rate": 20.0})
        summary = run(backend, [CameraSpec("cam", open=Desk(Scripted(10**6)))], [], options)
    assert 14 <= summary.frames <= 22
    assert summary.read == summary.frames + summary.dropped


def test_a_source_that_is_far_too_fast_starves_nobody() -> None:
    """A reader that never waits leaves lock and interpreter to the loop and the network: some of its frames are predicted."""
    fast = CameraSpec("synthetic://?frames=0&width=64&height=48", again=False)
    with FakeBackend(10) as backend:
        summary = run(backend, [fast], [], RunOptions(**{**vars(OPTIONS), "duration_s": 1.0}))
    assert summary.dropped > summary.frames, "the source is faster than the network"
    assert summary.frames > 0.02 * summary.read
    assert summary.read == summary.frames + summary.dropped


def test_a_frozen_camera_is_reopened_once() -> None:
    """It is reported as stalled and reopened once: the scene may really be still."""
    desk = Desk(*[Scripted(10**6, still=True) for _ in range(9)])
    hooks = RunHooks()
    seen: list[tuple[str, bool]] = []

    def look() -> None:
        (status,) = hooks.counters.status().sources
        seen.append((status.state, status.frozen))

    with FakeBackend(10) as backend:
        hooks = RunHooks(alive=look)
        run(backend, [CameraSpec("cam", open=desk)], [], RunOptions(**{**vars(OPTIONS), "duration_s": 1.5}), hooks)
    assert ("stalled", True) in seen
    assert desk.asked == 2


def test_a_source_that_ends_by_itself_is_not_reopened() -> None:
    """A file at its own pace: its end ends the run, its failure is the run's error."""
    desk = Desk(Scripted(9))
    with FakeBackend(10) as backend:
        summary = run(backend, [CameraSpec("cam", open=desk, again=False)], [], OPTIONS)
    assert (summary.read, desk.asked) == (9, 1)
    assert summary.read == summary.frames + summary.dropped
    with FakeBackend(10) as backend, pytest.raises(SourceError, match="cam stopped"):
        run(backend, [CameraSpec("cam", open=Desk(Scripted(3, "fail")), again=False)], [], OPTIONS)


@pytest.mark.parametrize("then", ["hang", "hang for good", "end"])
def test_stopping_takes_no_time_and_leaves_no_thread(then: str) -> None:
    """A thread that waits for a frame is woken; one that hangs for good is a daemon and blocks nothing."""
    before = set(threading.enumerate())
    hooks = RunHooks()
    timer = threading.Timer(0.3, hooks.stop.set)
    timer.start()
    started = time.monotonic()
    with FakeBackend(10) as backend:
        summary = run(backend, [CameraSpec("cam", open=Desk(Scripted(3, then)))], [], OPTIONS, hooks)
    assert time.monotonic() - started < 20
    assert summary.interrupted
    timer.join()
    if then != "hang for good":
        until(lambda: set(threading.enumerate()) <= before)


@given(st.integers(0, 10**6))
def test_backoff_grows_up_to_its_limit_and_is_never_nothing(attempt: int) -> None:
    """Between half and the whole of the doubled pause, at most 30 s."""
    retry = RetryPolicy()
    whole = min(retry.max_s, retry.min_s * 2.0 ** min(attempt, 64))
    assert whole / 2 <= backoff(attempt, retry) <= whole


def test_an_abandoned_thread_delivers_nothing_more() -> None:
    """A hung thread that wakes up later changes neither counts nor state."""
    news = threading.Condition()
    late = Scripted(1, "hang")
    reader = CameraReader(CameraSpec("cam", open=Desk(late, Scripted(10**6))), news, QUICK)
    reader.start()
    until(lambda: reader.status()[0].frames == 1)
    time.sleep(QUICK.read_s + 0.05)
    reader.check()
    until(lambda: reader.status()[0].frames > 5)
    status = reader.status()[0]
    assert (status.state, status.reconnects) == ("live", 1)
    reader.stop()
    final = reader.status()[0]
    assert final.frames == final.dropped


class Silent:
    """A capture that gives ``count`` images and then hangs until it is interrupted, or, if ``deaf``, for good."""

    def __init__(self, count: int, *, deaf: bool = False) -> None:
        self.lost = 1
        self.closed = threading.Event()
        self.released = threading.Event()
        self._count, self._deaf, self._interrupted = count, deaf, threading.Event()

    def open(self) -> None:
        """Nothing to open."""

    def read(self) -> CapturedImage:
        """The next image."""
        if self._count == 0:
            (self.released if self._deaf else self._interrupted).wait(20)
            raise SourceError("interrupted", hint="x")
        self._count -= 1
        time.sleep(0.002)
        return CapturedImage(noise(self._count), time.monotonic_ns())

    def interrupt(self) -> None:
        """Wake ``read``."""
        self._interrupted.set()

    def close(self) -> None:
        """Note it."""
        self.closed.set()


def test_a_live_source_is_read_by_its_own_thread_alone() -> None:
    """One thread per camera: the one that opened the source has ended, and frames come all the same."""
    reader = CameraReader(
        CameraSpec("cam", open=lambda _: LiveSource("cam", Silent(10**6), Timeouts(5, 5), "hint")), threading.Condition(), QUICK
    )
    before = set(threading.enumerate())
    reader.start()
    until(lambda: reader.status()[0].frames > 5)
    until(lambda: {thread.name for thread in set(threading.enumerate()) - before} == {"read cam"})
    assert reader.ready()
    reader.stop()
    until(lambda: set(threading.enumerate()) <= before)
    final = reader.status()[0]
    assert final.frames == final.dropped
    assert final.lost == 1


@pytest.mark.parametrize("deaf", [False, True])
def test_the_read_timeout_of_a_live_source_is_obeyed(deaf: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A silent camera is reopened after its own timeout, not the longer one of the policy; a hung thread blocks nothing."""
    captures = [Silent(3, deaf=deaf), Silent(10**6)]
    made: list[float] = []

    def open_next(_: str) -> FrameSource:
        made.append(time.monotonic())
        return LiveSource("cam", captures[len(made) - 1], Timeouts(1.0, 0.3), "hint")

    reader = CameraReader(
        CameraSpec("cam", open=open_next), threading.Condition(), replace(QUICK, read_s=60 if not deaf else 1.0)
    )
    with caplog.at_level(logging.WARNING, logger="edge_resnet"):
        reader.start()
        until(lambda: bool(reader.check()) or len(made) == 2)
    assert 0.3 < made[1] - made[0] < 4
    until(lambda: reader.status()[0].state == "live")
    status = reader.status()[0]
    assert (status.reconnects, status.error) == (1, "")
    assert any("cam gave no frame for 0.3 s that can be read, and 1 that cannot; reopening" in text for text in caplog.messages)
    assert captures[0].closed.is_set() is not deaf
    captures[0].released.set()
    assert captures[0].closed.wait(5)
    reader.stop()
