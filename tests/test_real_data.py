"""What the project promises on real weights and images. Skipped where the data is not beside the checkout.

The quick half runs by default; ImageNet's half is marked slow: `make slow`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_resnet.core.statistics import wilson_interval

PHOTOS = {
    "banana_0": "banana",
    "bird_0": "robin",
    "black_bear": "American black bear",
    "cat_1": "tabby",
    "coral": "coral reef",
    "dog_1": "Newfoundland",
    "granny_smith_0": "Granny Smith",
    "jellyfish": "jellyfish",
    "orange_0": "orange",
    "polar_bear": "ice bear",
    "strawberry_0": "strawberry",
}


def _command(*words: str | Path, cwd: Path) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "edge_resnet", *map(str, words)], capture_output=True, text=True, check=False, cwd=cwd
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def _peak_gb(*words: str | Path) -> float:
    """The peak memory of a command, in GB; asked of a process with no other children."""
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", code, sys.executable, "-m", "edge_resnet", *map(str, words)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 1e6


def _evaluate(artifact: Path, data: Path, *words: str) -> dict[str, Any]:
    # The reference's own backend: an FP32 artifact takes one pass there, not two.
    words = ("--backend", "onnxruntime", *words)
    result: dict[str, Any] = json.loads(_command("eval", artifact, "--data", data, "--json", *words, cwd=artifact.parent))
    return result


@pytest.fixture(scope="module")
def cifar(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with cifar_test.npz (10,000 images), its first 1,000 and cifar_train.npz (also 1,000), cut from the sheets."""
    folder = tmp_path_factory.mktemp("cifar")
    for split, sheets in (("test", 10), ("train", 1)):
        paths = sorted((real_data / "cifar10").glob(f"{split}_[0-9]*.webp"))[:sheets]
        if len(paths) < sheets:
            pytest.skip(f"no CIFAR-10 sheets in {real_data}")
        tiles = [np.asarray(Image.open(path)).reshape(25, 32, 40, 32, 3).transpose(0, 2, 1, 3, 4) for path in paths]
        images = np.concatenate([tile.reshape(-1, 32, 32, 3) for tile in tiles])
        np.savez(folder / f"cifar_{split}.npz", images=images, labels=np.arange(len(images)) % 10)
        if split == "test":
            np.savez(folder / "cifar_first.npz", images=images[:1000], labels=np.arange(1000) % 10)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "file", "top1"), [(20, "resnet20-12fca82f.th", 91.73), (32, "resnet32-d509ac18.th", 92.62)])
def test_cifar_networks_have_their_published_accuracy(
    real_data: Path, cifar: Path, tmp_path: Path, depth: int, file: str, top1: float
) -> None:
    """FP32 reproduces the checkpoint's figure within 0.02, and INT8 loses at most 0.2 of it, on 10,000 images."""
    fp32, int8 = _both(real_data, cifar, tmp_path, depth, file, "cifar_test.npz")
    assert fp32["images"] == 10_000
    assert fp32["top1"] == pytest.approx(top1, abs=0.02)
    assert fp32["agreement"] == 100
    assert int8["top1"] >= top1 - 0.2
    assert int8["agreement"] >= 99.0


@pytest.mark.slow
def test_a_cifar_network_has_its_accuracy_on_the_first_images(real_data: Path, cifar: Path, tmp_path: Path) -> None:
    """The like on the first thousand, of which the checkpoint knows 91.4 %, with fewer images for the ranges."""
    fp32, int8 = _both(real_data, cifar, tmp_path, 20, "resnet20-12fca82f.th", "cifar_first.npz", "--calib-images", "128")
    assert fp32["images"] == 1_000
    assert fp32["top1"] == pytest.approx(91.4, abs=0.11)
    assert fp32["agreement"] == 100
    assert int8["top1"] >= fp32["top1"] - 0.6
    assert int8["agreement"] >= 98.5


def _both(
    real_data: Path, cifar: Path, tmp_path: Path, depth: int, file: str, images: str, *more: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What eval says of a CIFAR network in FP32 and in INT8, both built here."""
    words = (
        "build",
        "--family",
        "cifar",
        "--depth",
        str(depth),
        "--shortcut",
        "A",
        "--weights",
        real_data / "weights/cifar10" / file,
    )
    _command(*words, "--fp32", "-o", "fp32", cwd=tmp_path)
    _command(*words, "--int8", "--correct", "none", "--calib-data", cifar / "cifar_train.npz", *more, "-o", "int8", cwd=tmp_path)
    return _evaluate(tmp_path / "fp32", cifar / images), _evaluate(tmp_path / "int8", cifar / images)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("depth", "file"), [(20, "resnet20-12fca82f.th"), (32, "resnet32-d509ac18.th")])
def test_learned_int8_agrees_with_fp32(real_data: Path, cifar: Path, tmp_path: Path, depth: int, file: str) -> None:
    """TensorRT's INT8 by the shipped recipe: 99.3 % of 10,000 answers are FP32's, and top-1 drops by 0.10 at most.

    What is learned depends on the order of sums, and so on the number of threads: 99.21 % was seen with one. The limit is the
    lower end of the 95 % interval of 99.3 %, 99.12 %; INT8 of depth 20 without corrections has 99.07 % and would fail.
    """
    weights = real_data / "weights/cifar10" / file
    words = ("build", "--family", "cifar", "--depth", str(depth), "--shortcut", "A", "--weights", weights, "--int8")
    _command(*words, "--calib-data", cifar / "cifar_train.npz", "-o", "int8", cwd=tmp_path)
    result = _evaluate(tmp_path / "int8", cifar / "cifar_test.npz", "--simulate-int8")
    assert result["agreement"] >= 100 * wilson_interval(9_930, 10_000)[0]
    assert result["top1"] >= result["fp32_top1"] - 0.10


@pytest.fixture(scope="module")
def r50(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float, float]:
    """The INT8 ResNet-50 of the README, the seconds its build took and its peak memory in GB."""
    folder = tmp_path_factory.mktemp("r50")
    started = time.monotonic()
    peak = _peak_gb(
        *("build", "--depth", "50", "--int8", "--correct", "none", "--calib-images", "128", "-o", folder / "r50"),
        *("--weights", real_data / "weights/imagenet/resnet50_large_blocks_bnstats.safetensors"),
        *("--calib-data", real_data / "imagenet/sample500.csv"),
    )
    return folder / "r50", time.monotonic() - started, peak


@pytest.mark.slow
def test_the_int8_build_stays_within_its_budget(r50: tuple[Path, float, float]) -> None:
    """ResNet-50 with 128 calibration images: under 2.5 GB, and under 90 s on two cores (twice that allowed where shared)."""
    _, seconds, gigabytes = r50
    assert gigabytes < 2.5
    assert seconds < 180


@pytest.mark.slow
def test_resnet50_int8_keeps_its_accuracy(r50: tuple[Path, float, float], real_data: Path) -> None:
    """Plain ranges: INT8's top-1 lies within 2.0 of FP32's on the same 500 images, on the CPU and in TensorRT's form."""
    result = _evaluate(r50[0], real_data / "imagenet/sample500.csv")
    assert result["images"] == 500
    assert result["top1"] >= result["fp32_top1"] - 2.0
    assert result["ci95"][0] < result["top1"] < result["ci95"][1]
    simulated = _evaluate(r50[0], real_data / "imagenet/sample500.csv", "--simulate-int8")
    assert simulated["top1"] >= simulated["fp32_top1"] - 2.0


@pytest.mark.slow
def test_photographs_get_their_names(r50: tuple[Path, float, float], real_data: Path) -> None:
    """INT8 ResNet-50 names all eleven photographs."""
    lines = _command("run", r50[0], "--source", real_data / "photos", "--headless", "--jsonl", "-", cwd=r50[0].parent)
    answers = {Path(row["source"]).stem: row["top"][0]["label"] for row in map(json.loads, lines.splitlines())}
    assert answers == PHOTOS


@pytest.mark.slow
def test_the_bottle_is_a_bottle_on_most_frames(r50: tuple[Path, float, float], real_data: Path) -> None:
    """Every one of the clip's 1,189 frames is classified, most of them as a water or a pop bottle."""
    clip = real_data / "video/bottle-detection.mp4"
    _command("run", r50[0], "--source", clip, "--headless", "--jsonl", "out.jsonl", cwd=r50[0].parent)
    rows = [json.loads(line) for line in (r50[0].parent / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["frame"] for row in rows] == list(range(1189))
    bottles = sum(row["top"][0]["label"] in ("water bottle", "pop bottle") for row in rows)
    assert bottles > len(rows) / 2


def _one_pass(folder: Path) -> Path:
    """A recipe that learns for one pass: what memory it takes does not depend on how many there are."""
    path = folder / "one-pass.toml"
    path.write_text('method = "mse"\ncorrection = "learned"\nepochs = 1\n', encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_calibration_memory_does_not_grow_with_the_images(real_data: Path, tmp_path: Path) -> None:
    """ResNet-18's peak memory with 500 calibration images, learning included, is within 5 % of that with 64."""
    recipe = _one_pass(tmp_path)
    peaks = [
        _peak_gb(
            *("build", "--depth", "18", "--int8", "--calib-images", str(images), "--calib-recipe", recipe),
            *("--weights", real_data / "weights/imagenet/resnet18_small_blocks_bnstats.safetensors"),
            *("--calib-data", real_data / "imagenet/sample500.csv", "-o", tmp_path / str(images)),
        )
        for images in (64, 500)
    ]
    assert peaks[1] <= 1.05 * peaks[0]
