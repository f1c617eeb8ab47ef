"""Standard output that is full, closed or without a reader, and memory that runs out: said in one line, never called a bug."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.errors import BackendError, MissingDependencyError, is_out_of_memory
from edge_resnet.runtime.backend import BackendInfo, EngineForm, Requirement, load_backend

Cli = Callable[..., Any]
FULL = Path("/dev/full")


def shell(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = f'edge() {{ {sys.executable} -m edge_resnet "$@"; }}; {command}'
    return subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=False, timeout=60, cwd=cwd)


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
@pytest.mark.parametrize("command", ["--help", "--version", "inspect ART", "run ART --source synthetic://?frames=3 --json"])
def test_a_full_disk_behind_stdout_is_an_error(command: str, tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """What could not be written is said, with exit code 1."""
    (tmp_path / "ART").symlink_to(tiny_artifacts["fp32"].folder)
    done = shell(f"edge {command} > /dev/full", tmp_path)
    assert done.returncode == 1
    assert "error: the output cannot be written: No space left on device\nhint: free some disk space\n" in done.stderr
    assert "bug" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
def test_a_full_disk_behind_stderr_does_not_hide_the_exit_code(tmp_path: Path) -> None:
    """An error that cannot be printed still ends with its code."""
    assert shell("edge inspect nowhere 2> /dev/full", tmp_path).returncode == 2


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_are_as_dev_null(closed: str, tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """A run without stdout, stderr or stdin works, and its file holds its lines alone, whatever number it was opened with."""
    (tmp_path / "ART").symlink_to(tiny_artifacts["fp32"].folder)
    done = shell(f"edge run ART --source 'synthetic://?frames=3' --jsonl lines {closed}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "lost a prediction" not in done.stderr
    assert [json.loads(line)["frame"] for line in (tmp_path / "lines").read_text().splitlines()] == [0, 1, 2]


@pytest.mark.parametrize("command", ["--help", "--version", "inspect ART"])
def test_a_reader_that_leaves_is_no_error(command: str, tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """A command whose output nobody reads ends with 0 and says nothing."""
    (tmp_path / "ART").symlink_to(tiny_artifacts["fp32"].folder)
    done = shell(f"set -o pipefail; edge {command} | true", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_leaves_does_not_hide_a_gate(tmp_path: Path) -> None:
    """``compare … | head`` ends with 3 where something became worse, whether or not the verdict was read."""
    code = (
        "import sys, types\n"
        "from edge_resnet.measurement.compare import compare\n"
        "compare.compare_files = lambda *a, **k: types.SimpleNamespace(deltas=[], notes=['note'] * 9999, regressed=True)\n"
        "sys.argv = ['edge-resnet', 'compare', 'a', 'b']\n"
        "from edge_resnet.cli import main\n"
        "main()"
    )
    (tmp_path / "program.py").write_text(code)
    done = shell(f"set -o pipefail; {sys.executable} program.py | true", tmp_path)
    assert (done.returncode, done.stderr) == (3, "")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("std::bad_alloc"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        OSError(12, "Cannot allocate memory"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
    ],
    ids=lambda error: str(error)[:20],
)
def test_memory_that_runs_out_is_no_bug(error: Exception, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever library notices it: one line, what helps, exit code 1."""

    def exhausted(*_: object) -> None:
        raise error

    monkeypatch.setattr("edge_resnet.artifact.folder.open_artifact", exhausted)
    outcome = cli("inspect", "x")
    assert outcome.code == 1
    assert outcome.err.startswith("error: there is not enough memory\nhint: free some memory")
    assert "bug" not in outcome.err


def test_a_file_that_fills_the_disk_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """No space left is an error of the machine wherever it is met, and names the file where it is known."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "engines/meta.json")

    monkeypatch.setattr("edge_resnet.artifact.folder.open_artifact", full)
    outcome = cli("inspect", "x")
    assert outcome.code == 1
    assert "engines/meta.json cannot be written: No space left on device" in outcome.err


def test_a_folder_without_execution_is_not_taken_for_memory() -> None:
    """The loader says the same of a file system mounted noexec, with another reason."""
    assert not is_out_of_memory(ImportError("x.so: failed to map segment from shared object: Operation not permitted"))
    assert not is_out_of_memory(BackendError("the device is gone"))


@pytest.mark.parametrize(("cause", "expected"), [(MemoryError(), MemoryError), (KeyError(), MissingDependencyError)])
def test_a_library_that_memory_keeps_from_loading_is_installed(cause: Exception, expected: type[Exception]) -> None:
    """An import that failed for lack of memory is not answered with a command that installs the package."""

    def load() -> Any:
        raise ImportError("no", name="library") from cause

    info = BackendInfo(load, (Requirement("library", "library"),), EngineForm("qdq"))
    module = type(sys)("standin_backend")
    module.BACKEND = info  # type: ignore[attr-defined]
    sys.modules["standin_backend"] = module
    try:
        with pytest.raises(expected):
            load_backend("standin", {"standin": "standin_backend"})
    finally:
        del sys.modules["standin_backend"]
