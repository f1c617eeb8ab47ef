"""Rows from result files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from reports import answers, bench_result, evaluation, offline_result, report, row, usual

from edge_resnet.core.errors import DataError
from edge_resnet.measurement.accuracy import write_evaluation
from edge_resnet.measurement.bench.result import BenchResult, write_results
from edge_resnet.measurement.report.record import Report, to_json
from edge_resnet.studies.sweep.merge import from_files


def _report(folder: Path, name: str, content: Report) -> Path:
    path = folder / name
    path.write_text(to_json(content), encoding="utf-8")
    return path


def _on(board: str, result: BenchResult) -> BenchResult:
    return replace(result, device=replace(result.device, board=board))


def _evaluation(folder: Path, **changes: Any) -> Path:
    path = folder / "eval.json"
    write_evaluation(path, evaluation(answers(300), **changes))
    return path


def test_scenarios_of_one_artifact_are_one_row(tmp_path: Path) -> None:
    """Single-stream and two offline batches share a row; another artifact has its own; multi-stream is listed as not shown."""
    results = [
        bench_result(9.0),
        offline_result(8, 100.0),
        offline_result(32, 120.0),
        bench_result(5.0, artifact_digest="cd" * 32),
        bench_result(30.0, scenario="multi-stream"),
    ]
    write_results(tmp_path / "bench.json", results)
    found = from_files([tmp_path / "bench.json"])
    assert [(one.latency.p90_ms, [r.batch for r in one.batches]) for one in found.rows if one.latency] == [
        (9.0, [8, 32]),
        (5.0, []),
    ]
    assert ["multi-stream" in one.what for one in found.missing] == [True]


def test_an_accuracy_goes_to_the_row_of_its_artifact(tmp_path: Path) -> None:
    """In any order of the files, with the predictions of every image."""
    write_results(tmp_path / "bench.json", [bench_result(9.0), bench_result(5.0, artifact_digest="cd" * 32)])
    found = from_files([_evaluation(tmp_path), tmp_path / "bench.json"])
    assert [None if one.accuracy is None else (one.accuracy.top1, one.accuracy.right) for one in found.rows] == [
        (75.0, answers(300)),
        None,
    ]
    assert found.missing == ()


@pytest.mark.parametrize("changes", [{"artifact_digest": "ef" * 32}, {"backend": "openvino"}, {"simulated": True}])
def test_an_accuracy_of_another_artifact_is_a_missing_result(tmp_path: Path, changes: dict[str, Any]) -> None:
    """So is one of another backend, or of simulated INT8; the remedy says what to do."""
    write_results(tmp_path / "bench.json", [bench_result(9.0)])
    found = from_files([tmp_path / "bench.json", _evaluation(tmp_path, **changes)])
    assert all(one.accuracy is None for one in found.rows)
    assert "no bench result of its artifact" in found.missing[0].reason
    assert found.missing[0].remedy


def test_rows_of_two_boards_stay_separate(tmp_path: Path) -> None:
    """Rows and pairs are labelled with their machine, and missing results with their file."""
    paths = []
    for board in ("Nano", "Orin"):
        content = usual()
        rows = tuple(replace(one, latency=_on(board, one.latency)) for one in content.rows if one.latency)
        paths.append(_report(tmp_path, f"{board}.json", replace(content, rows=rows)))
    found = from_files(paths)
    labels = {one.label for one in found.rows}
    assert len(labels) == 8
    assert {"resnet18 int8, Nano", "resnet18 int8, Orin"} <= labels
    assert {pair.row for pair in found.pairs} | {pair.reference for pair in found.pairs} <= labels
    assert len(found.setups) == 2
    assert "Nano.json" in found.missing[0].what


def test_reports_of_one_machine_keep_their_labels(tmp_path: Path) -> None:
    """The machine is added only if there are several."""
    found = from_files([_report(tmp_path, "a.json", report(row("a fp32", 9.0, answers(300))))])
    assert [one.label for one in found.rows] == ["a fp32"]


@pytest.mark.parametrize("text", ["", "{", '[{"kind": "edge-resnet bench", "p50'])
def test_a_truncated_file_is_refused(tmp_path: Path, text: str) -> None:
    """Whatever kind of file it was."""
    path = tmp_path / "half.json"
    path.write_text(text)
    with pytest.raises(DataError, match="cut off"):
        from_files([path])


def test_other_files_are_refused(tmp_path: Path) -> None:
    """So are an evaluation with invalid values and a missing file."""
    strange = _evaluation(tmp_path)
    strange.write_text(strange.read_text().replace('"top1": 75.0', '"top1": "high"'))
    for path, message in ((strange, "top1"), (tmp_path / "none.json", "cannot be read")):
        with pytest.raises(DataError, match=message):
            from_files([path])
    (tmp_path / "list.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="not written by edge-resnet bench"):
        from_files([tmp_path / "list.json"])
