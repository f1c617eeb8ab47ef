"""Sinks by name: each string opens its sink and nothing else, and what names none is refused with the list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_resnet.core.errors import ConfigError
from edge_resnet.streaming.outputs import Outputs, RunView, open_sinks
from edge_resnet.streaming.records import Frame, Prediction
from edge_resnet.streaming.sinks.named import FunctionSink, outputs_of

NONE = Outputs(frame_counter=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("jsonl:out.jsonl", Outputs(jsonl="out.jsonl", frame_counter=False)),
        ("jsonl:-", Outputs(jsonl="-", frame_counter=False)),
        ("web:8080", Outputs(web="127.0.0.1:8080", frame_counter=False)),
        ("web:0.0.0.0:8080", Outputs(web="0.0.0.0:8080", frame_counter=False)),
        ("mqtt:broker:1883/door", Outputs(mqtt="broker:1883/door", frame_counter=False)),
        ("video:seen.mp4", Outputs(save_video=Path("seen.mp4"), frame_counter=False)),
        ("uncertain:unsure", Outputs(record_uncertain=Path("unsure"), frame_counter=False)),
        ("window", Outputs(window=True, frame_counter=False)),
    ],
)
def test_each_name_is_one_sink(text: str, expected: Outputs) -> None:
    """The target is what follows the first colon; a port alone is of this machine."""
    assert outputs_of([text]) == expected


def test_several_are_all_there() -> None:
    """In one Outputs; none are none."""
    found = outputs_of(["jsonl:a.jsonl", "web:0", "window"])
    assert (found.jsonl, found.web, found.window) == ("a.jsonl", "127.0.0.1:0", True)
    assert outputs_of([]) == NONE


@pytest.mark.parametrize("text", ["", "jsonl", "jsonl:", "web:", "window:1", "file:out", "JSONL:out", "out.jsonl", ":x", "video"])
def test_what_names_no_sink_is_refused(text: str) -> None:
    """The hint lists those that there are."""
    with pytest.raises(ConfigError, match="names no sink") as error:
        outputs_of([text])
    assert "jsonl:FILE" in error.value.hint


def test_the_same_kind_twice_is_refused() -> None:
    """One of them would be dropped otherwise."""
    with pytest.raises(ConfigError, match="two sinks of kind jsonl") as error:
        outputs_of(["jsonl:a", "jsonl:b"])
    assert error.value.hint


def test_nothing_is_written_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the counter of frames, on a terminal: a library does not print."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    view = RunView(lambda: pytest.fail("nobody asks"), lambda: None, live=False, several=False, tell=print)
    with open_sinks(outputs_of([]), view) as sinks:
        assert list(sinks) == []
    with open_sinks(Outputs(), view) as sinks:
        assert [sink.name for sink in sinks] == ["progress"]


def test_a_function_gets_every_prediction() -> None:
    """In order; it needs no pixels, and closing twice is harmless."""
    seen: list[Prediction] = []
    prediction, frame = Prediction("cam", 0, 0, 0.0, ()), Frame(np.zeros((0, 0, 3), np.uint8), 0, 0, "cam")
    with FunctionSink(seen.append) as sink:
        sink.write(prediction, frame)
        sink.write(prediction, frame)
        assert not sink.wants_frames
        sink.close()
    assert seen == [prediction, prediction]
