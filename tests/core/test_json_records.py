"""A record is read from a file only if it is complete, of its kind, and of a known schema."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.core.errors import DataError
from edge_resnet.core.files import parse_record, read_json


@dataclass(frozen=True)
class Note:
    """Any record."""

    schema_version: int
    kind: str
    numbers: tuple[float, ...]


def parsed(content: Any) -> Note:
    return parse_record(Path("note.json"), content, Note, kind="edge-resnet note", schema=2)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_it_comes_back_as_it_was(numbers: list[float]) -> None:
    """What was written is what is read."""
    note = Note(2, "edge-resnet note", tuple(numbers))
    assert parsed(json.loads(json.dumps(asdict(note)))) == note


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "not written by edge-resnet note"),
        ({"kind": "edge-resnet bench", "schema_version": 1}, "not written by edge-resnet note"),
        ({"kind": "edge-resnet note"}, "has schema None"),
        ({"kind": "edge-resnet note", "schema_version": 3}, "has schema 3, this edge-resnet reads up to 2"),
        ({"kind": "edge-resnet note", "schema_version": 1, "numbers": ["one"]}, "numbers.0"),
        ({"kind": "edge-resnet note", "schema_version": 1}, "numbers: Field required"),
    ],
)
def test_other_content_is_refused(content: Any, words: str) -> None:
    """Each error is one line that names the file and the fault, with a hint."""
    with pytest.raises(DataError, match=words) as caught:
        parsed(content)
    assert "note.json" in caught.value.message
    assert caught.value.hint


def test_no_json(tmp_path: Path) -> None:
    """A missing file, a folder, and half a file."""
    half = tmp_path / "half.json"
    half.write_text('{"kind": "edge')
    for path, words in ((tmp_path / "none", "cannot be read"), (tmp_path, "cannot be read"), (half, "cut off")):
        with pytest.raises(DataError, match=words) as caught:
            read_json(path)
        assert caught.value.hint
