"""The smallest data and networks for the experiments."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edge_resnet.core.records import ModelSpec
from edge_resnet.network import build_network
from edge_resnet.studies.paper import ExperimentRequest, ExperimentResult, run_experiment
from edge_resnet.studies.paper.scale import paper_options

Make = Callable[..., ExperimentRequest]


@pytest.fixture(scope="session")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ninety images of 16 x 16 pixels in three classes that differ in brightness, as an .npz."""
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    images = rng.integers(0, 60, (90, 16, 16, 3)) + 90 * labels[:, None, None, None]
    path = tmp_path_factory.mktemp("small") / "small.npz"
    np.savez(path, images=np.clip(images, 0, 255).astype(np.uint8), labels=labels)
    return path


@pytest.fixture
def training(small_set: Path, tmp_path: Path) -> Make:
    """Request an experiment that trains 8 and 14 layers for two epochs on the small set; keywords replace its settings."""

    def make(experiment: str = "degradation", *, epochs: float = 2, **changed: Any) -> ExperimentRequest:
        options = replace(paper_options("cifar"), epochs=epochs, batch=30, rate=0.05)
        asked = {"depths": (8, 14), "data": str(small_set), "test_data": str(small_set), "input_size": 16, "training": options}
        asked.update(changed)
        return ExperimentRequest(experiment, asked.pop("output", tmp_path / "out"), **asked)

    return make


@pytest.fixture(scope="session")
def finished(small_set: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ExperimentRequest, ExperimentResult]:
    """A finished degradation experiment of 8 and 14 layers; tests must not change it."""
    options = replace(paper_options("cifar"), epochs=2, batch=30, rate=0.05)
    output, data = tmp_path_factory.mktemp("finished") / "out", str(small_set)
    request = ExperimentRequest("degradation", output, depths=(8, 14), data=data, test_data=data, input_size=16, training=options)
    return request, run_experiment(request)[0]


@pytest.fixture
def copied(finished: tuple[ExperimentRequest, ExperimentResult], tmp_path: Path) -> ExperimentRequest:
    """A copy of the finished experiment that a test may change."""
    request = finished[0]
    shutil.copytree(request.output, tmp_path / "copy")
    return replace(request, output=tmp_path / "copy")


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[ModelSpec], Path]:
    """Save seeded weights of a network to a file and return its path."""
    folder = tmp_path_factory.mktemp("weights")

    def save(spec: ModelSpec, seed: int = 0) -> Path:
        path = folder / f"{spec.name}-{spec.shortcut}-{spec.classes}-{seed}.safetensors"
        if path.exists():
            return path
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            save_file(build_network(spec).state_dict(), path)
        return path

    return save
