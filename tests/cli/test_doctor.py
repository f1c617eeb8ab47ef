"""``edge-resnet doctor`` as users see it: narrow and wide, as JSON, and on a machine with a broken package."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from edge_resnet.cli.doctor import _last_line, _show, doctor
from edge_resnet.deployment.doctor.check import Check
from edge_resnet.deployment.doctor.checks import Readiness, examine
from edge_resnet.device.machine import DeviceInfo, describe

MAIN = "import typer; from edge_resnet.cli.doctor import doctor; app = typer.Typer(); app.command()(doctor); app()"
READY = Readiness(("build", "eval", "run"), ("onnxruntime",), "")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", MAIN, *arguments], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


@pytest.fixture(scope="module")
def info() -> DeviceInfo:
    return replace(describe(), board="NVIDIA Jetson Orin Nano Developer Kit", gpu="NVIDIA Orin", memory_available_mib=4096)


@pytest.fixture(scope="module")
def checks(info: DeviceInfo) -> list[Check]:
    """The checks of this machine, and a few problems with long fixes."""
    extra = [
        Check("lens", "problem", "dirty", "PATH=/usr/local/cuda/bin:$PATH pip install 'pycuda>=2024.1'", "camera"),
        Check("wheel", "missing", "not installed", "pip install 'edge-resnet[build]'", "build"),
        Check("trunk", "problem", "cannot be imported: " + "a long reason " * 6, "python3 -m venv .venv", "demo"),
    ]
    return [*examine(info=info), *extra]


def shown(info: DeviceInfo, checks: list[Check], width: int, encoding: str = "utf-8") -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    _show(Console(file=file, width=width, highlight=False), info, checks, READY)
    file.seek(0)
    return file.read()


@pytest.mark.parametrize("width", range(60, 221, 8))
def test_every_fix_stands_on_one_line(info: DeviceInfo, checks: list[Check], width: int) -> None:
    """A command can be copied whole from a terminal of any width."""
    lines = shown(info, checks, width).splitlines()
    for check in checks:
        if check.fix:
            assert any(line.rstrip().endswith(check.fix) and check.name in line for line in lines), check.fix


@pytest.mark.parametrize("width", range(60, 221, 8))
def test_the_table_fits(info: DeviceInfo, checks: list[Check], width: int) -> None:
    """No line of the table is wider than the terminal, so that it never wraps by itself."""
    table = shown(info, checks, width).partition("\nfixes")[0].splitlines()[1:-1]
    assert max(len(line) for line in table) <= width


def test_the_eighty_column_form_lists_fixes_below(info: DeviceInfo, checks: list[Check]) -> None:
    """In 80 columns the fixes are listed below; in 200 the fix is beside its check."""
    assert "\nfixes\n" in shown(info, checks, 80)
    assert "\nfixes\n" not in shown(info, checks, 200)


def test_every_check_is_shown_once_in_its_group(info: DeviceInfo, checks: list[Check]) -> None:
    """All checks appear in the wide form, each under a title, marked by more than colour."""
    lines = shown(info, checks, 200).splitlines()
    marks = {"ok": "✓", "missing": "-", "problem": "✗"}
    for check in checks:
        starts = [line for line in lines if line.startswith(f"  {marks[check.status]} {check.name} ")]
        assert len(starts) == 1, check.name
    assert [line for line in lines if line.startswith("to ")] == [
        "to run on images", "to compile engines", "to build artifacts", "to run on cameras", "to run on an NVIDIA GPU",
    ]  # fmt: skip


def test_ascii_terminals_get_ascii_marks(info: DeviceInfo, checks: list[Check]) -> None:
    """A terminal without Unicode gets ASCII marks."""
    text = shown(info, checks, 80, encoding="ascii")
    assert "  + numpy" in text
    assert "  x lens" in text


def test_extras_are_not_taken_for_markup(info: DeviceInfo, checks: list[Check]) -> None:
    """The brackets of an extra survive the printing."""
    assert "pip install 'edge-resnet[build]'" in shown(info, checks, 80)


@pytest.mark.parametrize(
    ("ready", "line"),
    [
        (READY, "ready: build, eval, run on CPU (onnxruntime)"),
        (Readiness(("run",), ("onnxruntime", "tensorrt"), ""), "ready: run on GPU (tensorrt) and CPU (onnxruntime)"),
        (Readiness((), ("onnxruntime",), "numpy missing or broken"), "not ready: numpy missing or broken"),
    ],
)
def test_last_line(ready: Readiness, line: str) -> None:
    """The last line alone says what works now."""
    assert _last_line(ready) == line


def test_the_command_ends_with_the_verdict() -> None:
    """On this machine, which runs these tests, the base is ready, and the exit code is 0."""
    done = run(COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("ready: ")
    assert "\x1b" not in done.stdout


def test_json_stands_alone_on_stdout() -> None:
    """--json prints one document with the device, the checks and what is ready."""
    done = run("--json")
    document = json.loads(done.stdout)
    assert done.returncode == 0
    assert document["device"].keys() == {field.name for field in fields(DeviceInfo)}
    assert document["checks"][0].keys() == {"name", "status", "detail", "fix", "group"}
    assert document["ready"]["backends"][0] == "onnxruntime"
    assert "run" in document["ready"]["commands"]


def test_a_broken_base_package_ends_with_one(tmp_path: Path) -> None:
    """If a package that every command needs does not load, the report is complete and the exit code is 1."""
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libfoo.so.1: cannot open')\n")
    done = run(PYTHONPATH=str(tmp_path), COLUMNS="80")
    assert done.returncode == 1
    assert "pip install --force-reinstall 'onnxruntime>=1.18'" in done.stdout
    assert done.stdout.splitlines()[-1] == "not ready: onnxruntime missing or broken"
    document = run("--json", PYTHONPATH=str(tmp_path))
    assert document.returncode == 1
    assert json.loads(document.stdout)["ready"]["commands"] == []


def test_a_missing_extra_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without OpenCV the report is complete and the exit code is 0."""
    monkeypatch.setitem(sys.modules, "cv2", None)
    app = typer.Typer()
    app.command()(doctor)
    result = CliRunner().invoke(app, ["--json"])
    assert result.exit_code == 0, result.output
    statuses = {check["name"]: check["status"] for check in json.loads(result.stdout)["checks"]}
    assert statuses["opencv"] in {"missing", "problem"}


def test_help_has_an_example() -> None:
    """--help says what the command does and how it is called, without looking at the machine."""
    done = run("--help", COLUMNS="80")
    assert "Example: edge-resnet doctor" in done.stdout
    assert done.returncode == 0
    code = "import sys; import edge_resnet.cli.doctor; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded).isdisjoint({"onnxruntime", "cv2", "torch"})


def test_a_name_does_not_steer_the_terminal(info: DeviceInfo) -> None:
    """A driver's name of a GPU and a library's error are shown with their control characters escaped."""
    text = shown(info, [Check("gpu", "problem", "\x1b[31mred", "pip install \x1b[0mx", "base")], 80)
    assert "\x1b" not in text
    assert "\\x1b[31mred" in text
