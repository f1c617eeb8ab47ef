"""session.py: a whole run over synthetic frames with the fake backend, in any thread, ended by a signal, nothing left open."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
from children import started

from edge_resnet.core.errors import SourceError
from edge_resnet.core.records import Preprocess
from edge_resnet.runtime.fake import FakeBackend
from edge_resnet.streaming import session as sessions
from edge_resnet.streaming.counters import NetworkName, RunCounters, RunSummary
from edge_resnet.streaming.loop import RunHooks, RunOptions
from edge_resnet.streaming.outputs import Outputs
from edge_resnet.streaming.records import Frame, Prediction
from edge_resnet.streaming.session import Inputs, Session, run_session
from edge_resnet.streaming.sources.synthetic import SyntheticSource

OPTIONS = RunOptions(Preprocess(resize=32, crop=32), tuple("abcdefghij"))
FILE, CAMERA = "synthetic://?frames=9&width=64&height=48", "synthetic://?frames=9&width=64&height=48&fps=200"


class Kept:
    """A sink of the caller's own."""

    name, wants_frames = "kept", False

    def __init__(self) -> None:
        self.frames: list[int] = []
        self.calls: list[str] = []

    def write(self, prediction: Prediction, frame: Frame) -> None:
        """Keep the number of its frame."""
        self.frames.append(prediction.frame)

    def close(self) -> None:
        """Note it."""
        self.calls.append("close")

    def __enter__(self) -> Kept:
        self.calls.append("enter")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _run(*uris: str, kept: Kept | None = None, inputs: Inputs | None = None) -> RunSummary:
    sinks = () if kept is None else (kept,)
    with FakeBackend(10) as backend:
        session = Session("tiny", "fp32", tell=lambda _: None, sinks=sinks)
        return run_session(session, lambda: nullcontext(backend), inputs or Inputs(uris), Outputs(), OPTIONS)


def test_a_session_over_a_file() -> None:
    """Every frame is predicted and reaches the caller's sink, which is entered and closed."""
    kept = Kept()
    summary = _run(FILE, kept=kept)
    assert (summary.frames, summary.read, summary.interrupted, summary.lost) == (9, 9, False, {})
    assert kept.frames == list(range(9))
    assert kept.calls == ["enter", "close"]


def test_a_session_over_a_live_source() -> None:
    """Frames that come by the clock are read by a camera's reader; each is predicted or dropped."""
    summary = _run(CAMERA)
    assert summary.read == 9 == summary.frames + summary.dropped


def test_a_session_outside_the_main_thread() -> None:
    """No signal handler can be set there, and none is."""
    before = signal.getsignal(signal.SIGTERM)
    found: list[RunSummary] = []
    thread = threading.Thread(target=lambda: found.append(_run(FILE)))
    thread.start()
    thread.join(30)
    assert [summary.frames for summary in found] == [9]
    assert signal.getsignal(signal.SIGTERM) is before


def test_handlers_are_put_back() -> None:
    """After a run Ctrl-C and SIGTERM do what they did before."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    _run(FILE)
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_second_signal_ends_it_at_once(uncollected: None) -> None:
    """The first one asks the run to stop; another one, of either kind, is raised as Ctrl-C is."""
    hooks = RunHooks(counters=RunCounters(NetworkName("tiny", "fake", "fp32")))
    with sessions._stopped_by_signals(hooks):
        signal.raise_signal(signal.SIGTERM)
        assert hooks.stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_signal_ends_it_in_a_child() -> None:
    """SIGTERM completes what is in flight; the summary says interrupted."""
    code = (
        "from contextlib import nullcontext\n"
        "from edge_resnet.core.records import Preprocess\n"
        "from edge_resnet.runtime.fake import FakeBackend\n"
        "from edge_resnet.streaming.loop import RunOptions\n"
        "from edge_resnet.streaming.outputs import Outputs\n"
        "from edge_resnet.streaming.session import Inputs, Session, run_session\n"
        "options = RunOptions(Preprocess(resize=32, crop=32), tuple('abcdefghij'))\n"
        "inputs = Inputs(('synthetic://?frames=0&width=64&height=48&fps=100',))\n"
        "outputs = Outputs(console=lambda line: print(line, flush=True))\n"
        "summary = run_session(Session('tiny', 'fp32', print), lambda: nullcontext(FakeBackend(10)), inputs, outputs, options)\n"
        "print('interrupted', summary.interrupted, summary.frames > 0)\n"
    )
    with started([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline().startswith("synthetic #")
        child.send_signal(signal.SIGTERM)
        out, _ = child.communicate(timeout=30)
    assert child.returncode == 0
    assert out.splitlines()[-1] == "interrupted True True"


@pytest.mark.alone
def test_a_sink_that_does_not_close_is_abandoned_after_a_signal(caplog: pytest.LogCaptureFixture) -> None:
    """After SIGTERM all sinks close at the same time, and the run does not wait for one that hangs beyond two seconds."""

    class Stuck(Kept):
        name = "stuck"
        released = threading.Event()

        def close(self) -> None:
            if not self.calls.count("close"):
                self.calls.append("close")
                self.released.wait(60)

    stuck, kept = Stuck(), Kept()
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGTERM])
    with FakeBackend(10) as backend:
        session = Session("tiny", "fp32", tell=lambda _: None, sinks=(stuck, kept))
        inputs = Inputs(("synthetic://?frames=0&width=64&height=48&fps=100",))
        timer.start()
        began = time.monotonic()
        summary = run_session(session, lambda: nullcontext(backend), inputs, Outputs(), OPTIONS)
        assert time.monotonic() - began < 0.3 + 2
    Stuck.released.set()
    assert summary.interrupted
    assert kept.calls[:2] == ["enter", "close"]
    assert "stuck did not close in time" in caplog.text


def test_what_was_opened_is_closed_when_the_next_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second source that is not there, or a network that does not open, leaves no camera open."""
    opened: list[SyntheticSource] = []
    closed: list[SyntheticSource] = []

    class Noted(SyntheticSource):
        def close(self) -> None:
            closed.append(self)
            super().close()

    def open_noted(uri: str, *, realtime: bool = False) -> SyntheticSource:
        if uri == "gone":
            raise SourceError("gone is gone", hint="plug it in")
        opened.append(Noted(uri))
        return opened[-1]

    @contextmanager
    def no_network() -> Iterator[FakeBackend]:
        raise SourceError("no network", hint="compile it")
        yield

    monkeypatch.setattr(sessions, "open_source", open_noted)
    with pytest.raises(SourceError, match="gone is gone"):
        _run(CAMERA, FILE, "gone")
    with pytest.raises(SourceError, match="no network"):
        run_session(Session("tiny", "fp32", print), no_network, Inputs((CAMERA,)), Outputs(), OPTIONS)
    assert len(opened) == 3
    assert set(map(id, closed)) == set(map(id, opened))


def test_a_camera_that_is_awaited_is_not_opened_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """With keep_trying its absence is no error: its reader retries until it is there."""
    asked: list[str] = []

    def open_late(uri: str, *, realtime: bool = False) -> SyntheticSource:
        asked.append(uri)
        if len(asked) < 2:
            raise SourceError("not yet", hint="wait")
        return SyntheticSource(CAMERA)

    monkeypatch.setattr(sessions, "open_source", open_late)
    options = RunOptions(OPTIONS.preprocess, OPTIONS.labels, frames=3)
    with FakeBackend(10) as backend:
        inputs = Inputs(("camera:0",), keep_trying=True)
        summary = run_session(Session("tiny", "fp32", print), lambda: nullcontext(backend), inputs, Outputs(), options)
    assert summary.frames == 3
    assert asked == ["camera:0"] * 2
