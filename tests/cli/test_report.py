"""`edge-resnet report` as people and programs see it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from children import started
from refusals import assert_refused

from edge_resnet.artifact.folder import Artifact
from edge_resnet.measurement.report import read_report
from edge_resnet.studies.sweep import run as running

Cli = Callable[..., Any]
QUICK = ("--backends", "onnxruntime", "--seconds", "0.05", "--batch", "1")


@pytest.fixture(autouse=True)
def quick_starts(request: pytest.FixtureRequest, brief_bench: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Brief benchmarks, with cold starts only in the test that asks for ``cold_start``: they take most of the time."""
    if "cold_start" not in request.fixturenames:
        monkeypatch.setattr("edge_resnet.measurement.bench.bench.measure_startup", lambda *_: None)


@pytest.fixture
def cold_start() -> None:
    """Measure cold starts."""


@pytest.fixture
def given(tiny_artifacts: dict[str, Artifact], smooth_images: Path) -> tuple[str, ...]:
    """Two finished artifacts and labelled images."""
    folders = [str(tiny_artifacts[precision].folder) for precision in ("fp32", "int8")]
    return (*folders, "--data", str(smooth_images), *QUICK)


@pytest.fixture
def weights_dir(tmp_path: Path, tiny_weights: Path) -> Path:
    """A folder with weights for depth 8 only."""
    folder = tmp_path / "weights"
    folder.mkdir()
    shutil.copyfile(tiny_weights, folder / "resnet8-cifar.safetensors")
    return folder


def test_artifacts_become_a_page(cli: Cli, given: tuple[str, ...], tmp_path: Path) -> None:
    """Answers on stdout, a line per cell with the remaining time on stderr, and the files in the folder."""
    outcome = cli("report", *given, "--under-ms", "10000", "--within-points", "100")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0].startswith("The most accurate under 10000 ms: resnet8-cifar ")
    assert lines[1].startswith("The fastest within 100 points of the best: resnet8-cifar ")
    assert lines[-1] == "the page is report/report.html"
    cells = [line for line in outcome.err.splitlines() if "left" in line]
    assert len(cells) == 4
    assert cells[0].startswith("resnet8-cifar fp32, accuracy: measured in ")
    assert {"report.html", "report.json", "report.csv", "report.md", "front.svg", "front.png"} <= {
        path.name for path in (tmp_path / "report").iterdir()
    }


def test_json_alone_on_stdout(cli: Cli, given: tuple[str, ...], cold_start: None) -> None:
    """Rows with plain numbers, pairs, missing results."""
    outcome = cli("report", *given, "--json")
    content = json.loads(outcome.out)
    assert set(content) == {"report", "rows", "pairs", "holes", "interrupted"}
    assert [row["precision"] for row in sorted(content["rows"], key=lambda row: row["label"])] == ["fp32", "int8"]
    assert all(row["p90_ms_low"] <= row["p90_ms"] <= row["p90_ms_high"] for row in content["rows"])
    assert all(row["cold_start_ms"] > row["p90_ms"] for row in content["rows"])
    assert content["pairs"][0]["images"] == 64
    assert content["interrupted"] is False


def test_a_sweep_of_depths_continues_without_the_weights_of_one(
    cli: Cli, weights_dir: Path, smooth_images: Path, tmp_path: Path
) -> None:
    """Depth 8 is measured; depth 14 is listed as not measured on stderr and on the page."""
    args = ("--family", "cifar", "--depths", "8,14", "--weights-dir", str(weights_dir), "--data", str(smooth_images))
    outcome = cli("report", *args, *QUICK, "--calib-images", "20", "--calib-method", "max", "--allow-random", "-o", "out")
    assert outcome.code == 0, outcome.err
    assert "not measured: resnet14-cifar fp32, resnet14-cifar int8: there are no weights for resnet14-cifar" in outcome.err
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "there are no weights for resnet14-cifar" in page
    assert "44 of the 64 images of smooth" in page
    assert "correction: bias" in page
    again = cli("report", *args, *QUICK, "--calib-images", "20", "--calib-method", "max", "--allow-random", "-o", "out")
    assert "measured in" not in again.err
    assert ": made" not in again.err


def test_two_files_for_one_depth_are_refused(cli: Cli, weights_dir: Path) -> None:
    """With both names, before anything is built."""
    shutil.copyfile(weights_dir / "resnet8-cifar.safetensors", weights_dir / "resnet8b.safetensors")
    outcome = cli("report", "--family", "cifar", "--depths", "8", "--weights-dir", str(weights_dir))
    assert_refused(outcome, "resnet8-cifar.safetensors", "resnet8b.safetensors")


def test_ctrl_c_keeps_and_reports_what_was_measured(
    cli: Cli, given: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 130, a page that says so, and the next run continues."""
    measure = running.measure_latency

    def stopped(artifact: Artifact, *args: Any, **options: Any) -> Any:
        if artifact.manifest.precision == "int8":
            raise KeyboardInterrupt
        return measure(artifact, *args, **options)

    monkeypatch.setattr(running, "measure_latency", stopped)
    outcome = cli("report", *given)
    assert outcome.code == 130
    assert "run the same command again to continue" in outcome.err
    assert read_report(tmp_path / "report/report.json").interrupted
    assert "Interrupted." in (tmp_path / "report/report.html").read_text(encoding="utf-8")
    monkeypatch.setattr(running, "measure_latency", measure)
    outcome = cli("report", *given)
    assert outcome.code == 0, outcome.err
    assert outcome.err.count(": kept") == 3
    assert outcome.err.count(": measured") == 1


def test_ctrl_c_before_anything_was_measured(cli: Cli, given: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to report: only `interrupted`."""

    def stopped(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "measure_answers", stopped)
    outcome = cli("report", *given)
    assert (outcome.code, outcome.err.splitlines()[-1]) == (130, "error: interrupted")


def test_a_real_ctrl_c_on_a_terminal(given: tuple[str, ...], tmp_path: Path) -> None:
    """Lines with the remaining time are above the bars; SIGINT after the first line still writes a page."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    args = [sys.executable, "-m", "edge_resnet", "report", *given, "--seconds", "60"]
    printed, sent = b"", False
    with started(args, cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        with suppress(OSError):  # the other end is closed
            while block := os.read(ours, 1 << 16):
                printed += block
                if not sent and b", accuracy: measured" in printed:
                    process.send_signal(signal.SIGINT)
                    sent = True
    os.close(ours)
    assert process.returncode == 130, printed.decode()
    # Two networks, each measured for 60 s and about 6 more, on a busy machine longer.
    assert re.search(rb"resnet8-cifar fp32, accuracy: measured in \d+ s; about [2-5] min left", printed), printed.decode()
    assert b"run the same command again to continue" in printed
    assert read_report(tmp_path / "report/report.json").interrupted


def test_an_existing_report_is_resumed_replaced_or_refused(cli: Cli, given: tuple[str, ...], tmp_path: Path) -> None:
    """According to the options; a folder with other files is never changed."""
    assert cli("report", *given).code == 0
    assert_refused(cli("report", *given, "--no-resume"), "already contains a report", "--force")
    assert ": measured" in cli("report", *given, "--force").err
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.tex").touch()
    assert_refused(cli("report", *given, "-o", "thesis", "--force"), "contains no report")


def test_a_result_file_is_drawn_without_any_network(cli: Cli, given: tuple[str, ...], tmp_path: Path) -> None:
    """A report's JSON in another folder; a truncated one is refused."""
    assert cli("report", *given).code == 0
    outcome = cli("report", "report/report.json", "-o", "again")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "again/front.svg").read_bytes() == (tmp_path / "report/front.svg").read_bytes()
    half = tmp_path / "half.json"
    half.write_text((tmp_path / "report/report.json").read_text(encoding="utf-8")[:5000], encoding="utf-8")
    assert_refused(cli("report", "half.json", "-o", "third"), "half.json is cut off")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "nothing to report on"),
        (("--depths", ""), "nothing to report on"),
        (("--depths", "eighteen"), "--depths takes whole numbers"),
        (("--depths", "19"), "no ImageNet ResNet has depth 19"),
        (("--depths", "18", "--precisions", "int4"), "there is no precision int4"),
        (("--depths", "18", "--precisions", ""), "no precision is given"),
        (("--depths", "18", "--batch", "0"), "at least one image"),
        (("--depths", "18", "--under-ms", "-1"), "--under-ms takes a number above 0"),
        (("--depths", "18", "--weights-dir", "none"), "none is not a folder of weights"),
        (("nowhere",), "no artifact at nowhere"),
    ],
)
def test_invalid_requests_are_refused(cli: Cli, args: tuple[str, ...], message: str) -> None:
    """One error and one hint, before anything is measured."""
    assert_refused(cli("report", *args), message)


def test_labels_of_another_network_are_refused(cli: Cli, given: tuple[str, ...], tmp_path: Path) -> None:
    """The error has the class and the network's range."""
    archive = np.load(given[3])
    np.savez(tmp_path / "other.npz", images=archive["images"], labels=archive["labels"] + 500)
    assert_refused(cli("report", *given[:3], "other.npz", *QUICK), "the network knows 0..9")
