"""A run from start to end: opens sources and sinks, handles signals, reports to systemd. Knows no flags and no artifacts."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING

from edge_resnet.core.errors import EdgeResnetError
from edge_resnet.runtime.backend import Backend
from edge_resnet.streaming.camerareader import CameraSpec
from edge_resnet.streaming.counters import NetworkName, RunCounters, RunSummary
from edge_resnet.streaming.loop import RunHooks, RunOptions, run
from edge_resnet.streaming.notify import Notifier
from edge_resnet.streaming.outputs import Outputs, RunView, open_sinks
from edge_resnet.streaming.sinks import Sink
from edge_resnet.streaming.sources import FrameSource, is_camera, open_source, public_uri

if TYPE_CHECKING:
    from edge_resnet.streaming.records import RunStatus

__all__ = ["Inputs", "Session", "run_session"]

_log = logging.getLogger(__name__)

#: Seconds between two updates of the line that ``systemctl status`` shows.
_STATUS_S = 10.0
#: Seconds from the first signal to the moment when sinks that are still closing are abandoned: the rest of the two seconds after
#: which a service manager may expect the end is for the network and the interpreter.
_CLOSED_S = 1.6


@dataclass(frozen=True)
class Inputs:
    """The sources of a run. ``uris``: as for ``open_source``. ``realtime``: videos play at their own pace. ``keep_trying``: wait
    for cameras that are not there yet, instead of an error."""

    uris: tuple[str, ...]
    realtime: bool = False
    keep_trying: bool = False


@dataclass(frozen=True)
class Session:
    """What the caller brings to a run: the ``artifact``'s name and its ``precision``, as the status shows them.

    ``tell``: takes a line that a person should read at once, such as the page's address. ``sinks``: further sinks, which the run
    enters and closes.
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
    """Open sources, network and sinks, and classify until the sources end, a limit of the options, Ctrl-C or SIGTERM.

    Sources are opened before the network, so that a missing camera is reported at once. Signals are handled only in the main
    thread. Raises what opening and running raise; whatever was opened is closed.
    """
    with ExitStack() as stack:
        notifier = stack.enter_context(Notifier())
        _warn_of_one_name(inputs.uris)
        cameras = stack.enter_context(ExitStack())
        sources = [_open(uri, inputs, stack, cameras) for uri in inputs.uris]
        network = stack.enter_context(open_network())
        counters = RunCounters(NetworkName(session.artifact, network.name, session.precision))
        hooks = RunHooks(counters=counters, alive=_Heartbeat(notifier, counters.status), ready=notifier.ready)
        live = any(isinstance(source, CameraSpec) for source in sources)
        view = RunView(counters.status, hooks.stop.set, live, several=len(sources) > 1, tell=session.tell)
        sinks = [*stack.enter_context(open_sinks(outputs, view)), *map(stack.enter_context, session.sinks)]
        with _stopped_by_signals(hooks) as signalled:
            cameras.pop_all()  # from here on their readers close them, and do not wait for a camera that hangs
            summary = run(network, sources, sinks, options, hooks)
        notifier.stopping()
        if signalled:
            _close_within(sinks, signalled[0] + _CLOSED_S)
    return summary


def _warn_of_one_name(uris: Sequence[str]) -> None:
    """Log where two cameras differ only in what their names do not show."""
    for name, count in Counter(public_uri(uri) for uri in set(uris)).items():
        if count > 1:
            _log.warning(
                "%d sources are called %s, and look like one camera: add &view=1 and &view=2, which are shown",
                count,
                name,
            )


def _open(uri: str, inputs: Inputs, files: ExitStack, cameras: ExitStack) -> FrameSource | CameraSpec:
    """The source of a URI: opened, unless it is a camera that may be missing."""
    opener: Callable[[str], FrameSource] = partial(open_source, realtime=inputs.realtime)
    again = is_camera(uri)
    if again and inputs.keep_trying:
        return CameraSpec(uri, None, again=True, open=opener)
    opened = opener(uri)
    if opened.live:
        return CameraSpec(uri, cameras.enter_context(opened), again=again, open=opener)
    return files.enter_context(opened)


class _Heartbeat:
    """Reports to systemd that the run is alive, and every ten seconds a line for ``systemctl status``."""

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
            self._notifier.status(f"{live} of {len(status.sources)} sources live, {status.frames_per_s:.1f} frames per second")


def _close_within(sinks: Sequence[Sink], deadline: float) -> None:
    """Close all sinks at the same time, and abandon those that are not closed at the deadline, on the monotonic clock."""

    def close(sink: Sink) -> None:
        try:
            sink.close()
        except Exception as error:  # the other sinks and the end of the run do not depend on it
            text = error.message if isinstance(error, EdgeResnetError) else f"{type(error).__name__}: {error}".partition("\n")[0]
            _log.warning("%s: %s", sink.name, text)

    threads = {sink.name: threading.Thread(target=close, args=(sink,), daemon=True) for sink in sinks}
    for thread in threads.values():
        thread.start()
    for name, thread in threads.items():
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            _log.warning("%s did not close in time: what it held back may be lost", name)


@contextmanager
def _stopped_by_signals(hooks: RunHooks) -> Iterator[list[float]]:
    """The first Ctrl-C or SIGTERM ends the run after the batches in flight; the second one ends it at once.

    Yields a list that gets the time of the first one, on the monotonic clock.
    """
    signalled: list[float] = []
    if threading.current_thread() is not threading.main_thread():
        yield signalled
        return

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a signal handler
        if hooks.stop.is_set():
            raise KeyboardInterrupt
        signalled.append(time.monotonic())
        hooks.stop.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signalled
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
