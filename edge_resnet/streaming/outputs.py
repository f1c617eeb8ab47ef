"""Which sinks a run writes to. Knows their options, reads no flags, and opens none before it must."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from edge_resnet.streaming.records import RunStatus
    from edge_resnet.streaming.sinks import Sink

__all__ = ["Outputs", "RunView", "Sync", "open_sinks"]

_MIB = 1 << 20

#: When a JSON-lines file is written through to the disk.
Sync: TypeAlias = Literal["never", "interval", "always"]


@dataclass(frozen=True)
class Outputs:
    """The sinks of a run.

    ``console``: takes a line of text for a person, None for no such lines. ``frame_counter``: without a console, count the frames
    on stderr where that is a terminal.
    ``jsonl``: a file, or ``-`` for stdout. ``web``: ``HOST:PORT``. ``mqtt``: ``HOST[:PORT]/TOPIC``. Sizes in MiB.
    ``uncertain_below``: frames whose best probability is lower are kept in the folder ``record_uncertain``.
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
    record_uncertain: Path | None = None
    uncertain_below: float = 0.5
    uncertain_max_mib: float = 1024


@dataclass(frozen=True)
class RunView:
    """What sinks may ask of a run: its ``status``, to ``stop`` it, whether a source is ``live``, whether there are ``several``.

    ``tell``: takes a line that a person should read now, such as the page's address.
    """

    status: Callable[[], RunStatus]
    stop: Callable[[], object]
    live: bool
    several: bool
    tell: Callable[[str], object]


def open_sinks(wanted: Outputs, run: RunView) -> list[Sink]:
    """The sinks, not entered yet. Raises ConfigError and MissingDependencyError for those that cannot be had."""
    sinks: list[Sink] = [*_terminal(wanted, run)]
    if wanted.jsonl is not None:
        from edge_resnet.streaming.sinks.jsonl import JsonlSink

        target = sys.stdout if wanted.jsonl == "-" else Path(wanted.jsonl)
        max_bytes = None if wanted.jsonl_max_mib is None else int(wanted.jsonl_max_mib * _MIB)
        # Whoever keeps older files wants to keep what a run before has written.
        append = wanted.jsonl_append or max_bytes is not None
        sinks.append(JsonlSink(target, append=append, max_bytes=max_bytes, sync=wanted.jsonl_sync))
    if wanted.mqtt is not None:
        from edge_resnet.streaming.sinks.mqtt import MqttSink, parse_broker

        sinks.append(MqttSink(parse_broker(wanted.mqtt)))
    if wanted.save_video is not None:
        from edge_resnet.streaming.sinks.video import VideoSink

        sinks.append(VideoSink(wanted.save_video, per_source=run.several))
    if wanted.record_uncertain is not None:
        from edge_resnet.streaming.sinks.uncertain import UncertainSink

        max_bytes = int(wanted.uncertain_max_mib * _MIB)
        sinks.append(UncertainSink(wanted.record_uncertain, below=wanted.uncertain_below, max_bytes=max_bytes))
    if wanted.window:
        from edge_resnet.streaming.sinks.window import WindowSink

        sinks.append(WindowSink(run.stop, per_source=run.several))
    if wanted.web is not None:
        from edge_resnet.streaming.web import WebSink

        page = WebSink(wanted.web, run.status, token=wanted.web_token)
        page.open()
        run.tell(f"the page is at {page.url}")
        sinks.append(page)
    return sinks


def _terminal(wanted: Outputs, run: RunView) -> list[Sink]:
    from edge_resnet.streaming.sinks.terminal import ConsoleSink, FrameCounter, TableSink

    if wanted.console is None:
        return [FrameCounter()] if wanted.frame_counter and sys.stderr.isatty() else []
    if run.live and sys.stdout.isatty():
        return [TableSink(run.status)]
    return [ConsoleSink(wanted.console)]
