"""The table at a terminal: a row per source, safe on any terminal, and updated while no frame arrives."""

from __future__ import annotations

import io
import time
from dataclasses import replace

import pytest
from rich.console import Console
from sinksamples import Seen, predicted, with_image

from edge_resnet.core.statistics import LatencyStats
from edge_resnet.streaming.records import RunStatus, SinkStatus, SourceStatus
from edge_resnet.streaming.sinks.terminal import TableSink

_LATENCY = LatencyStats(10, 4.0, 3.9, 5.0, 6.1, 6.2, 7.0)
_CAMERA = SourceStatus("camera:0", "live", 100, 90, 10, 0, 0, 29.9, 0.1, False, False, "")


def _status(*sources: SourceStatus, sinks: tuple[SinkStatus, ...] = ()) -> RunStatus:
    latency = _LATENCY
    return RunStatus("a", "onnxruntime", "int8", 9.0, True, 90, 29.9, latency, latency, {}, sources, sinks)


def _terminal(encoding: str = "utf-8", width: int = 110) -> tuple[Console, io.BytesIO]:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    return Console(file=file, force_terminal=True, width=width, legacy_windows=False), raw


def _shown(raw: io.BytesIO, encoding: str = "utf-8") -> str:
    return raw.getvalue().decode(encoding)


def test_a_row_per_source() -> None:
    """Each source is a row with state, newest answer, rate and age; the run's figures are below."""
    console, raw = _terminal()
    dark = replace(_CAMERA, source="camera:1", state="stalled", black=True, last_frame_age_s=7.25)
    with TableSink(lambda: _status(_CAMERA, dark), console) as sink:
        for frame in range(3):
            sink.write(predicted(frame), with_image())
        sink.write(predicted(0, Seen("dog", 0.25, "camera:1")), with_image())
    last = _shown(raw).split("source")[-1]
    rows = {line.split("│")[1].strip(): line for line in last.splitlines() if line.count("│") == 7}
    assert set(rows) == {"camera:0", "camera:1"}
    assert all(word in rows["camera:0"] for word in ("live", "tabby", "█████████░░░  75 %", "29.9", "0.1 s"))
    assert all(word in rows["camera:1"] for word in ("stalled, black", "dog", "███░░░░░░░░░  25 %", "7.2 s"))
    assert "onnxruntime int8: 90 predictions, 29.9 per second, latency p50 3.9 ms, p99 6.1 ms, 20 dropped" in last


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1", "utf-8"])
def test_any_label_on_any_terminal(encoding: str) -> None:
    """Characters that the terminal lacks, control characters and NaN neither end the run nor move the cursor."""
    console, raw = _terminal(encoding)
    broken = Seen("größe ねこ \x1b[2J\n", float("nan"), "camera:ö\ud800")
    camera = replace(_CAMERA, source="camera:ö\ud800", state="failed", error="gone\r ねこ")
    with TableSink(lambda: _status(camera, sinks=(SinkStatus("jsonl", 1, 2, "no space"),)), console) as sink:
        sink.write(predicted(0, broken), with_image())
    shown = _shown(raw, encoding)
    assert "\\x1b[2J" in shown
    assert "\x1b[2J" not in shown
    assert ("ねこ" in shown) == (encoding == "utf-8")
    assert "jsonl: 2 lost, no space" in shown


def test_it_is_drawn_while_no_frame_comes() -> None:
    """The age of a camera without frames grows without any write, with a few updates per second."""
    console, raw = _terminal()
    started = time.monotonic()
    calls = []

    def status() -> RunStatus:
        calls.append(1)
        return _status(replace(_CAMERA, state="opening", last_frame_age_s=time.monotonic() - started))

    with TableSink(status, console):
        deadline = time.monotonic() + 10
        while not {"0.2 s", "0.3 s", "0.4 s", "0.5 s"} & set(_ages(_shown(raw))) and time.monotonic() < deadline:
            time.sleep(0.02)
        passed = time.monotonic() - started
    assert {"0.2 s", "0.3 s", "0.4 s", "0.5 s"} & set(_ages(_shown(raw)))
    assert len(calls) <= 10 * passed + 5


def _ages(shown: str) -> list[str]:
    return [line.split("│")[-2].strip() for line in shown.splitlines() if line.count("│") == 7]


def test_many_frames_draw_no_more() -> None:
    """Ten thousand frames cause no additional updates."""
    console, _ = _terminal()
    calls = []
    started = time.monotonic()
    with TableSink(lambda: (calls.append(1), _status(_CAMERA))[1], console) as sink:
        for frame in range(10_000):
            sink.write(predicted(0), with_image()) if frame == 0 else sink.write(_PREDICTION, _FRAME)
        passed = time.monotonic() - started
    assert len(calls) <= 10 * passed + 5


_PREDICTION, _FRAME = predicted(1), with_image(1)


def test_a_folder_is_one_source() -> None:
    """Images have their own names; the row of the folder shows the newest of them."""
    console, raw = _terminal()
    sources = (replace(_CAMERA, source="images/"), _CAMERA)
    with TableSink(lambda: _status(*sources), console) as sink:
        for name in ("a", "b"):
            sink.write(predicted(0, Seen(f"label-{name}", source=f"images/{name}.jpg")), with_image())
    last = _shown(raw).split("source")[-1]
    (row,) = [line for line in last.splitlines() if "images/" in line]
    assert "label-b" in row


def test_closing_twice() -> None:
    """close may be called more than once, and before anything was drawn."""
    console, _ = _terminal()
    sink = TableSink(lambda: _status(_CAMERA), console)
    sink.close()
    with sink:
        sink.close()
    sink.close()
