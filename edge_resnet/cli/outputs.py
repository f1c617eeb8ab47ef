"""Which sinks a run writes to, from what was asked for. Knows their options and opens none before it must."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edge_resnet.cli.progress import FrameCounter
from edge_resnet.core.errors import ConfigError

if TYPE_CHECKING:
    from edge_resnet.cli.runoptions import SyncName
    from edge_resnet.streaming.records import RunStatus
    from edge_resnet.streaming.sinks import Sink

__all__ = ["Outputs", "check_outputs", "chosen_sinks"]

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


def check_outputs(wanted: Outputs, *, json_output: bool) -> None:
    """Refuse words that contradict each other, before anything is opened."""
    if wanted.jsonl == "-" and json_output:
        raise ConfigError("--jsonl - and --json both want stdout", hint="give --jsonl a file")
    if wanted.jsonl in (None, "-") and (wanted.jsonl_append or wanted.jsonl_max_mib is not None or wanted.jsonl_sync != "never"):
        raise ConfigError("--jsonl-append, --jsonl-max and --jsonl-sync are about a file", hint="--jsonl FILE")
    if wanted.web is None and wanted.web_token is not None and "--web-token" in sys.argv:
        raise ConfigError("--web-token is the page's, and there is none", hint="add --web HOST:PORT")


def _echo(line: str) -> None:
    """A line on stdout. What its encoding lacks is escaped: labels, and names of files that are no text."""
    encoding = sys.stdout.encoding or "utf-8"
    typer.echo(line.encode(encoding, "backslashreplace").decode(encoding))
