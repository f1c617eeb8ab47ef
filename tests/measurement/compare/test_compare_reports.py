"""Comparisons of two reports, row by row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from reports import answers, bench_result, offline_result, report, row, usual

from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.measurement.compare.compare import compare_files
from edge_resnet.measurement.compare.deltas import Comparison
from edge_resnet.measurement.report.record import Report, to_json


def compared(folder: Path, old: Report, new: Report, *, force: bool = False) -> Comparison:
    paths = []
    for name, content in (("old", old), ("new", new)):
        paths.append(folder / f"{name}.json")
        paths[-1].write_text(to_json(content), encoding="utf-8")
    return compare_files(*paths, force=force)


def verdicts(found: Comparison) -> dict[str, str]:
    return {delta.name: delta.verdict for delta in found.deltas if delta.verdict != "same"}


def test_a_report_is_the_same_as_itself(tmp_path: Path) -> None:
    """The figures are each row's latency, batches and accuracy, and none changed."""
    found = compared(tmp_path, usual(), usual())
    assert verdicts(found) == {}
    assert [delta.name for delta in found.deltas][2:5] == [
        "resnet18 int8, single-stream p90",
        "resnet18 int8, offline throughput, batch 8",
        "resnet18 int8, top-1",
    ]
    assert all(delta.change_ci95 is not None for delta in found.deltas if delta.unit == "%")


def test_a_regression_names_its_row(tmp_path: Path) -> None:
    """A slower p90, fewer images per second, and eight images that only the old network classifies correctly."""
    old = report(replace(row("a int8", 9.0, answers(300), "int8"), batches=(offline_result(8, 130.0),)))
    new = report(replace(row("a int8", 12.0, answers(292), "int8"), batches=(offline_result(8, 100.0),)))
    found = compared(tmp_path, old, new)
    assert set(verdicts(found).values()) == {"worse"}
    assert len(verdicts(found)) == 3
    assert found.regressed


def test_rows_are_known_by_network_precision_and_backend(tmp_path: Path) -> None:
    """Whatever their labels; where several match, by label. What only one report has is noted."""
    old = report(row("a fp32", 9.0, None), row("b fp32", 9.0, None))
    new = report(replace(row("a fp32", 12.0, None), label="a fp32, Orin"), row("c fp32", 9.0, None))
    found = compared(tmp_path, old, new)
    assert verdicts(found) == {"a fp32, single-stream p90": "worse"}
    assert {"only the old one has b fp32", "only the new one has c fp32"} <= set(found.notes)
    twins = report(row("a fp32", 9.0, None), replace(row("a fp32", 20.0, None), label="a fp32 (2)"))
    assert verdicts(compared(tmp_path, twins, twins)) == {}
    with pytest.raises(DataError, match="no row of"):
        compared(tmp_path, report(row("a fp32", 9.0, None)), report(row("b fp32", 9.0, None)))


def test_other_images_and_other_machines(tmp_path: Path) -> None:
    """On other images the intervals decide, which is noted; another machine is refused, or noted with --force."""
    old, other = row("a fp32", 9.0, answers(300)), row("a fp32", 9.0, answers(292))
    assert other.accuracy is not None
    changed = replace(other, accuracy=replace(other.accuracy, data_digest="e"))
    found = compared(tmp_path, report(old), report(changed))
    assert verdicts(found) == {"a fp32, top-1": "unclear"}
    assert "a fp32: top-1 is not compared image by image: the images differ" in found.notes
    bare = replace(other, accuracy=replace(other.accuracy, right=""))
    assert any("eval --save keeps the results per image" in note for note in compared(tmp_path, report(old), report(bare)).notes)
    result = bench_result(9.0)
    orin = replace(old, latency=replace(result, device=replace(result.device, board="Orin")))
    with pytest.raises(ConfigError, match="different machines"):
        compared(tmp_path, report(old), report(orin))
    assert "board was None, is Orin" in compared(tmp_path, report(old), report(orin), force=True).notes
