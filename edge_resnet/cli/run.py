"""``edge-resnet run``. Knows the options and how a run is told; the loop is edge_resnet.run's."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_resnet.cli.engines import open_with_engine
from edge_resnet.cli.progress import FrameCounter
from edge_resnet.errors import ConfigError

if TYPE_CHECKING:
    from edge_resnet.run import RunSummary
    from edge_resnet.sinks import Sink

__all__ = ["run"]


def run(
    artifact: Annotated[
        Path | None, typer.Argument(help="Folder that build wrote (default: the newest under artifacts/).")
    ] = None,
    camera: Annotated[list[int] | None, typer.Option(help="Camera index; repeatable.")] = None,
    source: Annotated[
        list[str] | None, typer.Option(help="Image, folder, glob, video or synthetic://; repeatable, one after another.")
    ] = None,
    headless: Annotated[bool, typer.Option("--headless", help="No lines for a person, only the summary on stderr.")] = False,
    jsonl: Annotated[str | None, typer.Option(help="A JSON line per frame to this file; - for stdout.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Answers per frame.")] = 5,
    frames: Annotated[int | None, typer.Option(min=1, help="Stop after as many frames.")] = None,
    backend: Annotated[str, typer.Option(help="auto, tensorrt, onnxruntime, or fake.")] = "auto",
    simulate_int8: Annotated[bool, typer.Option("--simulate-int8", help="TensorRT's INT8, computed on this machine.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the summary as JSON alone on stdout.")] = False,
) -> None:
    """Classify frames with the newest artifact, or the one that is named.

    edge-resnet run --camera 0

    edge-resnet run artifacts/resnet50-int8 --source clip.mp4 --headless --jsonl out.jsonl
    """
    uris = [*(f"camera:{index}" for index in camera or []), *(source or [])]
    if not uris:
        raise ConfigError("run needs something to look at", hint="--camera 0, or --source IMAGE, FOLDER, VIDEO or synthetic://")
    if jsonl == "-" and json_output:
        raise ConfigError("--jsonl - and --json both want stdout", hint="give --jsonl a file")
    opened = open_with_engine(artifact, backend, "simulated" if simulate_int8 else "native")

    from edge_resnet.backends import open_backend
    from edge_resnet.run import RunOptions
    from edge_resnet.run import run as classify
    from edge_resnet.sources import open_source

    options = RunOptions(opened.manifest.preprocess, opened.labels, top, frames)
    quiet = headless or json_output or jsonl == "-"
    with ExitStack() as stack:
        sources = [stack.enter_context(open_source(uri)) for uri in uris]
        sinks = [stack.enter_context(sink) for sink in _sinks(jsonl, quiet=quiet)]
        network = stack.enter_context(open_backend(opened, backend, "simulated" if simulate_int8 else "native"))
        summary = classify(network, sources, sinks, options)
    _let_go_of_stdout()
    if json_output:
        typer.echo(json.dumps(asdict(summary)))
    _tell(summary)


def _sinks(jsonl: str | None, *, quiet: bool) -> list[Sink]:
    from edge_resnet.sinks.console import ConsoleSink
    from edge_resnet.sinks.jsonl import JsonlSink

    sinks: list[Sink] = [] if quiet else [ConsoleSink(_echo)]
    if quiet and sys.stderr.isatty():
        sinks.append(FrameCounter())
    if jsonl is not None:
        sinks.append(JsonlSink(sys.stdout if jsonl == "-" else Path(jsonl)))
    return sinks


def _echo(line: str) -> None:
    """A line on stdout. What its encoding lacks is escaped: labels, and names of files that are no text."""
    encoding = sys.stdout.encoding or "utf-8"
    typer.echo(line.encode(encoding, "backslashreplace").decode(encoding))


def _let_go_of_stdout() -> None:
    """Where the reader of stdout has gone, what is left for it must not fail once more when Python ends."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell(summary: RunSummary) -> None:
    """The summary, on stderr: stdout belongs to the answers."""
    stages = ", ".join(f"{stage} {milliseconds:.2f}" for stage, milliseconds in summary.stages_ms.items())
    dropped = f", {summary.dropped} dropped" if summary.dropped else ""
    end = " (interrupted)" if summary.interrupted else ""
    typer.echo(
        f"{summary.frames} frames in {summary.seconds:.1f} s, {summary.frames_per_s:.1f} per second{dropped}{end}; "
        f"p50 {summary.latency.p50_ms:.2f} ms, p99 {summary.latency.p99_ms:.2f} ms; mean ms: {stages}",
        err=True,
    )
    most = list(summary.classes.items())[:3]
    if most:
        typer.echo("most often: " + ", ".join(f"{label} {count}" for label, count in most), err=True)
