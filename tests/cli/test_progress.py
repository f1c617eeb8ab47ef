"""What a terminal shows during long work, and the few lines that a log gets of it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from edge_resnet.artifact.folder import Artifact
from edge_resnet.cli.progress import progress_bars


def _on_a_terminal(command: list[str], cwd: Path) -> str:
    """Run a command whose stderr is a terminal, and return what it showed there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, cwd=cwd, stderr=theirs, stdout=subprocess.DEVNULL, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    shown = b""
    while True:
        try:
            block = os.read(ours, 4096)
        except OSError:  # the other end was closed
            break
        if not block:
            break
        shown += block
    os.close(ours)
    assert process.wait(timeout=60) == 0
    return shown.decode(errors="replace")


def _words(artifact: Artifact, *words: str) -> list[str]:
    return [sys.executable, "-m", "edge_resnet", words[0], str(artifact.folder), *words[1:]]


def test_a_quiet_run_counts_on_a_terminal(tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """--headless shows the frames so far and the newest prediction."""
    command = _words(tiny_artifacts["int8"], "run", "--headless", "--source", "synthetic://?frames=800")
    assert " frames, " in _on_a_terminal(command, tmp_path)


def test_an_evaluation_has_a_bar_on_a_terminal(tiny_artifacts: dict[str, Artifact], smooth_images: Path, tmp_path: Path) -> None:
    """The name of the stage, and done of total."""
    command = _words(tiny_artifacts["int8"], "eval", "--data", str(smooth_images), "--allow-random")
    shown = _on_a_terminal(command, tmp_path)
    assert "evaluate" in shown
    assert "64/64" in shown


def test_a_warning_has_a_line_of_its_own_above_a_bar(tmp_path: Path) -> None:
    """A warning that is logged while a bar is drawn begins its own line, and the bar is drawn again below it."""
    code = (
        "import logging; from edge_resnet import cli; from edge_resnet.cli.progress import progress_bars\n"
        "cli._log_to_stderr(logging.WARNING)\n"
        "with progress_bars() as report:\n"
        "    report('build', 1, 100); logging.getLogger('edge_resnet.x').warning('slow'); report('build', 100, 100)\n"
    )
    shown = _on_a_terminal([sys.executable, "-c", code], tmp_path)
    lines = [line.rpartition("\x1b[2K")[2].rpartition("\r")[2] for line in shown.replace("\r\n", "\n").splitlines()]
    assert "WARNING: slow" in lines
    assert "100/100" in lines[-2] + lines[-1]


def test_a_pipe_gets_no_bars(tiny_artifacts: dict[str, Artifact], smooth_images: Path) -> None:
    """If stderr is not a terminal, nothing is drawn: it has whole lines alone."""
    command = _words(tiny_artifacts["int8"], "eval", "--data", str(smooth_images), "--allow-random", "--json")
    stderr = subprocess.run(command, capture_output=True, check=True, text=True).stderr
    assert "64/64" not in stderr
    assert all(line.isprintable() for line in stderr.splitlines())


def test_a_log_gets_a_line_of_long_work_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where stderr is no terminal, work of minutes says how far it is every thirty seconds, and short work says nothing."""
    now_s = [0.0]
    monkeypatch.setattr("edge_resnet.cli.progress.time.monotonic", lambda: now_s[0])
    with progress_bars() as report:
        for second in range(0, 100, 10):
            now_s[0] = float(second)
            report("learn", second, 100)
    assert capsys.readouterr().err.splitlines() == ["learn: 30 %", "learn: 60 %", "learn: 90 %"]


def test_downloads_are_counted_in_mebibytes() -> None:
    """Reporting bytes of a download, and stages without a total yet, raises nothing."""
    with progress_bars() as progress:
        for done in (0, 2**20, 45 * 2**20):
            progress("download", done, 45 * 2**20)
        progress("export", 0, 0)
        progress("export", 2, 2)
