"""Which sinks a run writes to: their options as one record, and opening them. Does not know about flags of a command line.

A sink's module, and the library that it needs, is loaded only if that sink is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from edge_resnet.streaming.sinks.linefile import Sync

if TYPE_CHECKING:
    from edge_resnet.streaming.records import RunStatus
    from edge_resnet.streaming.sinks import Sink

__all__ = ["Outputs", "RunView", "open_sinks"]

_MIB = 1 << 20


@dataclass(frozen=True)
class Outputs:
    """The sinks that are asked for; sizes in MiB.

    ``console``: takes lines of text for a person. ``frame_counter``: without a console, count frames on a terminal's stderr.
    ``jsonl``: a file, or ``-`` for stdout. ``mqtt``: ``mqtt://[user:password@]host[:port]/topic``. ``web``: ``HOST:PORT``.
    ``web_origin``: where browsers see the page behind a proxy, ``https://cam.example``.
    ``record_uncertain``: a folder for frames whose best probability is below ``uncertain_below``; they stay there for
    ``uncertain_max_days``, None for no limit.
    """

    console: Callable[[str], object] | None = None
    frame_counter: bool = True
    jsonl: str | None = None
    jsonl_append: bool = False
    jsonl_max_mib: float | None = None
    jsonl_sync: Sync = "never"
    mqtt: str | None = None
    save_video: Path | None = None
    window: bool = False
    web: str | None = None
    web_token: str | None = None
    web_origin: str | None = None
    record_uncertain: Path | None = None
    uncertain_below: float = 0.5
    uncertain_max_mib: float = 1024
    uncertain_max_days: float | None = None


@dataclass(frozen=True)
class RunView:
    """What sinks need of a run: its ``status``, a way to ``stop`` it, whether a source is ``live``, whether there are
    ``several``.

    ``tell``: takes a line that a person should read at once, such as the page's address.
    """

    status: Callable[[], RunStatus]
    stop: Callable[[], object]
    live: bool
    several: bool
    tell: Callable[[str], object]


@contextmanager
def open_sinks(wanted: Outputs, run: RunView) -> Iterator[list[Sink]]:
    """The sinks, open until the end of the ``with`` block; those opened before one that fails are closed.

    Raises ConfigError if an option cannot be used, and MissingDependencyError if a library is not installed.
    """
    with ExitStack() as stack:
        yield [stack.enter_context(sink) for sink in chain(_writers(wanted, run), _displays(wanted, run))]


def _writers(wanted: Outputs, run: RunView) -> Iterator[Sink]:
    """Sinks that write to files and brokers, each made when the one before is open."""
    if wanted.jsonl is not None:
        from edge_resnet.streaming.sinks.jsonl import JsonlSink

        target = sys.stdout if wanted.jsonl == "-" else Path(wanted.jsonl)
        max_bytes = None if wanted.jsonl_max_mib is None else int(wanted.jsonl_max_mib * _MIB)
        # A limit keeps older files, so it also keeps what an earlier run has written.
        append = wanted.jsonl_append or max_bytes is not None
        yield JsonlSink(target, append=append, max_bytes=max_bytes, sync=wanted.jsonl_sync)
    if wanted.mqtt is not None:
        from edge_resnet.streaming.sinks.mqtt import MqttSink, parse_broker

        yield MqttSink(parse_broker(wanted.mqtt))
    if wanted.save_video is not None:
        from edge_resnet.streaming.sinks.video import VideoSink

        yield VideoSink(wanted.save_video, per_source=run.several)
    if wanted.record_uncertain is not None:
        from edge_resnet.streaming.sinks.uncertain import UncertainSink

        max_bytes = int(wanted.uncertain_max_mib * _MIB)
        yield UncertainSink(
            wanted.record_uncertain, below=wanted.uncertain_below, max_bytes=max_bytes, max_days=wanted.uncertain_max_days
        )


def _displays(wanted: Outputs, run: RunView) -> Iterator[Sink]:
    """Sinks for a person to watch. The terminal comes last: nothing else may be printed while its table is drawn."""
    if wanted.window:
        from edge_resnet.streaming.sinks.window import WindowSink

        yield WindowSink(run.stop, per_source=run.several)
    if wanted.web is not None:
        from edge_resnet.streaming.web import WebSink

        page = WebSink(wanted.web, run.status, token=wanted.web_token, origin=wanted.web_origin)
        page.open()
        run.tell(f"the page is at {page.url}")
        yield page
    if wanted.console is not None and not (run.live and sys.stdout.isatty()):
        from edge_resnet.streaming.sinks.terminal import ConsoleSink

        yield ConsoleSink(wanted.console)
    elif wanted.console is not None:
        from edge_resnet.streaming.sinks.terminal import TableSink

        yield TableSink(run.status)
    elif wanted.frame_counter and sys.stderr.isatty():
        from edge_resnet.streaming.sinks.terminal import FrameCounter

        yield FrameCounter()
