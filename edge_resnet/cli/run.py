"""``edge-resnet run``: reads the options and prints the summary. The run itself is edge_resnet.streaming.session."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import typer

from edge_resnet.cli import runoptions as options
from edge_resnet.cli.failures import reader_may_leave
from edge_resnet.cli.opened import open_announced
from edge_resnet.cli.progress import progress_bars
from edge_resnet.core.errors import ConfigError
from edge_resnet.core.text import printable

if TYPE_CHECKING:
    from edge_resnet.artifact.folder import Artifact
    from edge_resnet.runtime.answers import AnswerRule
    from edge_resnet.runtime.backend import Variant
    from edge_resnet.streaming.counters import RunSummary
    from edge_resnet.streaming.outputs import Outputs
    from edge_resnet.streaming.worker import Roi

__all__ = ["run"]


def run(
    artifact: options.Artifact = None,
    camera: options.Camera = None,
    source: options.Source = None,
    realtime: options.RealTime = False,
    keep_trying: options.KeepTrying = False,
    roi: options.Roi = None,
    rate: options.Rate = None,
    frames: options.Frames = None,
    duration: options.Duration = None,
    top: options.Top = 5,
    smooth: options.Smooth = "none",
    smooth_frames: options.SmoothFrames = 10,
    hysteresis: options.Hysteresis = 0.0,
    min_confidence: options.MinConfidence = None,
    on_change: options.OnChange = False,
    headless: options.Headless = False,
    jsonl: options.Jsonl = None,
    jsonl_append: options.JsonlAppend = False,
    jsonl_max: options.JsonlMax = None,
    jsonl_sync: options.Sync = "never",
    mqtt: options.Mqtt = None,
    json_output: options.Json = False,
    save_video: options.SaveVideo = None,
    window: options.Window = False,
    web: options.Web = None,
    web_token: options.WebToken = None,
    web_origin: options.WebOrigin = None,
    record_uncertain: options.RecordUncertain = None,
    uncertain_below: options.UncertainBelow = 0.5,
    uncertain_max: options.UncertainMax = 1024,
    uncertain_days: options.UncertainDays = None,
    backend: options.Backend = "auto",
    simulate_int8: options.SimulateInt8 = False,
) -> None:
    """Classify frames with the newest artifact, or with the given one.

    Cameras are read until Ctrl-C, and reopened when they fail.

    edge-resnet run --camera 0

    edge-resnet run artifacts/resnet50-int8 --source clip.mp4 --headless --jsonl out.jsonl

    edge-resnet run --source rtsp://user:password@192.168.1.9/stream --smooth vote --on-change --jsonl - --headless

    edge-resnet run --camera 0 --camera 1 --web 127.0.0.1:8080
    """
    from edge_resnet.core.process import raise_descriptor_limit
    from edge_resnet.pipelines.engines import prepare_engine
    from edge_resnet.runtime.answers import answer_rule
    from edge_resnet.runtime.backend import open_backend, resolve_backend
    from edge_resnet.streaming.loop import RunOptions
    from edge_resnet.streaming.outputs import Outputs
    from edge_resnet.streaming.session import Inputs, Session, run_session
    from edge_resnet.streaming.smoothing import Smoothing

    uris = _uris(camera or [], source or [])
    quiet = headless or json_output or jsonl == "-"
    outputs = Outputs(
        console=None if quiet else _echo,
        jsonl=jsonl, jsonl_append=jsonl_append, jsonl_max_mib=jsonl_max, jsonl_sync=jsonl_sync, mqtt=mqtt,
        save_video=save_video, window=window, web=web, web_token=web_token, web_origin=web_origin,
        record_uncertain=record_uncertain, uncertain_below=uncertain_below, uncertain_max_mib=uncertain_max,
        uncertain_max_days=uncertain_days,
    )  # fmt: skip
    _check_outputs(outputs, json_output=json_output)
    raise_descriptor_limit()
    variant: Variant = "simulated" if simulate_int8 else "native"
    opened = open_announced(artifact, backend, variant)
    rule = answer_rule(opened, resolve_backend(backend, variant), variant, min_confidence)
    _announce(opened, rule, told=min_confidence is not None)
    with progress_bars() as progress:
        prepare_engine(opened, backend, variant, progress=progress)
    run_options = RunOptions(
        preprocess=opened.manifest.preprocess,
        labels=opened.labels,
        top=top,
        frames=frames,
        duration_s=_positive("--duration", duration),
        batch=max(opened.manifest.batch.max, len(uris)),
        rate=_positive("--rate", rate),
        roi=None if roi is None else _roi(roi),
        smoothing=Smoothing(smooth, smooth_frames, hysteresis),
        only_changes=frozenset({"jsonl", "mqtt"} if on_change else ()),
    ).with_rule(rule)
    summary = run_session(
        Session(opened.folder.name, opened.manifest.precision, tell=partial(typer.echo, err=True)),
        partial(open_backend, opened, backend, variant),
        Inputs(tuple(uris), realtime=realtime, keep_trying=keep_trying),
        outputs,
        run_options,
    )
    _finish(summary, json_output=json_output)


def _finish(summary: RunSummary, *, json_output: bool) -> None:
    with reader_may_leave():
        if json_output:
            typer.echo(json.dumps(asdict(summary)))
    _print_summary(summary)
    if summary.lost and not summary.interrupted:
        raise typer.Exit(1)


def _announce(artifact: Artifact, rule: AnswerRule, *, told: bool) -> None:
    """Say on stderr below which probability the answer is unknown, and who says so, unless nobody does."""
    found = artifact.manifest.confidence
    if found is None:
        return
    limit = f"the answer is unknown below {rule.min_confidence:.4g}" if rule.min_confidence else "the answer is never unknown"
    source = "as you say" if told else f"the artifact's threshold, for at most {found.max_wrong:g} % wrong answers"
    typer.echo(f"{limit} ({source}); temperature {rule.temperature:.3g}", err=True)


def _uris(cameras: list[int], sources: list[str]) -> list[str]:
    uris = [*(f"camera:{index}" for index in cameras), *sources]
    if not uris:
        raise ConfigError("run needs a source", hint="--camera 0, or --source IMAGE, FOLDER, VIDEO, rtsp://…")
    return uris


def _positive(name: str, value: float | None) -> float | None:
    if value is not None and not 0 < value < float("inf"):
        raise ConfigError(f"{name} takes a number above 0, not {value:g}", hint=f"for example {name} 10")
    return value


def _roi(text: str) -> Roi:
    from edge_resnet.streaming.worker import Roi

    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--roi takes four whole numbers, not {text}", hint="--roi 100,50,640,480") from error
    return Roi(x, y, width, height)


def _print_summary(summary: RunSummary) -> None:
    """Print to stderr: stdout is for predictions."""
    stages = ", ".join(f"{stage} {milliseconds:.2f}" for stage, milliseconds in summary.stages_ms.items())
    counts = {"dropped": summary.dropped, "unreadable": summary.missed, "reconnects": summary.reconnects}
    notes = "".join(f", {count} {what}" for what, count in counts.items() if count)
    end = " (interrupted)" if summary.interrupted else ""
    typer.echo(
        f"{summary.frames} frames in {summary.seconds:.1f} s, {summary.frames_per_s:.1f} per second{notes}{end}; "
        f"p50 {summary.latency.p50_ms:.2f} ms, p99 {summary.latency.p99_ms:.2f} ms; mean ms: {stages}",
        err=True,
    )
    for name, count in summary.lost.items():
        typer.echo(f"{name} did not take {count} predictions", err=True)
    frequent = list(summary.classes.items())[:3]
    if frequent:
        typer.echo(printable("most frequent: " + ", ".join(f"{label} {count}" for label, count in frequent)), err=True)


def _check_outputs(wanted: Outputs, *, json_output: bool) -> None:
    """Refuse options that contradict each other, before anything is opened."""
    if wanted.jsonl == "-" and json_output:
        raise ConfigError("--jsonl - and --json both write to stdout", hint="use --jsonl FILE")
    if wanted.jsonl in (None, "-") and (wanted.jsonl_append or wanted.jsonl_max_mib is not None or wanted.jsonl_sync != "never"):
        raise ConfigError("--jsonl-append, --jsonl-max and --jsonl-sync need a file", hint="add --jsonl FILE")
    if wanted.web is None and wanted.web_token is not None and _is_given("--web-token"):
        raise ConfigError("--web-token has no effect without --web", hint="add --web HOST:PORT")
    if wanted.web is None and wanted.web_origin is not None:
        raise ConfigError("--web-origin has no effect without --web", hint="add --web HOST:PORT")


def _is_given(option: str) -> bool:
    """Whether an option was written on the command line, rather than set in the environment."""
    return any(argument.partition("=")[0] == option for argument in sys.argv)


def _echo(line: str) -> None:
    """Print a line. Characters that stdout's encoding lacks are escaped: in labels, and in file names that are not valid text."""
    encoding = sys.stdout.encoding or "utf-8"
    typer.echo(line.encode(encoding, "backslashreplace").decode(encoding))
