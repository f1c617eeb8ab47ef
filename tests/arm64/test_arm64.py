"""The wheel on an emulated ARM processor: it installs, evaluates the shipped INT8 network, and answers as x86 does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from arm64.userland import Userland, make_userland, why_no_userland
from wheels import build_wheel

import edge_resnet as er
from edge_resnet.artifact.folder import Artifact

pytestmark = [pytest.mark.arm64, pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(3600)]

_LOGITS = """
import sys, numpy as np, edge_resnet as er
images = np.load("/opt/images.npz")["images"]
with er.load(sys.argv[1], backend="onnxruntime") as model:
    np.save("/opt/logits.npy", model.logits(list(images)))
"""


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Userland:
    """The userland, with the base install in ``base``, and in ``compile`` what derives engines, too."""
    if why_no_userland():
        pytest.skip(why_no_userland())
    found = make_userland(tmp_path_factory.mktemp("arm64") / "root")
    wheel = build_wheel(tmp_path_factory.mktemp("wheel"))
    found.install(wheel, "", "base")
    found.install(wheel, "[compile]", "compile")
    return found


@pytest.fixture(scope="module")
def images(arm: Userland, smooth_images: Path) -> Path:
    """Images and labels: 64 of CIFAR-10's test images where those are, else smooth ones."""
    data = os.environ.get("EDGE_RESNET_TEST_DATA", Path(__file__).resolve().parents[3] / "shared/data")
    sheet = Path(data) / "cifar10/test_00.webp"
    return _real(sheet, arm) if sheet.exists() else Path(shutil.copy(smooth_images, arm.root / "opt/images.npz"))


def _real(sheet: Path, arm: Userland) -> Path:
    from PIL import Image

    tiles = np.asarray(Image.open(sheet)).reshape(25, 32, 40, 32, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3)[:64]
    np.savez(arm.root / "opt/images.npz", images=tiles, labels=np.arange(64) % 10)
    return arm.root / "opt/images.npz"


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The INT8 ResNet-20 that ships, built on this machine with its engine."""
    folder = tmp_path_factory.mktemp("artifacts") / "resnet20-int8"
    return er.build(family="cifar", depth=20, precision="int8", output=folder)


@pytest.fixture(scope="module")
def expected(shipped: Artifact, images: Path) -> npt.NDArray[np.float32]:
    """The logits on x86."""
    with er.load(shipped.folder, backend="onnxruntime") as model:
        logits: npt.NDArray[np.float32] = model.logits(list(np.load(images)["images"]))
        return logits


def _check(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def _compare(arm: Userland, expected: npt.NDArray[np.float32], what: str, within: float = 0.001) -> None:
    found = np.load(arm.root / "opt/logits.npy")
    difference = float(np.abs(found - expected).max())
    same = int((found.argmax(1) == expected.argmax(1)).sum())
    sys.stderr.write(
        f"\n{what}: {same} of {len(found)} answers are x86's; logits differ by {difference:.2g} at most, "
        f"of a range of {float(np.ptp(expected)):.1f}\n"
    )
    assert same == len(found)
    assert difference <= within * np.ptp(expected)


def test_the_base_install_evaluates(arm: Userland, images: Path, shipped: Artifact, expected: npt.NDArray[np.float32]) -> None:
    """With an engine that was derived on x86 the base install gives x86's answers, and ``eval`` the same accuracy."""
    shutil.copytree(shipped.folder, arm.root / "opt/artifact")
    _check(arm.python("-c", _LOGITS, "/opt/artifact"))
    _compare(arm, expected, "engine of x86")
    said = json.loads(_check(arm.python("-m", "edge_resnet", "eval", "/opt/artifact", "--data", "/opt/images.npz", "--json")))
    labels = np.load(images)["labels"]
    assert said["images"] == len(labels)
    assert said["top1"] == pytest.approx(100 * float((expected.argmax(1) == labels).mean()))


@pytest.mark.parametrize("processor", ["cortex-a76", "cortex-a57"])
def test_an_engine_that_is_derived_there(
    arm: Userland, shipped: Artifact, images: Path, expected: npt.NDArray[np.float32], processor: str
) -> None:
    """``compile`` derives the engine, of 7-bit weights where the processor has no dot product, and the answers are x86's."""
    there, name = replace(arm, processor=processor), f"artifact-{processor}"
    shutil.copytree(shipped.folder, arm.root / "opt" / name, ignore=shutil.ignore_patterns("engines"))
    _check(there.python("-m", "edge_resnet", "compile", f"/opt/{name}", packages="compile"))
    (engine,) = (arm.root / "opt" / name / "engines").iterdir()
    assert ("u8s7" if processor == "cortex-a57" else "u8s8") in engine.name
    _check(there.python("-c", _LOGITS, f"/opt/{name}"))
    _compare(arm, expected, f"engine of {processor}, {engine.name}", within=0.05 if "u8s7" in engine.name else 0.001)


def test_the_doctor(arm: Userland) -> None:
    """It names the processor, finds what the base install has, and selects a backend in a child process."""
    done = arm.python("-m", "edge_resnet", "doctor")
    sys.stderr.write(f"\n{done.stdout}")
    assert "aarch64" in _check(done)
    assert "ready: eval, run on CPU (onnxruntime)" in done.stdout
    assert "Exec format error" not in done.stdout
