"""benchmarks/gpu_report.py: what it needs is said before anything runs, and one part that fails does not hide the others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from scripts import load_script

REPO = Path(__file__).resolve().parent.parent
SCRIPT = REPO / "benchmarks" / "gpu_report.py"


@pytest.fixture
def script(libcuda: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, on a machine with a GPU."""
    from edge_resnet.device.gpu import first_gpu

    monkeypatch.setattr(first_gpu, "__defaults__", (str(libcuda),))
    return load_script(SCRIPT)


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    """A folder in which both artifacts seem to be."""
    for name in ("resnet18-int8", "resnet50-int8"):
        (tmp_path / "artifacts" / name).mkdir(parents=True)
        (tmp_path / "artifacts" / name / "manifest.json").touch()
    return tmp_path / "artifacts"


def test_without_a_gpu_it_stops_with_one_line(artifacts: Path, tmp_path: Path) -> None:
    """As `make gpu` calls it: nothing is run and nothing is written."""
    if Path("/dev/nvidiactl").exists() or shutil.which("make") is None:
        pytest.skip("this machine has a driver, or no make")
    words = (f"GPU_PYTHON={sys.executable}", f"ARTIFACTS={artifacts}", f"OUT={tmp_path / 'out'}")
    done = subprocess.run(["make", "-s", "gpu", *words], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.splitlines()[0].startswith("nothing is measured: this machine has no CUDA driver")
    assert not (tmp_path / "out").exists()


def test_artifacts_that_are_not_there_are_named(
    script: ModuleType, artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is written."""
    shutil.rmtree(artifacts / "resnet50-int8")
    monkeypatch.setattr(sys, "argv", ["gpu_report.py", "--artifacts", str(artifacts), "--out", str(tmp_path / "out")])
    assert script.main() == 1
    assert capsys.readouterr().err == f"nothing is measured: {artifacts} does not hold resnet50-int8\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("failing", ["", "selftest", "benchmark"])
def test_each_output_is_kept(
    script: ModuleType,
    artifacts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    failing: str,
) -> None:
    """What each part prints, on both streams, is in its file and on the screen, also after one that failed."""
    real = script.commands

    def commands(*folders: Path) -> dict[str, list[str]]:
        code = "import sys; print('{0}'); print('on stderr', file=sys.stderr); sys.exit({1})"
        return {name: ["-c", code.format(name, int(name == failing))] for name in real(*folders)}

    monkeypatch.setattr(script, "commands", commands)
    monkeypatch.setattr(sys, "argv", ["gpu_report.py", "--artifacts", str(artifacts), "--out", str(tmp_path / "out")])
    assert script.main() == int(bool(failing))
    printed = capfd.readouterr().out
    for name in ("selftest", "tests", "benchmark"):
        assert set((tmp_path / "out" / f"{name}.txt").read_text(encoding="utf-8").splitlines()) == {name, "on stderr"}
        assert f"{name}: {'exit code 1' if name == failing else 'passed'}, in {tmp_path / 'out' / name}.txt" in printed


def test_the_commands_take_these_options(script: ModuleType, artifacts: Path, tmp_path: Path) -> None:
    """Each part knows the options that it is given: pytest collects the tests of the GPU, the others show their help."""
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    for name, command in script.commands(artifacts, tmp_path).items():
        more = "--collect-only" if name == "tests" else "--help"
        done = subprocess.run(
            [sys.executable, *command, more], cwd=REPO, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        for option in (word for word in command if word.startswith("--") and name != "tests"):
            assert option in done.stdout, name
        assert name != "tests" or "test_gpu_accuracy.py" in done.stdout
