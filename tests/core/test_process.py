"""Subprocesses with a time limit: what they print, how they fail, and that nothing of them stays."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from edge_resnet.core.process import Finished, answer_of, run_within


def test_a_program_that_ends() -> None:
    """Exit code, output and errors are told, and a signal as a negative code."""
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    assert run_within([sys.executable, "-c", code], 20) == Finished(3, "out\n", "err\n")
    assert run_within([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], 20) == Finished(-9, "", "")
    with pytest.raises(FileNotFoundError):
        run_within(["/nowhere/program"], 20)


def test_a_program_that_hangs_takes_its_own_along(tmp_path: Path) -> None:
    """What a hanging program started is ended with it."""
    note = str(tmp_path / "pid")
    code = f"import subprocess as s; p = s.Popen(['/bin/sleep', '60']); open({note!r}, 'w').write(str(p.pid)); p.wait()"
    assert run_within([sys.executable, "-c", code], 1.0) is None
    pid = (tmp_path / "pid").read_text()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and "(sleep) S" in (status := _stat(pid)):
        time.sleep(0.05)
    assert "(sleep) S" not in status


def _stat(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "gone"


def test_a_program_that_cannot_be_ended_is_left_behind() -> None:
    """Whoever holds the output open out of reach costs the time limit and no more."""
    code = "import subprocess, time; subprocess.Popen(['/bin/sleep', '40'], start_new_session=True); time.sleep(60)"
    start = time.monotonic()
    assert run_within([sys.executable, "-c", code], 0.5) is None
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    ("finished", "reason"),
    [
        (Finished(3, "", ""), "ended with exit code 3 and no message"),
        (Finished(1, "", "warning\nImportError: no\n"), "ImportError: no"),
        (Finished(-11, "", ""), "crashed (SIGSEGV)"),
        (Finished(-6, "", "terminate called\n"), "crashed (SIGABRT): terminate called"),
    ],
)
def test_the_reason_is_one_line(finished: Finished, reason: str) -> None:
    """The signal where there was one, and the last line of stderr."""
    assert finished.reason() == reason
    assert finished.crashed == (finished.code < 0)


def test_the_answer_is_the_last_line() -> None:
    """What a library prints before the answer does not matter; what is no JSON is a ValueError."""
    assert Finished(0, 'noise\n{"a": [1]}\n', "").answer() == {"a": [1]}
    for stdout in ("", "noise\n"):
        with pytest.raises(ValueError, match=r"Expecting value"):
            Finished(0, stdout, "").answer()


def test_what_a_program_leaves_running_does_not_hold_its_output() -> None:
    """A child of the child that keeps the output open costs nothing once the program itself has ended."""
    code = "import subprocess; print('done'); subprocess.Popen(['/bin/sleep', '40'], start_new_session=True)"
    start = time.monotonic()
    assert run_within([sys.executable, "-c", code], 20) == Finished(0, "done\n", "")
    assert time.monotonic() - start < 20


def test_a_signal_without_a_name_is_told_by_its_number() -> None:
    """Real-time signals but the first and the last have none."""
    assert Finished(-35, "", "").reason() == "crashed (SIG35)"


@pytest.mark.parametrize(("line", "found"), [('{"done": true}', {"done": True}), ("hello", {}), ("[1]", {}), ("[" * 100_000, {})])
def test_a_line_that_is_no_answer_is_empty(line: str, found: dict[str, bool]) -> None:
    """Something else may have printed it."""
    assert answer_of(line) == found
