"""benchmarks/peers.py: its figures from known times, and its rows compared on the real weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts import load_script

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "peers.py"


@pytest.fixture(scope="module")
def peers() -> ModuleType:
    """The script as a module."""
    return load_script(SCRIPT)


@given(samples=st.lists(st.floats(0.1, 1e4), min_size=1, max_size=60))
def test_the_median_lies_in_its_interval(peers: ModuleType, samples: list[float]) -> None:
    """Low <= median <= high, and both are samples."""
    low, high = peers.interval(samples)
    assert low <= float(np.median(samples)) <= high
    assert {low, high} <= set(samples)


def test_the_interval_covers(peers: ModuleType) -> None:
    """In at least 93 % of a thousand draws of 15 the interval holds the true median."""
    rng = np.random.default_rng(0)
    found = [peers.interval(rng.exponential(1, 15).tolist()) for _ in range(1000)]
    assert np.mean([low <= np.log(2) <= high for low, high in found]) >= 0.93


class Running:
    """A row that was measured, or failed."""

    def __init__(self, failed: str = "") -> None:
        self.failed, self.note = failed, "a version"


def summarised(peers: ModuleType, times: dict[str, list[float]], failed: str = "") -> dict[str, Any]:
    """A table of rows with the same times on every path; the row ``failed`` did not run."""
    running = {name: Running() for name in times}
    if failed:
        running[failed] = Running("ImportError: no such package")
    classes = {name: [1, 2, 3] for name in times}
    work = {"depth": 18, "labels": [1, 2, 9]}
    paths = {name: dict.fromkeys(peers.PATHS, took) for name, took in times.items()}
    found: dict[str, Any] = peers.summary(running, work, 8, paths, classes)
    return found


def test_ratios_are_paired_by_rounds(peers: ModuleType) -> None:
    """A machine that is ten times slower in half of the rounds changes no ratio, because each is of one round."""
    ours, slow = [1.0, 10.0] * 4, [3.0, 30.0] * 4
    found = summarised(peers, {"torch eager": slow, "ours INT8, openvino": ours, "ours INT8, onnxruntime": [2.0, 20.0] * 4})
    rows = {row["row"]: row for row in found["rows"]}
    assert found["ours"] == "ours INT8, openvino"
    assert rows["torch eager"]["frame"]["x"] == pytest.approx(3)
    assert rows["torch eager"]["frame"]["x_ci95"] == (pytest.approx(3), pytest.approx(3))
    assert (rows["torch eager"]["same"], rows["torch eager"]["right"]) == (3, 2)
    text = peers.table(found)
    assert text.index("ours INT8, openvino |") < text.index("ours INT8, onnxruntime |") < text.index("torch eager |")
    assert "frame: fastest is ours INT8, openvino, 1.00" in text


def test_a_faster_peer_is_named(peers: ModuleType) -> None:
    """If ours is not the fastest, a line names the fastest row and its ratio."""
    found = summarised(peers, {"OpenCV DNN FP32": [2.0] * 8, "ours INT8, openvino": [4.0] * 8})
    assert "engine: fastest is OpenCV DNN FP32, 0.50 (0.50 to 0.50) of ours" in peers.table(found)


def test_a_row_that_cannot_run_says_why(peers: ModuleType) -> None:
    """The table holds the reason instead of figures; ours on the other backend becomes the reference."""
    found = summarised(peers, {"ours INT8, openvino": [], "ours INT8, onnxruntime": [2.0] * 8}, failed="ours INT8, openvino")
    assert found["ours"] == "ours INT8, onnxruntime"
    assert "| ours INT8, openvino | did not run: ImportError: no such package |" in peers.table(found)


@pytest.mark.parametrize("size", [(500, 375), (256, 256), (333, 1000)])
def test_the_peers_preprocessing_equals_torchvisions(peers: ModuleType, size: tuple[int, int]) -> None:
    """The code in Pillow gives what torchvision's transforms give, except for rounding of the size."""
    from PIL import Image
    from torchvision import transforms

    y, x = np.mgrid[0 : size[1], 0 : size[0]] / 40
    image = Image.fromarray(
        np.stack([127 + 120 * np.sin(x), 127 + 120 * np.cos(y), 127 + 120 * np.sin(x + y)], 2).astype(np.uint8)
    )
    wanted = transforms.Compose(
        [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), transforms.Normalize(peers.MEAN, peers.STD)]
    )(image).numpy()
    found = peers.with_pillow(image)
    assert (found.shape, found.dtype) == ((3, 224, 224), np.float32)
    assert np.abs(found - wanted).mean() < 0.02


def test_unknown_rows_are_refused() -> None:
    """Before anything is prepared."""
    command = [sys.executable, str(SCRIPT), "--weights-dir", ".", "--data", "none.csv", "--rows", "abacus"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no row is called abacus" in done.stderr


@pytest.mark.slow
def test_a_quick_run(real_data: Path, tmp_path: Path) -> None:
    """Every row but torch.compile runs or says why not, all predict what torch does, and ours runs."""
    command = [sys.executable, str(SCRIPT), "--quick", "--weights-dir", str(real_data / "weights/imagenet")]
    command += [
        "--data",
        str(real_data / "imagenet/sample500.csv"),
        "--work",
        str(tmp_path / "w"),
        "--json",
        str(tmp_path / "p.json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "p.json").read_text())["tables"]
    rows = {row["row"]: row for row in found["rows"]}
    assert rows.pop("torch.compile")["failed"] == "left out by --quick"
    assert rows["ours INT8, onnxruntime"]["failed"] == ""
    for row in rows.values():
        assert row["failed"] or row["same"] >= 12, row
