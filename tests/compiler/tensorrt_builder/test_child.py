"""child.py with a real child process: its answers, its log, and the errors for its deaths."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from exported import exported, small
from standins.surface import VERSIONS

from edge_resnet.artifact.enginecache import EngineOptions, EngineTuning
from edge_resnet.compiler.tensorrt import PlanRequest
from edge_resnet.compiler.tensorrt.child import Built, build_in_child
from edge_resnet.core.errors import BackendError, BuildError, ConfigError, MissingDependencyError
from edge_resnet.core.records import BatchProfile, Progress, Typing

TESTS = Path(__file__).resolve().parents[2]
OPTIONS = EngineOptions("fp16", 16, BatchProfile(1, 2, 4), EngineTuning(128))
#: The package in place of TensorRT in the child: what a test adds, and the strict stand-in of a version.
PACKAGE = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from standins.surface import strict
from standins.tensorrt_build import BUILD_CLASSES, FAULTS, Builder
{more}
sys.modules[__name__] = strict({version!r}, BUILD_CLASSES, Path({surfaces!r}))
"""


class Child:
    """Puts a stand-in where the child finds it."""

    def __init__(self, folder: Path, surfaces: Path, libcuda: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._surfaces = folder, surfaces
        self.graph, self.output = folder / "model.onnx", folder / "plan.engine"
        self.graph.write_bytes(exported(small()))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *sys.path]))
        monkeypatch.setenv("LD_LIBRARY_PATH", str(libcuda.parent))

    def build(
        self,
        version: str = "10.3.0",
        more: str = "",
        *,
        typing: Typing | None = None,
        timings: Path | None = None,
        progress: Progress | None = None,
    ) -> Built:
        """Build with that version; ``more`` runs in the child before."""
        package = PACKAGE.format(tests=str(TESTS), surfaces=str(self._surfaces), version=version, more=more)
        (self._folder / "tensorrt.py").write_text(package, encoding="utf-8")
        typing = typing or ("strong" if version.startswith("11") else "weak")
        return build_in_child(PlanRequest(self.graph, OPTIONS, typing, timings), self.output, progress)


@pytest.fixture
def child(tmp_path: Path, surfaces: Path, libcuda: Path, monkeypatch: pytest.MonkeyPatch) -> Child:
    """A child that finds a stand-in of TensorRT and of the driver."""
    return Child(tmp_path, surfaces, libcuda, monkeypatch)


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
def test_a_plan_is_built_in_the_child(child: Child, tmp_path: Path, version: str) -> None:
    """The plan is in the output file, built with the given options; progress and layers are returned."""
    steps: list[tuple[str, int, int]] = []
    built = child.build(version, timings=tmp_path / "timings", progress=lambda *step: steps.append(step))
    how = json.loads(child.output.read_bytes())
    assert (how["version"], how["pools"]) == (version, {"WORKSPACE": 128 << 20})
    assert how["profile"]["images"][2] == [4, 16, 16, 3]
    assert built.workspace_mib == 128
    assert "Layers" in json.loads(built.layers or "")
    assert bool(steps) is not version.startswith("8")
    assert (tmp_path / "timings").exists()


def test_what_libraries_print_does_not_break_the_answers(child: Child) -> None:
    """What TensorRT prints to standard output, at import and later, is not taken for an answer."""
    more = "import os; print('hello'); os.write(1, b'from C\\n')"
    assert child.build(more=more).layers is not None


def test_errors_arrive_as_they_were_raised(child: Child) -> None:
    """Class, message and hint of a BuildError and a ConfigError."""
    with pytest.raises(BuildError, match="TensorRT built no engine: no kernel fits") as caught:
        child.build(more="FAULTS['build_serialized_network'] = ['no kernel fits']")
    assert "doctor" in caught.value.hint
    with pytest.raises(ConfigError, match="no weak typing"):
        child.build("11.4.0.106", typing="weak")


def test_a_missing_driver_is_an_error(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that finds no GPU ends the child with a BackendError, before TensorRT is used."""
    monkeypatch.setenv("STUB_FAILS", "cuInit=100")
    with pytest.raises(BackendError, match="finds no GPU"):
        child.build(more="Builder.__init__ = None")


def test_a_missing_tensorrt_is_an_error(child: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the package is missing or cannot be loaded, the hint is the command that installs it."""
    with pytest.raises(MissingDependencyError, match=r"cannot be loaded \(no libnvinfer\)") as caught:
        child.build(more="raise ImportError('no libnvinfer')")
    assert "edge-resnet[tensorrt]" in caught.value.hint


@pytest.mark.parametrize(
    ("death", "words", "remedy"),
    [
        ("os.kill(os.getpid(), 9)", "memory ran out", "multi-user"),
        ("os.kill(os.getpid(), 11)", "SIGSEGV", "doctor"),
        ("os._exit(7)", "exit code 7", "doctor"),
    ],
)
def test_a_death_is_reported(child: Child, death: str, words: str, remedy: str) -> None:
    """Killed by the kernel, crashed, or ended: each has its own message, and no plan is left."""
    with pytest.raises(BuildError, match=words) as caught:
        child.build(more=f"import os\nBuilder.create_network = lambda self, flags: {death}")
    assert remedy in caught.value.hint
    assert not child.output.exists()


def test_a_build_that_hangs_is_ended(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the limit the child is killed, and the error says that it took too long, and not that memory ran out."""
    monkeypatch.setattr("edge_resnet.compiler.tensorrt.child._LIMIT_S", 2.0)
    with pytest.raises(BuildError, match="was not done after"):
        child.build(more="import time\nBuilder.create_network = lambda self, flags: time.sleep(60)")


def test_tensorrts_log_comes_through(child: Child, caplog: pytest.LogCaptureFixture) -> None:
    """The child's log records are in the parent's log, at their level, but at most as warnings."""
    with caplog.at_level(logging.DEBUG, logger="edge_resnet"), pytest.raises(BuildError):
        child.build(more="FAULTS['build_serialized_network'] = ['no kernel fits']")
    levels = {record.getMessage(): record.levelno for record in caplog.records}
    assert levels["TensorRT: no kernel fits"] == logging.WARNING
    assert levels["TensorRT: tactics were timed"] == logging.DEBUG


def test_levels_are_not_read_from_text(child: Child, caplog: pytest.LogCaptureFixture) -> None:
    """A library's own line that looks like a log line is a debug line, with its text whole."""
    with caplog.at_level(logging.DEBUG, logger="edge_resnet"):
        child.build(more="import sys; print('WARNING 3 of 4 tactics', file=sys.stderr)")
    levels = {record.getMessage(): record.levelno for record in caplog.records}
    assert levels["WARNING 3 of 4 tactics"] == logging.DEBUG


@pytest.mark.usefixtures("uncollected")
def test_ctrl_c_ends_the_child(child: Child) -> None:
    """An interrupt in the parent ends the child within seconds, though it would build for a minute."""
    pids: list[int] = []

    def interrupt() -> None:
        for _ in range(200):
            found = child.graph.with_name("pid")
            if found.exists() and found.read_text(encoding="utf-8"):
                pids.append(int(found.read_text(encoding="utf-8")))
                break
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    sleeper = f"open({str(child.graph.with_name('pid'))!r}, 'w').write(str(os.getpid())), time.sleep(60)"
    thread = threading.Thread(target=interrupt)
    thread.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        child.build(more=f"import os, time\nBuilder.create_network = lambda self, flags: ({sleeper})")
    thread.join()
    assert time.monotonic() - started < 30
    assert pids
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
