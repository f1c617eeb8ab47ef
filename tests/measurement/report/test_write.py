"""The files that a report writes, for whole and for partial reports."""

from __future__ import annotations

import csv
import errno
import importlib.util
import io
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reports import PIXEL, answers, bench_result, report, row, usual

from edge_resnet.core.errors import BuildError, MissingDependencyError
from edge_resnet.measurement.report.advice import answer_lines, findings
from edge_resnet.measurement.report.record import MissingResult, Pair, read_report
from edge_resnet.measurement.report.table import caveats_of, environment, records, to_csv
from edge_resnet.measurement.report.write import Questions, check_drawable, write_report


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The usual report, written."""
    folder = tmp_path_factory.mktemp("report")
    write_report(usual(), folder, Questions(20.0, 2.0))
    return folder


def test_all_files_are_there_and_nothing_else(folder: Path) -> None:
    """JSON, CSV, Markdown, page, and each chart twice."""
    charts = [f"{name}.{kind}" for name in ("classes-1", "cost", "front", "latencies") for kind in ("png", "svg")]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*charts, "report.csv", "report.html", "report.json", "report.md"]
    )
    assert read_report(folder / "report.json") == usual()


def test_a_full_disk_keeps_the_report_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the file, the old one is whole, and nothing else is left."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "report.json").write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BuildError, match=r"report\.json: No space left"):
        write_report(usual(), tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("report.json", "old")]


def test_the_page_is_self_contained(folder: Path) -> None:
    """It refers to no other file and no host: it holds its images, style and script."""
    page = (folder / "report.html").read_text(encoding="utf-8")
    for target in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert target.startswith(("#", "data:image/"))
    assert "http" not in re.sub(r"http-equiv|http://www\.w3\.org/[^\"]+", "", page)
    assert page.count(PIXEL) == 3
    assert len(re.findall(r"<svg", page)) == 4


def test_the_page_answers_what_was_asked(folder: Path) -> None:
    """Both answers first, then the findings; the missing result with its reason."""
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "The most accurate under 20.0 ms: resnet50 int8, 76.2 % at 19.5 ms." in page
    assert "The fastest within 2 points of the best: resnet50 int8" in page
    assert "no weights for it" in page
    assert page.index("The most accurate under 20.0 ms:") < page.index("Most accurate: resnet50 fp32")


def test_no_id_is_used_twice(folder: Path) -> None:
    """Charts in one page do not use each other's clips and markers."""
    ids = re.findall(r'\bid="([^"]+)"', (folder / "report.html").read_text(encoding="utf-8"))
    assert len(ids) == len(set(ids))


def test_the_csv_has_a_line_per_row_with_plain_numbers() -> None:
    """The fastest first; an empty cell where a figure was not measured."""
    lines = list(csv.DictReader(io.StringIO(to_csv(usual()))))
    assert [line["label"] for line in lines] == ["resnet18 int8", "resnet18 fp32", "resnet50 int8", "resnet50 fp32"]
    assert float(lines[0]["p90_ms"]) == 9.0
    assert float(lines[0]["top1_low"]) < float(lines[0]["top1"]) < float(lines[0]["top1_high"])
    assert [line["images_per_s_batch_8"] for line in lines] == ["130.0", "", "", ""]
    assert "mj_per_image" not in lines[0]


def test_the_same_report_gives_the_same_page(folder: Path, tmp_path: Path) -> None:
    """It does not depend on when or where it is drawn."""
    write_report(read_report(folder / "report.json"), tmp_path, Questions(20.0, 2.0))
    for name in ("report.html", "report.md", "front.svg", "front.png"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_latency_alone_is_a_report_that_says_so(tmp_path: Path) -> None:
    """No front and no choices; the first sentence says that accuracy is missing."""
    found = report(row("resnet18 fp32", 18.0, None), row("resnet18 int8", 9.0, None, "int8"))
    write_report(found, tmp_path)
    assert findings(found)[0] == "Fastest: resnet18 int8, 9.00 ms p90. Accuracy was not measured."
    assert not (tmp_path / "front.svg").exists()
    assert (tmp_path / "latencies.svg").exists()
    assert "Which network to choose" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_accuracy_alone_is_a_report_too(tmp_path: Path) -> None:
    """Where every latency is missing, the accuracies are shown."""
    write_report(report(row("resnet18 fp32", None, answers(300))), tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "75.0" in page
    assert not (tmp_path / "latencies.svg").exists()


def test_a_pair_without_labels_shows_what_changes(tmp_path: Path) -> None:
    """Agreement is known without labels; points are not."""
    pair = Pair("resnet18 fp32", "resnet18 int8", 40, 95.0, 2, None, None)
    found = report(row("resnet18 fp32", 18.0, None), row("resnet18 int8", 9.0, None, "int8"), pairs=(pair,))
    write_report(found, tmp_path)
    assert "predicts the same class for 95.0 % of 40 images" in " ".join(findings(found))
    assert "no labels" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not (tmp_path / "cost.svg").exists()


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    """A label with markup, quotes and pipes is text in page, chart and Markdown."""
    evil = '<script>alert("x")</script>|&'
    found = report(row(evil, 18.0, answers(300)), holes=(MissingResult(evil, evil, evil),), title=evil)
    write_report(found, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<script>") == 1
    assert "\\|" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_disturbed_latencies_are_called_unreliable_in_the_summary() -> None:
    """A reader of only the summary learns it."""
    one = row("resnet18 fp32", 18.0, answers(300))
    assert one.latency is not None
    conditions = replace(one.latency.conditions, others_share=0.4)
    busy = replace(one, latency=replace(one.latency, conditions=conditions))
    assert not any("unreliable" in line for line in findings(report(one)))
    assert any("unreliable: other programs used up to 40 % of the CPU" in line for line in findings(report(busy)))


def test_a_warning_is_given_once_with_all_its_rows() -> None:
    """Two rows with the same warning are one line."""
    rows = [replace(row(f"r{i} fp32", 9.0 + i, None), latency=bench_result(9.0 + i, warnings=("it was hot",))) for i in (0, 1)]
    assert caveats_of(report(*rows)) == ["r0 fp32, r1 fp32: it was hot"]


def test_the_environment_names_each_machine_once() -> None:
    """Rows of one machine share a line; another machine has its own."""
    one, other = row("a fp32", 9.0, None), row("b fp32", 10.0, None)
    assert other.latency is not None
    device = replace(other.latency.device, board="a board", power_mode="25W")
    other = replace(other, latency=replace(other.latency, device=device))
    machines = [value for name, value in environment(report(one, one, other)) if name == "Machine"]
    assert len(machines) == 2
    assert machines[1].startswith("a board")
    assert "power mode 25W" in machines[1]


def test_questions_without_an_answer_say_so() -> None:
    """No network is that fast; no network has both figures."""
    lines = answer_lines(usual(), 1.0, None) + answer_lines(report(row("a fp32", 5.0, None)), None, 1.0)
    assert lines == [
        "The most accurate under 1.00 ms: no measured network is that fast.",
        "The fastest within 1 point of the best: no network has both an accuracy and a latency.",
    ]


def test_records_have_the_same_keys_in_every_row() -> None:
    """Programs need not check which figures a row has."""
    keys = [list(record) for record in records(usual())]
    assert all(one == keys[0] for one in keys)


def test_missing_packages_are_reported_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs them."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError) as caught:
        check_drawable()
    assert "edge-resnet[report]" in caught.value.hint


def test_no_chart_is_cut_off(tmp_path: Path) -> None:
    """Nothing touches the edge of an image, with names as long as two backends make them."""
    found = usual()
    names = {one.label: f"{one.label.replace('resnet', 'wide-resnet')} onnxruntime" for one in found.rows}
    rows = tuple(replace(one, label=names[one.label]) for one in found.rows)
    pairs = tuple(replace(pair, reference=names[pair.reference], row=names[pair.row]) for pair in found.pairs)
    write_report(replace(found, rows=rows, pairs=pairs), tmp_path)
    charts = sorted(tmp_path.glob("*.png"))
    assert {"front.png", "latencies.png", "cost.png", "classes-1.png"} <= {path.name for path in charts}
    for path in charts:
        pixels = np.asarray(Image.open(path).convert("L"))
        edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert (edge == 255).all(), path.name
