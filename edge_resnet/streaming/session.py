"""A run from start to end: sources opened, sinks opened, signals obeyed, systemd told. Knows no flags and no artifact."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING

from edge_resnet.runtime.backend import Backend
from edge_resnet.streaming.camerareader import CameraSpec
from edge_resnet.streaming.counters import RunCounters, RunSummary
from edge_resnet.streaming.loop import RunHooks, RunOptions, run
from edge_resnet.streaming.notify import Notifier
from edge_resnet.streaming.outputs import Outputs, RunView, open_sinks
from edge_resnet.streaming.sinks import Sink
from edge_resnet.streaming.sources import FrameSource, is_camera, open_source

if TYPE_CHECKING:
    from edge_resnet.streaming.records import RunStatus

__all__ = ["Inputs", "Session", "run_session"]

#: Seconds between two lines for ``systemctl status``.
_STATUS_S = 10.0


@dataclass(frozen=True)
class Inputs:
    """The sources of a run. ``uris``: as ``open_source`` takes them. ``realtime``: files at their own pace. ``keep_trying``: a
    camera that is not there is waited for."""

    uris: tuple[str, ...]
    realtime: bool = False
    keep_trying: bool = False


@dataclass(frozen=True)
class Session:
    """What a run is called: the ``artifact``'s name and its ``precision``, as the status shows them.

    ``tell``: takes a line that a person should read now, such as the page's address. ``sinks``: further ones, opened by the run.
    """

    artifact: str
    precision: str
    tell: Callable[[str], object]
    sinks: tuple[Sink, ...] = ()


def run_session(
    session: Session,
    open_network: Callable[[], AbstractContextManager[Backend]],
    inputs: Inputs,
    outputs: Outputs,
    options: RunOptions,
) -> RunSummary:
    """Open sources, network and sinks, and classify until the sources end, the options' limits, Ctrl-C or SIGTERM.

    Sources are opened before the network: that there is no such camera is said at once. In a thread other than the main one no
    signal is handled. Raises what opening and running them raise.
    """
    with ExitStack() as stack:
        notifier = stack.enter_context(Notifier())
        sources = [_opened(uri, inputs, stack) for uri in inputs.uris]
        network = stack.enter_context(open_network())
        counters = RunCounters(session.artifact, network.name, session.precision)
        hooks = RunHooks(counters=counters, alive=_Heartbeat(notifier, counters.status), ready=notifier.ready)
        live = any(isinstance(source, CameraSpec) for source in sources)
        view = RunView(counters.status, hooks.stop.set, live, several=len(sources) > 1, tell=session.tell)
        sinks = [stack.enter_context(sink) for sink in (*open_sinks(outputs, view), *session.sinks)]
        with _stopped_by_signals(hooks):
            summary = run(network, sources, sinks, options, hooks)
        notifier.stopping()
    return summary


def _opened(uri: str, inputs: Inputs, stack: ExitStack) -> FrameSource | CameraSpec:
    """What a URI names, opened, unless it is a camera that is waited for."""
    opener: Callable[[str], FrameSource] = partial(open_source, realtime=inputs.realtime)
    again = is_camera(uri)
    if again and inputs.keep_trying:
        return CameraSpec(uri, None, again=True, open=opener)
    opened = opener(uri)
    if opened.live:
        return CameraSpec(uri, opened, again=again, open=opener)
    return stack.enter_context(opened)


class _Heartbeat:
    """Tells systemd that the run is alive, and every ten seconds what ``systemctl status`` shows."""

    def __init__(self, notifier: Notifier, status: Callable[[], RunStatus]) -> None:
        self._notifier, self._status = notifier, status
        self._last_s = 0.0

    def __call__(self) -> None:
        self._notifier.watchdog()
        now = time.monotonic()
        if self._notifier.connected and now - self._last_s >= _STATUS_S:
            self._last_s = now
            status = self._status()
            live = sum(source.state in ("live", "ended") for source in status.sources)
            self._notifier.status(f"{live} of {len(status.sources)} sources live, {status.frames_per_s:.1f} frames a second")


@contextmanager
def _stopped_by_signals(hooks: RunHooks) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM asks the run to end with what is under way; the second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a signal handler
        if hooks.stop.is_set():
            raise KeyboardInterrupt
        hooks.stop.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
