"""Weights that bring their preprocessing bring it to training, to the file that it writes, and to a report."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save, save_file
from servers.hub import Hub, Repository, asked

from edge_resnet.core.errors import WeightsError
from edge_resnet.core.records import ModelSpec, Preprocess
from edge_resnet.network import build_network
from edge_resnet.network.training import TrainOptions
from edge_resnet.network.training.job import JobResult, NetworkChoice, TrainJob
from edge_resnet.network.weightfile import STATED
from edge_resnet.pipelines.selection import Request, select
from edge_resnet.pipelines.train import train
from edge_resnet.studies.sweep.cells import Cells
from edge_resnet.studies.sweep.make import ArtifactBuilder
from edge_resnet.studies.sweep.plan import Network, SweepRequest, Target
from edge_resnet.studies.sweep.selection import ImageSplit

pytest.importorskip("huggingface_hub")
SPEC = ModelSpec("cifar", 8, "A", classes=10, input_size=32)
BROUGHT = Preprocess(40, 32, "bicubic", (0.5,) * 3, (0.25,) * 3)
SAID = {"input_size": [3, 32, 32], "interpolation": "bicubic", "crop_pct": 0.8, "mean": [0.5] * 3, "std": [0.25] * 3}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub with one small network, whose images are not prepared as the family's."""
    torch.manual_seed(0)
    with asked(tmp_path, monkeypatch) as running:
        files = {
            "model.safetensors": save(build_network(SPEC).state_dict()),
            "config.json": json.dumps({"pretrained_cfg": SAID}).encode(),
        }
        running.repositories["some/net"] = Repository(files)
        yield running


def trained(images: Path, folder: Path, weights: str, **choice: object) -> JobResult:
    """One step from ``weights``."""
    network = NetworkChoice("cifar", 8, "A", weights=weights, **choice)  # type: ignore[arg-type]
    options = TrainOptions(epochs=1, max_steps=1, batch=8, augment="none", device="cpu")
    return train(TrainJob(network, str(images), None, options, folder))


def test_training_and_what_it_writes_keep_the_preprocessing(
    hub: Hub, smooth_images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The images are prepared as the weights say, a line says so, and a build from the written file does the same."""
    with caplog.at_level(logging.WARNING, logger="edge_resnet"):
        done = trained(smooth_images, tmp_path / "run", "hf://some/net")
    assert "resize 40 (bicubic), crop 32, mean 0.5/0.5/0.5, std 0.25/0.25/0.25; from config.json (timm)" in caplog.text
    record = json.loads((done.folder / "result.json").read_text(encoding="utf-8"))
    assert record["preprocess"] == json.loads(json.dumps(BROUGHT.__dict__))
    built = select(Request(str(done.folder / "weights.safetensors")))
    assert (built.preprocess, built.origin.preprocessing) == (BROUGHT, "the training that wrote the file")


def test_what_the_user_says_comes_first(hub: Hub, smooth_images: Path, tmp_path: Path) -> None:
    """Mean and std of the command replace those of the weights; the rest stays. Random weights bring nothing."""
    own = trained(smooth_images, tmp_path / "own", "hf://some/net", mean=(0.4,) * 3)
    stated = select(Request(str(own.folder / "weights.safetensors"))).preprocess
    assert stated == Preprocess(40, 32, "bicubic", (0.4,) * 3, (0.25,) * 3)
    assert "--mean 0.4 0.4 0.4" in own.build
    usual = trained(smooth_images, tmp_path / "usual", "random")
    assert select(Request(str(usual.folder / "weights.safetensors"))).preprocess == Preprocess(32, 32)


def test_a_report_builds_with_the_preprocessing_of_the_weights(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The artifact has it with its origin, and the line goes into the report's notes."""
    network = Network(SPEC, None, "hf://some/net")
    builder = ArtifactBuilder(
        SweepRequest((network,), batches=(1,)), tmp_path / "made", Cells(tmp_path / "cells"), ImageSplit(None, None, "", ""), None
    )
    with caplog.at_level(logging.WARNING, logger="edge_resnet"):
        artifact, _ = builder.artifact(Target("r8", SPEC, "fp32", network))
    assert artifact.manifest.preprocess == BROUGHT
    assert artifact.manifest.origin is not None
    assert artifact.manifest.origin.source == "hf://some/net/model.safetensors"
    assert "resize 40 (bicubic)" in caplog.text


def test_a_file_that_states_nonsense_is_refused(tmp_path: Path) -> None:
    """Text that is no JSON, and values that no preprocessing has, are an error and not the family's."""
    torch.manual_seed(0)
    state = build_network(SPEC).state_dict()
    for text in ("[1", '{"resize": 32}', json.dumps(BROUGHT.__dict__ | {"std": [0, 1, 1]})):
        save_file(state, tmp_path / "w.safetensors", metadata={STATED: text})
        assert load_file(tmp_path / "w.safetensors")
        with pytest.raises(WeightsError, match="states preprocessing that makes no sense"):
            select(Request(str(tmp_path / "w.safetensors")))
