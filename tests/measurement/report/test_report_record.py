"""A report's file is read back unchanged, or refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from reports import report, row, usual

from edge_resnet.core.errors import DataError
from edge_resnet.measurement.report.record import SCHEMA, read_report, to_json


def test_a_report_is_read_back_unchanged(tmp_path: Path) -> None:
    """Every field, samples and flips included."""
    path = tmp_path / "report.json"
    path.write_text(to_json(usual()), encoding="utf-8")
    assert read_report(path) == usual()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    """Wherever it is cut off, the error says so and names the file."""
    text = to_json(usual())
    path = tmp_path / "report.json"
    path.write_text(text[: int(share * len(text.rstrip()))], encoding="utf-8")
    with pytest.raises(DataError, match="cut off") as caught:
        read_report(path)
    assert str(path) in caught.value.message


def test_a_newer_schema_is_refused_with_a_hint(tmp_path: Path) -> None:
    """The schema is reported before any unknown field is."""
    content = json.loads(to_json(report(row("a fp32", 1.0, None))))
    content.update(schema_version=SCHEMA + 1, something_new=1)
    path = tmp_path / "report.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"schema {SCHEMA + 1}") as caught:
        read_report(path)
    assert "pip install -U" in caught.value.hint


@pytest.mark.parametrize("content", ["[]", '"text"', '{"kind": "edge-resnet bench"}', '{"rows": []}'])
def test_another_kind_of_file_is_refused(tmp_path: Path, content: str) -> None:
    """JSON of another kind is not read as a report."""
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(DataError, match="not written by edge-resnet report"):
        read_report(path)


def test_a_wrong_value_is_named(tmp_path: Path) -> None:
    """The path to the field is in the message."""
    content = json.loads(to_json(usual()))
    content["rows"][1]["latency"]["p90_ms"] = "fast"
    path = tmp_path / "report.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"rows\.1\.latency\.p90_ms"):
        read_report(path)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    """A path that does not exist is the user's error."""
    with pytest.raises(DataError, match="cannot be read"):
        read_report(tmp_path / "none.json")
