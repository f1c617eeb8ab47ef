"""One line of JSON per prediction: the documented keys, and only what JSON allows."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sinksamples import WALL_NS, predicted

from edge_resnet.runtime.postprocess import ClassScore
from edge_resnet.streaming.records import Answer, Prediction
from edge_resnet.streaming.sinks.serialise import to_json, utc

_numbers = st.floats(allow_nan=False, allow_infinity=False)
_scores = st.builds(ClassScore, st.integers(-1, 10**6), st.text(), _numbers)
_answers = st.builds(Answer, st.integers(-1, 10**6), st.text(), _numbers, st.booleans())
_predictions = st.builds(
    Prediction,
    source=st.text(st.characters()),
    frame=st.integers(0, 2**62),
    captured_ns=st.integers(0, 2**62),
    age_ms=_numbers,
    top=st.lists(_scores, min_size=1, max_size=5).map(tuple),
    stages_ms=st.dictionaries(st.text(), _numbers, max_size=4),
    wall_ns=st.integers(0, 2**62),
    answer=st.none() | _answers,
)


@given(_predictions)
def test_what_is_written_parses_back(prediction: Prediction) -> None:
    """A line is ASCII without a newline, and is read back as the prediction's fields and its time."""
    line = to_json(prediction)
    assert line.isascii()
    assert "\n" not in line
    row = json.loads(line)
    time = row.pop("time")
    assert row == json.loads(json.dumps(asdict(prediction)))
    assert time == utc(prediction.wall_ns)


def test_the_keys_come_in_the_documented_order() -> None:
    """The order of the documentation."""
    keys = ["source", "frame", "captured_ns", "wall_ns", "time", "age_ms", "top", "stages_ms", "answer"]
    row = json.loads(to_json(predicted(7)))
    assert list(row) == keys
    assert list(row["answer"]) == ["class_index", "label", "probability", "changed"]
    assert list(row["top"][0]) == ["class_index", "label", "probability"]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_null(number: float) -> None:
    """JSON has no NaN: strict parsers accept the line all the same."""
    broken = replace(predicted(), age_ms=number, top=(ClassScore(0, "a", number),))

    def refuse(name: str) -> float:
        raise AssertionError(name)

    row = json.loads(to_json(broken), parse_constant=refuse)
    assert row["age_ms"] is None
    assert row["top"] == [{"class_index": 0, "label": "a", "probability": None}]
    assert row["frame"] == 0


@pytest.mark.parametrize(
    ("wall_ns", "text"),
    [
        (WALL_NS, "2026-11-25T14:15:02.123Z"),
        (WALL_NS + 999_999, "2026-11-25T14:15:02.123Z"),
        (1_000_000, "1970-01-01T00:00:00.001Z"),
        (0, None),
        (10**30, None),
    ],
)
def test_times_in_utc(wall_ns: int, text: str | None) -> None:
    """Coordinated universal time in milliseconds; null if the time is not known."""
    assert utc(wall_ns) == text


@given(st.integers(1, 253_402_300_799 * 10**9))
def test_a_time_is_read_back(wall_ns: int) -> None:
    """A time read back is the one given, truncated to milliseconds."""
    text = utc(wall_ns)
    assert text is not None
    moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
    expected = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=wall_ns // 10**6)
    assert moment == expected
    assert len(text) == 24
