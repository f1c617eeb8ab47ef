"""benchmarks/gpu.py and tests/gpu from beginning to end, in processes that find stand-ins of TensorRT, PyCUDA and the driver.

What they measure there is no GPU's. That they run, tell a wrong engine from a right one, and end as they say, is.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from children import started
from scripts import load_script

from edge_resnet.artifact.folder import Artifact

REPO = Path(__file__).resolve().parent.parent
SCRIPT = REPO / "benchmarks" / "gpu.py"
#: Every figure of a row whose batch is small enough for frames.
FIGURES = {
    *("engine", "engine_plain", "copies", "host", "host_plain", "frames_cpu", "frames_gpu"),
    *("alone_per_s", "1_per_s", "2_per_s", "4_per_s", "frames_2_per_s", "frames_over_engine"),
}


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """The script as a module."""
    return load_script(SCRIPT)


@pytest.fixture
def artifacts(tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> Path:
    """A folder that holds the tiny network under the names of two large ones."""
    for network in ("resnet18", "resnet50"):
        shutil.copytree(tiny_artifacts["int8"].folder, tmp_path / "artifacts" / f"{network}-int8")
    return tmp_path / "artifacts"


@pytest.fixture
def machine(tmp_path: Path, libcuda: Path, surfaces: Path) -> Callable[..., dict[str, str]]:
    """Gives the environment of a process that finds a GPU."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ to stand in for nvcc")
    pretend = load_script(REPO / "tests" / "gpu" / "pretend.py").pretend
    return lambda **how: pretend(tmp_path / "machine", libcuda, surfaces, **how)


def measured(environment: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    """The benchmark as people call it."""
    command = [sys.executable, SCRIPT, "--quick", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "integrated", "batches"),
    [
        ("8.6.1", False, (8,)),
        ("8.6.1", False, (1, 8)),
        ("11.4.0.106", True, (1, 2)),
    ],
)
def test_every_figure_is_measured(
    machine: Callable[..., dict[str, str]],
    artifacts: Path,
    tmp_path: Path,
    version: str,
    integrated: bool,
    batches: tuple[int, ...],
) -> None:
    """On a GPU with and without memory of its own: a row per precision and batch, and each requirement judged once."""
    report = tmp_path / "report.json"
    words = ("--artifacts", artifacts, "--networks", "resnet18", "--json", report)
    words = (*words, "--batches", ",".join(map(str, reversed(batches))))
    done = measured(machine(version=version, integrated=integrated), *words)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found["machine"]["GPU"] == "NVIDIA Stand-in"
    assert (found["machine"]["TensorRT"], found["machine"]["CUDA"]) == (version, "12.6")
    told = [(row["precision"], row["batch"]) for row in found["rows"]]
    assert told == [(precision, count) for count in batches for precision in ("fp32", "fp16", "int8")]
    for row in found["rows"]:
        assert set(row) >= FIGURES
        assert row["host"]["p50_ms"] <= row["host"]["p90_ms"] <= row["host"]["p99_ms"]
        assert row["engine"]["count"] >= 3
    assert not found["failed"]
    verdicts = re.findall(r"^(?:PASS|FAIL) ", done.stdout, re.MULTILINE)
    assert len(found["requirements"]) == len(verdicts) == 3 * len(batches) + 3 * (1 in batches) + (8 in batches)
    assert len(re.findall(r"^resnet18 ", done.stdout, re.MULTILINE)) == 3 * len(batches)


@pytest.mark.slow
def test_engines_are_kept_and_a_failing_network_is_passed_over(
    machine: Callable[..., dict[str, str]], artifacts: Path, tmp_path: Path
) -> None:
    """With --work a second run builds nothing; a network whose artifact is not there is said, and the next is measured."""
    environment = machine()
    words = ("--artifacts", artifacts, "--networks", "resnet9,resnet18", "--batches", "1", "--work", tmp_path / "work")
    stamps = []
    for _ in range(2):
        done = measured(environment, *words)
        assert done.returncode == 0, done.stderr
        assert "resnet9: no artifact at" in done.stderr
        assert len(re.findall(r"^resnet18 ", done.stdout, re.MULTILINE)) == 3
        plans = sorted((tmp_path / "work").glob("*/engines/tensorrt-*/plan.engine"))
        stamps.append([(path, path.stat().st_mtime_ns) for path in plans])
    assert len(stamps[0]) == 3
    assert stamps[0] == stamps[1]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_with_what_there_is(
    machine: Callable[..., dict[str, str]], artifacts: Path, tmp_path: Path, how: signal.Signals
) -> None:
    """Interrupted after the first of four batches, it prints the verdicts on what it has, writes all, and ends with 0."""
    report = tmp_path / "report.json"
    words = ("--artifacts", artifacts, "--batches", "1,8", "--seconds", "1", "--json", report)
    command = [sys.executable, str(SCRIPT), "--quick", *map(str, words)]
    pipe = subprocess.PIPE
    with started(command, env=machine(), stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        lines = []
        while not any(line.startswith("resnet18 int8") for line in lines):
            lines.append(process.stdout.readline())
            assert lines[-1], process.communicate()[1]
        time.sleep(0.5)
        process.send_signal(how)
        rest, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "interrupted" in said
    assert "Traceback" not in said
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found["interrupted"] is True
    assert [row["batch"] for row in found["rows"]][:3] == [1, 1, 1]
    assert "host latency" in rest


def test_without_a_gpu_there_is_one_line() -> None:
    """Exit code 1, what is missing and what to do, no traceback."""
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False, cwd=REPO)
    if done.returncode == 0:
        pytest.skip("there is a GPU here")
    assert done.returncode == 1
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["error", "hint"]


def stats(p50: float) -> dict[str, float]:
    return {"count": 9, "p50_ms": p50, "p90_ms": p50, "p99_ms": p50}


def entry(precision: str, batch: int, engine: float, host: float, **rates: float) -> dict[str, Any]:
    times = {"engine": stats(engine), "host": stats(host), "copies": stats(0.1)}
    return {"network": "resnet18", "precision": precision, "batch": batch, **times, **rates}


def test_requirements_are_judged_as_they_are_written(benchmark: ModuleType) -> None:
    """On both sides of each border."""
    good = [entry("fp32", 8, 3.0, 9), entry("fp16", 8, 2.0, 9), entry("int8", 8, 1.0, 9)]
    assert [passed for passed, _ in benchmark.verdicts(good)] == [True]
    assert [passed for passed, _ in benchmark.verdicts([*good[:2], entry("int8", 8, 2.0, 9)])] == [False]
    assert benchmark.verdicts(good[1:]) == []
    assert benchmark.verdicts([{**row, "batch": 4} for row in good]) == []
    assert [passed for passed, _ in benchmark.verdicts([entry("fp16", 1, 1.0, 1.2)])] == [True]
    assert [passed for passed, _ in benchmark.verdicts([entry("fp16", 1, 1.0, 1.21)])] == [False]
    slow = entry("fp16", 32, 1.0, 9, **{"alone_per_s": 100.0, "1_per_s": 99.0, "2_per_s": 94.0, "4_per_s": 94.9})
    assert [passed for passed, _ in benchmark.verdicts([slow])] == [False], "one batch under way is no pipeline"
    assert [passed for passed, _ in benchmark.verdicts([{**slow, "4_per_s": 95.0}])] == [True]


def test_a_row_that_ended_early_is_printed(benchmark: ModuleType) -> None:
    """What is not there is a dash, in lines of one width; rates are medians over rounds and latencies pooled."""
    whole = benchmark.row("resnet18", "int8", 8, {"engine": [1.0, 3.0, 2.0], "alone_per_s": [5.0, 9.0, 7.0], "frames_cpu": [8.0]})
    assert (whole["engine"]["p50_ms"], whole["alone_per_s"], whole["frames_over_engine"]) == (2.0, 7.0, 4.0)
    empty = benchmark.row("resnet18", "int8", 8, {})
    assert len(benchmark.line(whole)) == len(benchmark.line(empty)) == max(map(len, benchmark.HEAD.splitlines()))
    assert benchmark.line(empty).split()[3:] == ["-"] * 13


def test_contenders_take_turns(benchmark: ModuleType) -> None:
    """Each round measures every figure of every precision once, and another precision first."""
    asked: list[tuple[str, str]] = []

    def measure(key: tuple[str, str]) -> Callable[[float], list[float]]:
        return lambda seconds: [float(asked.append(key) or seconds)]

    keys = [(precision, name) for precision in ("a", "b") for name in ("engine", "host")]
    samples: dict[tuple[str, str], list[float]] = {}
    for _ in range(2):
        benchmark.race({key: measure(key) for key in keys}, samples, 0.5, "title")
    order = [("a", "engine"), ("b", "engine"), ("a", "host"), ("b", "host")]
    turned = [("b", "engine"), ("a", "engine"), ("b", "host"), ("a", "host")]
    assert asked == order + turned
    assert samples == {key: [0.5, 0.5] for key in keys}


def suite(environment: dict[str, str], artifacts: Path, tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The tests on a GPU, by pytest without this project's settings and fixtures, as a machine without torch runs them."""
    data = load_script(REPO / "tests" / "gpu" / "pretend.py").write_data(tmp_path / "data", count=24, side=40)
    # What another pytest was told would change what this one prints.
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}
    settings = {
        "EDGE_RESNET_GPU_ARTIFACTS": str(artifacts),
        "EDGE_RESNET_GPU_WORK": str(tmp_path / "work"),
        "EDGE_RESNET_TEST_DATA": str(data),
        "EDGE_RESNET_GPU_INFERENCES": "100",
    }
    options = ["-c", "/dev/null", "--rootdir", str(REPO), "--confcutdir", "tests/gpu", "-p", "no:cacheprovider", "-q", "-rs"]
    command = [sys.executable, "-m", "pytest", *options, "tests/gpu", *words]
    return subprocess.run(
        command, env={**environment, **settings}, capture_output=True, text=True, check=False, timeout=280, cwd=REPO
    )


@pytest.mark.parametrize(
    ("chosen", "count"),
    [("(logits_are and resnet18 and int8) or thousands", 2), pytest.param("not resnet50", 50, marks=pytest.mark.slow)],
)
def test_the_tests_on_a_gpu_hold_on_stand_ins(
    machine: Callable[..., dict[str, str]], artifacts: Path, tmp_path: Path, chosen: str, count: int
) -> None:
    """Every one is executed, but for the one that needs torch with CUDA, and tells its figures."""
    done = suite(machine(), artifacts, tmp_path, "-k", chosen)
    assert done.returncode == 0, done.stdout
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|skipped|deselected)", done.stdout)}
    assert counts["passed"] >= count, done.stdout
    assert counts.get("skipped", 0) <= 1
    assert "test_torch_and_the_backend" not in done.stdout
    assert "resnet18 int8: 100.0 % equal answers of 128" in done.stdout
    assert "GPU MiB" in done.stdout


@pytest.mark.slow
def test_an_engine_that_mixes_answers_up_fails_them(
    machine: Callable[..., dict[str, str]], artifacts: Path, tmp_path: Path
) -> None:
    """Rows in the wrong order are found by all comparisons of logits, in every precision."""
    done = suite(machine(fault="numbers"), artifacts, tmp_path, "-k", "resnet18 and (logits_are or every_batch)")
    assert done.returncode == 1, done.stdout
    assert "6 failed" in done.stdout
