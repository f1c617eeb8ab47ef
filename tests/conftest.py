"""Fixtures that several wings share. Knows where the real data may lie; a test that needs it is skipped elsewhere."""

from __future__ import annotations

import fcntl
import gc
import os
import pickle
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import get_args

import numpy as np
import pytest
import torch
from exported import ONCE
from hypothesis import HealthCheck, settings
from once import Once
from standins.surface import strict
from standins.tensorrt_build import BUILD_CLASSES
from tiny import tiny_options

from edge_resnet.artifact.folder import Artifact, open_artifact
from edge_resnet.core.records import Precision, default_spec
from edge_resnet.pipelines import demo
from edge_resnet.pipelines.build import build
from edge_resnet.pipelines.demo import DemoResult, run_demo

# A shell ignores Ctrl-C for what it starts in the background, nohup ignores hangups, and every child inherits that: the tests of
# these signals would wait for processes that never end.
for ignored, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(ignored) is signal.SIG_IGN:
        signal.signal(ignored, usual)

# xdist's workers keep every core busy: more than one thread in each would wait for the others' threads, for minutes.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)

# No deadline and no judgement of speed: how long an example takes says more of the machine's other work than of the code.
settings.register_profile(
    "edge-resnet", max_examples=40, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("thorough", settings.get_profile("edge-resnet"), max_examples=200)
settings.load_profile("edge-resnet")

REPO = Path(__file__).resolve().parent.parent


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Iterator[None]:
    """Modules and tests live to the end: while they are made no garbage is looked for among them, nor ever after."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Random weights and images are the same in every run and in every order of the tests."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data beside the checkout, or the one that EDGE_RESNET_TEST_DATA names."""
    folder = Path(os.environ.get("EDGE_RESNET_TEST_DATA", REPO.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real test data is not here ({folder}); set EDGE_RESNET_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Once:
    """Gives the folder of a name, filled by the first worker that asks while the others wait; not to be changed."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent

    def filled(name: str, fill: Callable[[Path], None]) -> Path:
        folder, done = shared / name, shared / f"{name}.done"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return filled


@pytest.fixture(scope="session", autouse=True)
def _exported_once(once: Once) -> Iterator[None]:
    """``exported`` shares its files between the workers."""
    ONCE.append(once)
    yield
    ONCE.clear()


@pytest.fixture
def uncollected() -> Iterator[None]:
    """For a test that signals its own process: no garbage is collected, in whose callbacks the exception would be lost."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="session")
def demonstration(once: Once) -> tuple[DemoResult, Path]:
    """The demonstration with eight layers in place of twenty and most of its training, and the folder that it wrote.

    Not to be changed.
    """

    def fill(folder: Path) -> None:
        patch = pytest.MonkeyPatch()
        patch.setattr(demo, "SPEC", default_spec("cifar", 8))
        patch.setattr(demo, "TRAINING", replace(demo.TRAINING, epochs=5))
        patch.setattr(demo, "MEASURE_S", 0.2)
        try:
            result = run_demo(folder / "artifacts")
        finally:
            patch.undo()
        (folder / "result.pickle").write_bytes(pickle.dumps(result))

    folder = once("demonstration", fill)
    return pickle.loads((folder / "result.pickle").read_bytes()), folder / "artifacts"


@pytest.fixture
def brief_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark does all its steps, each as often as it must: for tests of what is made of the figures, not of the figures."""
    monkeypatch.setattr("edge_resnet.measurement.bench.bench._WARM_UP_MAX_S", 0.0)
    monkeypatch.setattr("edge_resnet.measurement.bench.timing._WINDOW_NS", 0)
    monkeypatch.setattr("edge_resnet.measurement.bench.stages._MIN_ROUNDS", 2)
    monkeypatch.setattr("edge_resnet.measurement.bench.bench._STAGES_SHARE", 0.0)


@pytest.fixture(scope="session")
def smooth_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty-four smooth images of 40 x 48 pixels with labels 0 to 9, as an .npz."""
    y, x = np.mgrid[0:40, 0:48] / 48
    waves = np.random.default_rng(1).uniform(1, 6, (64, 3, 2))
    phase = waves[..., 0, None, None] * x + waves[..., 1, None, None] * y
    images = (127.5 + 127.5 * np.sin(2 * np.pi * phase)).transpose(0, 2, 3, 1).astype(np.uint8)
    path = tmp_path_factory.mktemp("images") / "smooth.npz"
    np.savez(path, images=images, labels=np.arange(64) % 10)
    return path


@pytest.fixture(scope="session")
def tiny_artifacts(once: Once, tmp_path_factory: pytest.TempPathFactory, smooth_images: Path) -> dict[str, Artifact]:
    """An artifact per precision of one seeded tiny network, made by the real pipeline; not to be changed.

    Each worker has its copy, because opening one leaves an engine in it.
    """

    def fill(folder: Path) -> None:
        for precision in get_args(Precision):
            torch.manual_seed(0)
            build(tiny_options(precision, folder / precision, smooth_images))

    folder = tmp_path_factory.mktemp("artifacts")
    shutil.copytree(once("tiny-artifacts", fill), folder, dirs_exist_ok=True)
    return {precision: open_artifact(folder / precision) for precision in get_args(Precision)}


@pytest.fixture
def tiny_int8(tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> Path:
    """A copy of the tiny INT8 artifact that a test may damage."""
    return Path(shutil.copytree(tiny_artifacts["int8"].folder, tmp_path / "tiny"))


@pytest.fixture(scope="session")
def surfaces(real_data: Path) -> Path:
    """The folder of TensorRT's recorded API surfaces."""
    return real_data / "tensorrt_api"


@pytest.fixture
def tensorrt_of(surfaces: Path) -> Callable[[str], ModuleType]:
    """Makes the strict stand-in of a version."""
    return lambda version: strict(version, BUILD_CLASSES, surfaces)


@pytest.fixture(scope="session")
def libcuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CUDA driver that finds one GPU and does nothing else."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for the stand-in of the CUDA driver")
    path = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", path, REPO / "tests/standins/libcuda.c"], check=True)
    return path
