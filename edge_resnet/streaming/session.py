"""A run from start to end: its sources, its sinks, its signals and its heartbeat. Knows no flags."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer

from edge_resnet.streaming.sinks.terminal import FrameCounter

if TYPE_CHECKING:
    from edge_resnet.artifact.folder import Artifact
    from edge_resnet.cli.runoptions import SyncName
    from edge_resnet.runtime.backend import Variant
    from edge_resnet.streaming.camerareader import CameraSpec
    from edge_resnet.streaming.counters import RunSummary
    from edge_resnet.streaming.loop import RunHooks, RunOptions
    from edge_resnet.streaming.notify import Notifier
    from edge_resnet.streaming.records import RunStatus
    from edge_resnet.streaming.sinks import Sink
    from edge_resnet.streaming.sources import FrameSource

__all__ = ["Outputs", "chosen_sinks"]


_MIB = 1 << 20


@dataclass(frozen=True)
class Outputs:
    """What the command line said. ``quiet``: nothing for a person on stdout. ``several``: there is more than one source."""

    quiet: bool
    live: bool
    several: bool
    jsonl: str | None
    jsonl_append: bool
    jsonl_max_mib: float | None
    jsonl_sync: SyncName
    mqtt: str | None
    save_video: Path | None
    window: bool
    web: str | None
    web_token: str | None
    record_uncertain: Path | None
    uncertain_below: float
    uncertain_max_mib: float


def chosen_sinks(wanted: Outputs, status: Callable[[], RunStatus], stop: Callable[[], object]) -> list[Sink]:
    """The sinks, not entered yet. Raises ConfigError and MissingDependencyError for those that cannot be had."""
    sinks: list[Sink] = [*_for_a_person(wanted, status)]
    if wanted.jsonl is not None:
        from edge_resnet.streaming.sinks.jsonl import JsonlSink

        target = sys.stdout if wanted.jsonl == "-" else Path(wanted.jsonl)
        most = None if wanted.jsonl_max_mib is None else int(wanted.jsonl_max_mib * _MIB)
        # Whoever keeps older files wants to keep what a run before has written.
        append = wanted.jsonl_append or most is not None
        sinks.append(JsonlSink(target, append=append, max_bytes=most, sync=wanted.jsonl_sync))
    if wanted.mqtt is not None:
        from edge_resnet.streaming.sinks.mqtt import MqttSink, parse_broker

        sinks.append(MqttSink(parse_broker(wanted.mqtt)))
    if wanted.save_video is not None:
        from edge_resnet.streaming.sinks.video import VideoSink

        sinks.append(VideoSink(wanted.save_video, per_source=wanted.several))
    if wanted.record_uncertain is not None:
        from edge_resnet.streaming.sinks.uncertain import UncertainSink

        most = int(wanted.uncertain_max_mib * _MIB)
        sinks.append(UncertainSink(wanted.record_uncertain, below=wanted.uncertain_below, max_bytes=most))
    if wanted.window:
        from edge_resnet.streaming.sinks.window import WindowSink

        sinks.append(WindowSink(stop, per_source=wanted.several))
    if wanted.web is not None:
        from edge_resnet.streaming.web import WebSink

        page = WebSink(wanted.web, status, token=wanted.web_token)
        page.open()
        typer.echo(f"the page is at {page.url}", err=True)
        sinks.append(page)
    return sinks


def _for_a_person(wanted: Outputs, status: Callable[[], RunStatus]) -> list[Sink]:
    if wanted.quiet:
        return [FrameCounter()] if sys.stderr.isatty() else []
    if wanted.live and sys.stdout.isatty():
        from edge_resnet.streaming.sinks.terminal import TableSink

        return [TableSink(status)]
    from edge_resnet.streaming.sinks.terminal import ConsoleSink

    return [ConsoleSink(_echo)]


def _echo(line: str) -> None:
    """A line on stdout. What its encoding lacks is escaped: labels, and names of files that are no text."""
    encoding = sys.stdout.encoding or "utf-8"
    typer.echo(line.encode(encoding, "backslashreplace").decode(encoding))


#: Seconds between two lines for ``systemctl status``.
_TELL_S = 10.0


def _run(
    artifact: Artifact,
    engine: tuple[str, Variant],
    what: tuple[list[str], bool, bool],
    outputs: Outputs,
    wanted: RunOptions,
) -> RunSummary:
    from edge_resnet.runtime.backend import open_backend
    from edge_resnet.streaming.camerareader import CameraSpec
    from edge_resnet.streaming.counters import RunCounters
    from edge_resnet.streaming.loop import RunHooks
    from edge_resnet.streaming.loop import run as classify
    from edge_resnet.streaming.notify import Notifier

    with ExitStack() as stack:
        notifier = stack.enter_context(Notifier())
        sources = [_source(uri, stack, realtime=what[1], keep_trying=what[2]) for uri in what[0]]
        network = stack.enter_context(open_backend(artifact, *engine))
        board = RunCounters(artifact.folder.name, network.name, artifact.manifest.precision)
        watch = RunHooks(board=board, alive=_Heartbeat(notifier, board.status), ready=notifier.ready)
        live = any(isinstance(source, CameraSpec) for source in sources)
        sinks = [stack.enter_context(sink) for sink in chosen_sinks(replace(outputs, live=live), board.status, watch.stop.set)]
        with _stopped_by_signals(watch):
            summary = classify(network, sources, sinks, wanted, watch)
        notifier.stopping()
    return summary


def _source(uri: str, stack: ExitStack, *, realtime: bool, keep_trying: bool) -> FrameSource | CameraSpec:
    """What a URI names, opened: that there is no such camera is said before anything else, unless it is waited for."""
    from edge_resnet.streaming.camerareader import CameraSpec
    from edge_resnet.streaming.sources import is_camera, open_source

    opener: Callable[[str], FrameSource] = partial(open_source, realtime=realtime)
    again = is_camera(uri)
    if again and keep_trying:
        return CameraSpec(uri, None, again=True, open=opener)
    opened = opener(uri)
    if opened.live:
        return CameraSpec(uri, opened, again=again, open=opener)
    return stack.enter_context(opened)


class _Heartbeat:
    """Tells systemd that the run is alive, and now and then what ``systemctl status`` shows."""

    def __init__(self, notifier: Notifier, status: Callable[[], RunStatus]) -> None:
        self._notifier, self._status = notifier, status
        self._told = 0.0

    def __call__(self) -> None:
        self._notifier.watchdog()
        now = time.monotonic()
        if self._notifier.connected and now - self._told >= _TELL_S:
            self._told = now
            status = self._status()
            live = sum(source.state in ("live", "ended") for source in status.sources)
            self._notifier.status(f"{live} of {len(status.sources)} sources live, {status.frames_per_s:.1f} frames a second")


@contextmanager
def _stopped_by_signals(watch: RunHooks) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM asks the run to end, which takes what is under way along; the second one ends it as it is."""

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a signal handler
        if watch.stop.is_set():
            raise KeyboardInterrupt
        watch.stop.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
