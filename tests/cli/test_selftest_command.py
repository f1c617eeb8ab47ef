"""``edge-resnet selftest`` as users see it: on this machine, with a wrong answer, in narrow and ASCII terminals, interrupted."""

from __future__ import annotations

import getpass
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from children import started
from rich.console import Console

from edge_resnet.artifact.folder import describe_files
from edge_resnet.cli import main
from edge_resnet.cli.selftest import _progress, _show, _show_end
from edge_resnet.deployment.selftest import run
from edge_resnet.deployment.selftest.check import Check
from edge_resnet.deployment.selftest.golden import ARTIFACT
from edge_resnet.runtime.backend import BACKENDS, backend_info

Cli = Callable[..., Any]
REPO = Path(__file__).resolve().parents[2]
GOLDEN = REPO / "tests" / "golden" / "selftest.txt"
#: What every backend for a processor is checked for.
OF_A_PROCESSOR = (
    "installed", "fp32 compile", "fp32 answers", "fp32 batches", "int8 compile", "int8 answers", "int8 batches", "threads",
    "memory", "engine kept", "engine refused", "speed",
)  # fmt: skip
#: One of each kind, with texts that are short, long, and without a blank.
CHECKS = (
    Check("machine", "artifact", "ok", "resnet20-cifar, 5 files as built, 24 images with answers"),
    Check("machine", "cameras", "ok", "1 V4L2", local="/dev/video0 [bold]A camera"),
    Check(
        "onnxruntime", "fp32 answers", "ok", "24 labels equal; logits equal to the stored ones, < 0.001 % off the others, of N"
    ),
    Check("onnxruntime", "memory", "ok", "2000 inferences: memory 86 → 86 MiB"),
    Check("openvino", "installed", "failed", "crashed (SIGSEGV): " + "word" * 20 + "; the checks after it were not made"),
    Check("tensorrt", "installed", "not here", "tensorrt is not installed: pip install 'edge-resnet[tensorrt]'"),
)


@dataclass(frozen=True)
class Run:
    """One run of the command on this machine: exit code, stdout, stderr, and the report."""

    code: int
    out: str
    err: str
    report: str

    @property
    def checks(self) -> list[dict[str, Any]]:
        """The checks of the report."""
        found: list[dict[str, Any]] = json.loads(self.report)["checks"]
        return found


@pytest.fixture(scope="module")
def here(once: Callable[..., Path]) -> Run:
    """The command on this machine, in eighty columns, with fewer inferences than usual in the check of memory."""

    def fill(folder: Path) -> None:
        patch, out, err = pytest.MonkeyPatch(), io.StringIO(), io.StringIO()
        handler = signal.getsignal(signal.SIGTERM)
        patch.setattr(run, "_CALLS", 60)
        patch.setattr(sys, "argv", ["edge-resnet", "selftest", "--json", str(folder / "report.json")])
        patch.setenv("COLUMNS", "80")
        try:
            with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
                main()
        finally:
            patch.undo()
            signal.signal(signal.SIGTERM, handler)
        for name, text in (("code", str(end.value.code or 0)), ("out", out.getvalue()), ("err", err.getvalue())):
            (folder / name).write_text(text, encoding="utf-8")

    folder = once("selftest", fill)
    code, out, err, report = ((folder / name).read_text(encoding="utf-8") for name in ("code", "out", "err", "report.json"))
    return Run(int(code), out, err, report)


def test_this_machine_passes(here: Run) -> None:
    """Every line passed or says why it is not here, and the last counts them."""
    assert here.code == 0, here.out
    lines = [line for line in here.out.splitlines() if line.startswith("  ") and line[2] != " "]
    assert {line[2] for line in lines} <= {"✓", "-"}
    assert len(lines) == len(here.checks)
    assert all("not here: " in line for line in lines if line[2] == "-")
    passed, absent = (sum(line[2] == mark for line in lines) for mark in "✓-")
    assert re.fullmatch(rf"{passed} passed, 0 failed, {absent} not here, in \d+ s", here.out.splitlines()[-1])
    assert here.err == ""


def test_every_backend_is_checked_whole(here: Run) -> None:
    """ONNX Runtime by every check of a processor, and every other backend of the table at least for being installed."""
    names = {(check["group"], check["name"]): check["status"] for check in here.checks}
    assert {name: names.get(("onnxruntime", name)) for name in OF_A_PROCESSOR} == dict.fromkeys(OF_A_PROCESSOR, "ok")
    for backend in set(BACKENDS) - {"fake"}:
        assert (backend, "installed") in names
        if names[backend, "installed"] == "ok" and backend_info(backend).processor == "CPU":
            assert set(OF_A_PROCESSOR) <= {name for group, name in names if group == backend}
    assert names["machine", "artifact"] == names["machine", "preprocessing"] == "ok"
    assert ("machine", "cameras") in names


def test_the_other_backends_are_compared_with_onnx_runtime(here: Run) -> None:
    """Not with the stored answers alone."""
    for check in here.checks:
        if check["name"].endswith("answers") and check["status"] == "ok" and check["group"] != "onnxruntime":
            assert "ONNX Runtime" in check["detail"]


def test_no_line_is_wider_than_the_terminal(here: Run) -> None:
    """Eighty columns."""
    assert max(map(len, here.out.splitlines())) <= 80


def test_the_report_names_nobody(here: Run) -> None:
    """Neither user nor machine nor folder: no value of this environment that names one of them is in it."""
    report = json.loads(here.report)
    assert (report["kind"], report["schema_version"], report["failed"]) == ("edge-resnet selftest", 1, 0)
    texts = json.dumps([check["detail"] for check in here.checks] + list(report["machine"].values()))
    words = {socket.gethostname(), getpass.getuser(), str(Path.home()), str(REPO), str(Path.cwd()), sys.prefix}
    words |= {os.environ.get(name, "") for name in ("HOME", "USER", "LOGNAME", "PWD", "HOSTNAME", "TMPDIR", "SUDO_USER")}
    assert [word for word in words if len(word) > 1 and re.search(rf"(?<!\w){re.escape(word)}(?!\w)", texts)] == []


def test_a_wrong_answer_is_exit_1(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stored answers of two images that are exchanged: the line says so, the other lines pass, and so does the report."""
    folder = Path(shutil.copytree(ARTIFACT, tmp_path / "planted"))
    with np.load(folder / "golden.npz") as content:
        arrays = dict(content)
    arrays["fp32"][[0, 1]] = arrays["fp32"][[1, 0]]
    np.savez_compressed(folder / "golden.npz", **arrays)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    files = {name: {"sha256": entry.sha256, "size": entry.size} for name, entry in describe_files(folder).items()}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "files": files}), encoding="utf-8")
    monkeypatch.setattr(run, "_SHIPPED", folder)
    monkeypatch.setattr(run, "_CALLS", 10)
    monkeypatch.setattr(run, "BACKENDS", {"onnxruntime": ""})
    outcome = cli("selftest", "--json", "-")
    assert outcome.code == 1
    report = json.loads(outcome.out)
    wrong = {check["name"] for check in report["checks"] if check["status"] == "failed"}
    assert wrong == {"fp32 answers"}
    assert re.search(r"✗ fp32 answers +not the stored ones: 22 of 24 labels", outcome.err)
    assert "1 failed" in outcome.err.splitlines()[-1]


def test_options_that_do_not_fit_are_refused(cli: Cli, tmp_path: Path) -> None:
    """--full without an artifact, an artifact without --full, a folder that is none, and a report that exists."""
    for words, text in (
        (("--full",), "needs the artifacts"),
        (("artifacts/x",), "only with --full"),
        (("--full", str(tmp_path)), "is not an artifact"),
    ):
        outcome = cli("selftest", *words)
        assert outcome.code == 2
        assert text in outcome.err.splitlines()[-2]
    (tmp_path / "report.json").write_text("kept", encoding="utf-8")
    outcome = cli("selftest", "--json", str(tmp_path / "report.json"))
    assert (outcome.code, outcome.out) == (2, "")
    assert "--force" in outcome.err
    assert (tmp_path / "report.json").read_text(encoding="utf-8") == "kept"


@pytest.mark.slow
def test_a_given_artifact_is_measured(cli: Cli, tiny_int8: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--full: the same checks on another network, whose name is in the report and whose folder is not, and a benchmark."""
    monkeypatch.setattr(run, "_CALLS", 10)
    monkeypatch.setattr(run, "_BENCH_S", 0.2)
    outcome = cli("selftest", "--full", str(tiny_int8), str(tiny_int8), "--json", "-")
    assert outcome.code == 0, outcome.err
    checks = json.loads(outcome.out)["checks"]
    assert {"onnxruntime, resnet8-cifar", "onnxruntime, resnet8-cifar (2)"} <= {check["group"] for check in checks}
    measured = [check for check in checks if check["name"] == "int8 bench" and check["status"] == "ok"]
    assert all(check["figures"]["offline_per_s"] > 0 for check in measured)
    assert len(measured) >= 2
    assert str(tiny_int8) not in outcome.out


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    """Interrupted while a backend is checked: exit code 130, one line, no report, no process and no temporary file."""
    words = [sys.executable, "-m", "edge_resnet", "selftest", "--json", str(tmp_path / "report.json")]
    (tmp_path / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp"), "PYTHONUNBUFFERED": "1"}
    with started(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("onnxruntime"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "error: interrupted\n")
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not (tmp_path / "report.json").exists()
    deadline = time.monotonic() + 30
    while any(str(tmp_path).encode() in arguments for arguments in _commands()):
        assert time.monotonic() < deadline, "a child is left behind"
        time.sleep(0.05)


def _commands() -> list[bytes]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has just ended
            found.append(path.read_bytes())
    return found


def shown(encoding: str, width: int = 80, *, color: str | None = None) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    console = Console(file=file, width=width, highlight=False, color_system=color, force_terminal=color is not None)  # type: ignore[arg-type]
    for before, check in zip((None, *CHECKS), CHECKS, strict=False):
        _show(console, check, title=before is None or before.group != check.group)
    _show_end(console, list(CHECKS), 61.4)
    file.seek(0)
    return file.read()


def test_the_listing_is_the_golden_one() -> None:
    """Each kind of line in eighty columns: titles, marks, names, reasons, and what is continued below itself."""
    assert shown("utf-8") == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", range(48, 161, 16))
def test_lines_fit_any_terminal(width: int) -> None:
    """A detail is continued below its own beginning, and a word that is too long is cut."""
    assert max(map(len, shown("utf-8", width).splitlines())) <= width


def test_ascii_terminals_get_ascii() -> None:
    """Marks and arrows, without colour where there is none."""
    text = shown("ascii")
    assert text.isascii()
    assert "  + artifact" in text
    assert "  x installed" in text
    assert "86 -> 86 MiB" in text
    assert "\x1b" not in text


def test_marks_are_coloured_on_a_terminal() -> None:
    """Green, red and dim; a name in brackets is no markup."""
    text = shown("utf-8", color="standard")
    assert "\x1b[32m✓" in text
    assert "\x1b[31m✗" in text
    assert "[bold]A camera" in text


def test_long_work_is_told_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    """Where no terminal is, a line on stderr every thirty seconds, and none for what is short."""
    with _progress(Console(file=io.StringIO())) as running:
        for name in ("short", "long"):
            running("tensorrt", name, 0.0)
            for second in range(1, 20 if name == "short" else 65):
                running("tensorrt", name, float(second))
    assert capsys.readouterr().err == "tensorrt: long, 30 s\ntensorrt: long, 60 s\n"


def test_long_work_is_shown_on_a_terminal() -> None:
    """The check that runs, and after two seconds for how long it has."""
    file = io.StringIO()
    with _progress(Console(file=file, force_terminal=True, width=80)) as running:
        running("tensorrt", "fp32 compile", 0.0)
        running("tensorrt", "fp32 compile", 7.3)
        time.sleep(0.3)
    assert "tensorrt: fp32 compile, 7 s" in file.getvalue()
