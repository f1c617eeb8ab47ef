"""JSON lines: whole, flushed, with the promised keys; a disk that fails is one line."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from edge_resnet.errors import ConfigError
from edge_resnet.frame import Frame
from edge_resnet.sinks.jsonl import JsonlSink
from edge_resnet.spec import ClassScore, Prediction

FRAME = Frame(np.zeros((4, 6, 3), np.uint8), 0, 0, "camera:0")


def _prediction(frame: int = 0, label: str = "tabby") -> Prediction:
    scores = (ClassScore(281, label, 0.75), ClassScore(282, "tiger cat", 0.2))
    return Prediction("camera:0", frame, 123456789, 4.5, scores, {"preprocess": 1.0, "inference": 3.0, "postprocess": 0.1})


def test_the_keys_are_the_documented_ones() -> None:
    """A line holds exactly the documented keys, and the numbers that were given."""
    stream = io.StringIO()
    JsonlSink(stream).write(_prediction(7), FRAME)
    row = json.loads(stream.getvalue())
    assert set(row) == {"source", "frame", "captured_ns", "age_ms", "top", "stages_ms", "wall_ns", "answer"}
    assert row["top"][0] == {"class_index": 281, "label": "tabby", "probability": 0.75}
    assert (row["source"], row["frame"], row["captured_ns"], row["age_ms"]) == ("camera:0", 7, 123456789, 4.5)
    assert row["stages_ms"] == {"preprocess": 1.0, "inference": 3.0, "postprocess": 0.1}


def test_each_line_is_there_when_it_was_written(tmp_path: Path) -> None:
    """A reader of the open file sees whole lines only, and all of them."""
    path = tmp_path / "out.jsonl"
    with JsonlSink(path) as sink:
        for frame in range(3):
            sink.write(_prediction(frame), FRAME)
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            assert [row["frame"] for row in rows] == list(range(frame + 1))


@pytest.mark.parametrize("label", ["größe", "ねこ", 'quote " and \\', "line\nbreak", "\ud800"])
def test_any_label_survives(tmp_path: Path, label: str) -> None:
    """Labels of any alphabet come back as they were, one line each."""
    path = tmp_path / "out.jsonl"
    with JsonlSink(path) as sink:
        sink.write(_prediction(label=label), FRAME)
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["top"][0]["label"] == label


def test_a_stream_is_left_open() -> None:
    """stdout is not ours to close."""
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


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    """A folder, and a path below a file."""
    for path in (tmp_path, tmp_path / "no" / "such" / "folder.jsonl"):
        with pytest.raises(ConfigError, match="cannot write"):
            JsonlSink(path)


def test_closing_twice(tmp_path: Path) -> None:
    """close is harmless, however often."""
    sink = JsonlSink(tmp_path / "out.jsonl")
    sink.close()
    sink.close()
