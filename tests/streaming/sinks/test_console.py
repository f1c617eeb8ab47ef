"""Lines for a person: one per image, few for a stream."""

from __future__ import annotations

import time
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest

from edge_resnet.runtime.postprocess import ClassScore
from edge_resnet.streaming.records import Answer, Frame, Prediction
from edge_resnet.streaming.sinks.terminal import ConsoleSink, FrameCounter

SECOND = 1_000_000_000

FRAME = Frame(np.zeros((4, 6, 3), np.uint8), 0, 0, "camera:0")


def _prediction(source: str, frame: int, label: str, at_ns: int = 0) -> Prediction:
    index = {"cat": 0, "dog": 1}[label]
    scores = tuple(ClassScore(index + offset, f"{label}{offset or ''}", 0.5 / (offset + 1)) for offset in range(5))
    return Prediction(source, frame, at_ns, 1.0, scores, {"inference": 2.0})


def _lines(*predictions: Prediction) -> list[str]:
    lines: list[str] = []
    with ConsoleSink(lines.append) as sink:
        for prediction in predictions:
            sink.write(prediction, FRAME)
    return lines


def test_every_image_has_its_line() -> None:
    """Two images with the same answer are two lines."""
    lines = _lines(_prediction("a.jpg", 0, "cat"), _prediction("b.jpg", 1, "cat"))
    assert len(lines) == 2
    assert lines[0].startswith("a.jpg #0: cat 50.0 %")


def test_a_stream_prints_changes_of_the_answer() -> None:
    """Of many frames with one answer only the first is printed."""
    frames = [_prediction("camera:0", index, "cat" if index < 20 else "dog", index) for index in range(40)]
    lines = _lines(*frames)
    assert [line.split(":")[1].split()[0] for line in lines] == ["0", "0"]
    assert "#0" in lines[0]
    assert "#20" in lines[1]


def test_a_stream_without_changes_prints_each_second() -> None:
    """Thirty frames per second with one answer: a line at the start and one per second."""
    frames = [_prediction("camera:0", index, "cat", index * SECOND // 30) for index in range(91)]
    assert len(_lines(*frames)) == 4


def test_a_line_holds_three_answers_and_the_time() -> None:
    """Not all of them, since a person reads it."""
    (line,) = _lines(_prediction("a.jpg", 0, "cat"))
    assert line.count("%") == 3
    assert "2.0 ms" in line


def test_the_same_image_twice_is_two_lines() -> None:
    """An image given twice on the command line is printed twice."""
    assert len(_lines(_prediction("a.jpg", 0, "cat"), _prediction("a.jpg", 0, "cat"))) == 2


def test_streams_do_not_make_each_other_print() -> None:
    """Two cameras whose frames alternate and do not change are two lines, not one per frame."""
    frames = [_prediction(f"camera:{index % 2}", index // 2, "dog" if index % 2 else "cat", index) for index in range(40)]
    assert [line.split()[0] for line in _lines(*frames)] == ["camera:0", "camera:1"]


def test_the_smoothed_answer_decides() -> None:
    """With smoothing the changes of the answer are printed, and its label if the frame's best class is another."""
    cat, unknown = Answer(0, "cat", 0.5, False), Answer(-1, "unknown", 0.2, True)
    frames = [
        replace(_prediction("camera:0", index, "dog" if index == 3 else "cat", index), answer=unknown if index >= 6 else cat)
        for index in range(9)
    ]
    lines = _lines(*frames)
    assert [line.split(":", 2)[1].split()[1] for line in lines] == ["#0", "#6"]
    assert lines[1].startswith("camera:0 #6: unknown <- cat 50.0 %")


def test_labels_and_names_do_not_steer_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Escape sequences in a label or a file's name are shown, by lines and by the counter, and brackets are not markup."""
    evil = "\x1b[2J\x9b31m\u202e[red]"
    prediction = replace(
        _prediction(f"{evil}.jpg", 0, "cat"), top=(ClassScore(0, evil, 0.5),), answer=Answer(0, evil, 0.5, changed=True)
    )
    (line,) = _lines(prediction)
    assert line.isprintable()
    assert r"\x1b[2J\x9b31m\u202e[red]" in line
    terminal = StringIO()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    with FrameCounter() as counter:
        counter.write(prediction, FRAME)
        time.sleep(0.2)
    assert r"\x1b[2J\x9b31m\u202e[red]" in terminal.getvalue()
    assert "\x9b" not in terminal.getvalue()
