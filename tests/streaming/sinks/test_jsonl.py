"""JSON lines: whole, flushed, with the documented keys; a full disk is one line."""

from __future__ import annotations

import io
import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sinksamples import files_up_to, predicted

from edge_resnet.core.errors import ConfigError
from edge_resnet.runtime.postprocess import ClassScore
from edge_resnet.streaming.records import Frame, Prediction
from edge_resnet.streaming.sinks.jsonl import JsonlSink

FRAME = Frame(np.zeros((4, 6, 3), np.uint8), 0, 0, "camera:0")


def _prediction(frame: int = 0, label: str = "tabby") -> Prediction:
    scores = (ClassScore(281, label, 0.75), ClassScore(282, "tiger cat", 0.2))
    return Prediction("camera:0", frame, 123456789, 4.5, scores, {"preprocess": 1.0, "inference": 3.0, "postprocess": 0.1})


def test_the_keys_are_the_documented_ones() -> None:
    """A line has exactly the documented keys, and the numbers that were given."""
    stream = io.StringIO()
    JsonlSink(stream).write(_prediction(7), FRAME)
    row = json.loads(stream.getvalue())
    assert set(row) == {"source", "frame", "captured_ns", "age_ms", "top", "stages_ms", "wall_ns", "time", "answer"}
    assert row["top"][0] == {"class_index": 281, "label": "tabby", "probability": 0.75}
    assert (row["source"], row["frame"], row["captured_ns"], row["age_ms"]) == ("camera:0", 7, 123456789, 4.5)
    assert row["stages_ms"] == {"preprocess": 1.0, "inference": 3.0, "postprocess": 0.1}


def test_each_line_is_there_when_it_was_written(tmp_path: Path) -> None:
    """A reader of the open file sees all lines written so far, whole."""
    path = tmp_path / "out.jsonl"
    with JsonlSink(path) as sink:
        for frame in range(3):
            sink.write(_prediction(frame), FRAME)
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            assert [row["frame"] for row in rows] == list(range(frame + 1))


@pytest.mark.parametrize("label", ["größe", "ねこ", 'quote " and \\', "line\nbreak", "\ud800"])
def test_any_label_survives(tmp_path: Path, label: str) -> None:
    """Labels of any alphabet are read back unchanged, one line each."""
    path = tmp_path / "out.jsonl"
    with JsonlSink(path) as sink:
        sink.write(_prediction(label=label), FRAME)
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["top"][0]["label"] == label


def test_a_stream_is_left_open() -> None:
    """stdout is not closed by the sink."""
    stream = io.StringIO()
    with JsonlSink(stream) as sink:
        sink.write(_prediction(), FRAME)
    assert not stream.closed


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_one_line() -> None:
    """The first write that fails is an error that names the file; closing afterwards adds no second one."""
    with pytest.raises(ConfigError, match="/dev/full") as caught, JsonlSink(Path("/dev/full")) as sink:
        sink.write(_prediction(), FRAME)
    assert "free some space" in caught.value.hint
    assert caught.value.exit_code == 2


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    """A folder, and a path below a file."""
    for path in (tmp_path, tmp_path / "no" / "such" / "folder.jsonl"):
        with pytest.raises(ConfigError, match="cannot write"):
            JsonlSink(path)


def test_closing_twice(tmp_path: Path) -> None:
    """close may be called more than once."""
    sink = JsonlSink(tmp_path / "out.jsonl")
    sink.close()
    sink.close()
    assert (tmp_path / "out.jsonl").read_bytes() == b""


@pytest.mark.parametrize("append", [False, True])
def test_a_second_run_on_the_same_file(tmp_path: Path, append: bool) -> None:
    """It replaces the file, or continues it with ``append``."""
    path = tmp_path / "out.jsonl"
    for frame in range(2):
        with JsonlSink(path, append=append) as sink:
            sink.write(_prediction(frame), FRAME)
    frames = [json.loads(line)["frame"] for line in path.read_text().splitlines()]
    assert frames == ([0, 1] if append else [1])


def test_large_files_are_rotated(tmp_path: Path) -> None:
    """With a limit the older files are numbered, and the newest ones are kept."""
    path = tmp_path / "out.jsonl"
    with JsonlSink(path, max_bytes=1000, keep=2) as sink:
        for frame in range(20):
            sink.write(_prediction(frame), FRAME)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out.jsonl", "out.jsonl.1", "out.jsonl.2"]
    names = ("out.jsonl.2", "out.jsonl.1", "out.jsonl")
    rows = [json.loads(line)["frame"] for name in names for line in (tmp_path / name).read_text().splitlines()]
    assert rows == list(range(20 - len(rows), 20))
    assert all((tmp_path / name).stat().st_size <= 1000 for name in names)


@pytest.mark.parametrize("stream", [False, True])
def test_a_disk_that_has_space_again(tmp_path: Path, stream: bool) -> None:
    """While the disk is full each write fails; afterwards whole lines follow, with no incomplete one in between."""
    path = tmp_path / "out.jsonl"
    with path.open("w") as file:
        sink = JsonlSink(file if stream else path)
        sink.write(predicted(0), FRAME)
        with files_up_to(path.stat().st_size + 100):
            for frame in (1, 2):
                with pytest.raises(ConfigError, match="cannot write"):
                    sink.write(predicted(frame), FRAME)
        for frame in (3, 4):
            sink.write(predicted(frame), FRAME)
        sink.close()
    rows = [json.loads(line)["frame"] for line in path.read_text().splitlines()]
    # A stream's own buffer may hold on to a line that it refused, and write it later.
    assert [row for row in rows if row not in (1, 2)] == [0, 3, 4]
    assert rows == sorted(rows)
    assert stream or len(rows) == 3


@pytest.mark.parametrize("fifo", [False, True])
def test_a_reader_that_goes_away(tmp_path: Path, fifo: bool) -> None:
    """If the reader of a pipe, given as a stream or by its name, has gone, BrokenPipeError is raised."""
    path = tmp_path / "pipe"
    if fifo:
        os.mkfifo(path)
        reader: list[int] = []
        thread = threading.Thread(target=lambda: reader.append(os.open(path, os.O_RDONLY)))
        thread.start()
        sink = JsonlSink(path)
        thread.join(10)
        os.close(reader[0])
    else:
        end, start = os.pipe()
        os.close(end)
        sink = JsonlSink(os.fdopen(start, "w"))
    with pytest.raises(BrokenPipeError):
        sink.write(predicted(), FRAME)
    sink.close()
    stream = getattr(sink, "_stream", None)
    if stream is not None:
        with pytest.raises(BrokenPipeError):
            stream.close()


@pytest.mark.parametrize("options", [{"max_bytes": 0}, {"keep": 0}, {"sync": "sometimes"}])
def test_invalid_options(tmp_path: Path, options: dict[str, Any]) -> None:
    """Refused before the file is touched."""
    with pytest.raises(ConfigError):
        JsonlSink(tmp_path / "out.jsonl", **options)
    assert list(tmp_path.iterdir()) == []
