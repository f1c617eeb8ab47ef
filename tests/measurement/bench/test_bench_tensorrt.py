"""``edge-resnet bench --backend tensorrt`` in a process that finds stand-ins of TensorRT, PyCUDA and the driver.

The times are not a GPU's; that it builds, keeps two batches running and fills the record of a GPU is what this tests.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from scripts import load_script

from edge_resnet.measurement.bench.result import read_results

PRETEND = Path(__file__).resolve().parents[2] / "gpu" / "pretend.py"


@pytest.fixture
def machine(tmp_path: Path, libcuda: Path, surfaces: Path) -> Callable[..., dict[str, str]]:
    """Makes the environment of a process that finds a GPU."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ to stand in for nvcc")
    module = load_script(PRETEND)
    return lambda **how: module.pretend(tmp_path / "machine", libcuda, surfaces, **how)


@pytest.mark.slow
def test_all_scenarios_on_a_gpu(machine: Callable[..., dict[str, str]], tiny_int8: Path, tmp_path: Path) -> None:
    """Three records of TensorRT with its stages and cold start.

    Copies, network and frames resized on the GPU are stages; queries of eight that run in parts on an engine for one image give a
    caveat.
    """
    arguments = ["bench", tiny_int8, "--backend", "tensorrt", "--scenario", "all", "--seconds", "0.3", "--min-queries", "20"]
    command = [
        sys.executable,
        "-m",
        "edge_resnet",
        *map(str, arguments),
        "--frame",
        "64x48",
        "--save",
        tmp_path / "b.json",
        "--json",
    ]
    done = subprocess.run(command, env=machine(), capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    results = read_results(tmp_path / "b.json")
    assert [result.scenario for result in results] == [record["scenario"] for record in json.loads(done.stdout)]
    for result in results:
        assert (result.backend, result.precision) == ("tensorrt", "int8")
        assert result.count >= 20
        assert {"inference", "h2d", "compute", "d2h", "frame_inference"} <= set(result.stages_ms)
        assert all(result.stages_ms[part] > 0 for part in ("h2d", "compute", "d2h"))
        assert result.cold_start_ms is not None
        assert result.engine_bytes > 0
        parts = [warning for warning in result.warnings if "ran in parts" in warning]
        assert len(parts) == (result.scenario == "multi-stream")
