"""The health check on real processes: a run with output, one without, and other commands."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from boards import DEPLOY

SCRIPT = DEPLOY / "docker" / "healthcheck.py"
PROGRAM = Path(sys.executable).parent / "edge-resnet"


@contextmanager
def _program(command: list[str], proc: Path, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process and show only it in a folder that replaces /proc, since other tests run programs too."""
    process = subprocess.Popen(command, **options)  # type: ignore[call-overload]
    try:
        proc.mkdir(exist_ok=True)
        (proc / str(process.pid)).symlink_to(f"/proc/{process.pid}")
        yield process
    finally:
        process.kill()
        if process.stdout is not None:
            process.stdout.close()
        process.wait()


def _check(proc: Path, window_s: float = 10) -> str:
    """What the script returns: empty where healthy."""
    code = (
        f"import runpy; from pathlib import Path; module = runpy.run_path({str(SCRIPT)!r});"
        f"print(module['check'](Path({str(proc)!r})))"
    )
    environment = {**os.environ, "EDGE_RESNET_HEALTH_WINDOW_S": str(window_s)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return result.stdout.strip()


def _waits_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    return tmp_path / "proc"


def test_a_run_that_answers_is_healthy(proc: Path, tiny_int8: Path, tmp_path: Path) -> None:
    """While edge-resnet run writes predictions the check passes."""
    out = tmp_path / "out.jsonl"
    command = [str(PROGRAM), "run", str(tiny_int8), "--source", "synthetic://?frames=1000000", "--headless", "--jsonl", str(out)]
    with _program(command, proc, stderr=subprocess.DEVNULL):
        _waits_for(lambda: out.exists() and out.stat().st_size > 0)
        assert _check(proc) == ""


def test_a_run_that_stands_still_is_not(proc: Path, tiny_int8: Path, tmp_path: Path) -> None:
    """A run whose output is blocked, as one whose camera gives nothing, is unhealthy with the reason."""
    command = [str(PROGRAM), "run", str(tiny_int8), "--source", "synthetic://?frames=1000000", "--jsonl", "-"]
    with _program(command, proc, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        _waits_for(lambda: _stands_still(process.pid))
        assert _check(proc, window_s=1) == "edge-resnet run wrote nothing in 1 s"


def _stands_still(pid: int) -> bool:
    """Most of a pipe (64 KiB, in whole lines per page) was filled, and nothing more came for half a second."""
    before = _written(pid)
    time.sleep(0.5)
    return _written(pid) == before > 40_000


def _written(pid: int) -> int:
    return int(Path(f"/proc/{pid}/io").read_text(encoding="ascii").split("wchar: ")[1].split()[0])


@pytest.fixture
def sleeper(tmp_path: Path) -> list[str]:
    """A program called edge-resnet that only sleeps."""
    program = tmp_path / "edge-resnet"
    program.write_text("import time\ntime.sleep(60)\n", encoding="utf-8")
    return [sys.executable, str(program)]


def test_other_commands_are_healthy_while_they_live(proc: Path, sleeper: list[str]) -> None:
    """Compiling writes nothing for minutes, which is no fault."""
    with _program([*sleeper, "compile", "/artifacts/run"], proc):
        time.sleep(0.3)
        assert _check(proc, window_s=0.5) == ""


@pytest.mark.parametrize("option", [[], ["--debug"]])
def test_the_command_is_found_behind_options(option: list[str], proc: Path, sleeper: list[str]) -> None:
    """`edge-resnet --debug run` is a run."""
    with _program([*sleeper, *option, "run"], proc):
        time.sleep(0.3)
        assert _check(proc, window_s=0.5) == "edge-resnet run wrote nothing in 0.5 s"


def test_an_init_in_front_is_not_taken_for_the_program(proc: Path) -> None:
    """With docker run --init process 1 has the program in its arguments, but the program is another process."""
    init, program = ["/sbin/docker-init", "--", "edge-resnet", "run"], ["python", "/opt/venv/bin/edge-resnet", "eval"]
    for pid, words in ((1, init), (7, program)):
        (proc / str(pid)).mkdir(parents=True)
        (proc / str(pid) / "cmdline").write_text("\0".join(words) + "\0", encoding="utf-8")
    assert _check(proc, window_s=0.5) == ""


def test_without_the_program_it_is_unhealthy(proc: Path) -> None:
    """No process of that name runs."""
    (proc / "1").mkdir(parents=True)
    (proc / "1" / "cmdline").write_bytes(b"sleep\x00infinity\x00")
    assert _check(proc) == "no edge-resnet is running"


def test_a_run_that_ends_meanwhile_is_told_as_that(proc: Path) -> None:
    """The process ends between finding and reading it."""
    (proc / "1").mkdir(parents=True)
    (proc / "1" / "cmdline").write_bytes(b"edge-resnet\x00run\x00")
    assert _check(proc).startswith("edge-resnet run ended, or cannot be observed")


@pytest.mark.parametrize(("command", "code"), [("compile", 0), ("run", 1)])
def test_the_exit_code_is_dockers(command: str, code: int, proc: Path, sleeper: list[str], tmp_path: Path) -> None:
    """As a script: 0 healthy, 1 unhealthy with the reason on stderr, which docker inspect shows."""
    script = tmp_path / "healthcheck.py"
    text = SCRIPT.read_text(encoding="utf-8")
    assert 'Path("/proc")' in text
    script.write_text(text.replace('Path("/proc")', f"Path({str(proc)!r})"), encoding="utf-8")
    with _program([*sleeper, command], proc):
        time.sleep(0.3)
        environment = {**os.environ, "EDGE_RESNET_HEALTH_WINDOW_S": "0.5"}
        result = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == code
    assert bool(result.stderr) == bool(code)
