"""The network that a training starts with: random, or with trained weights, a new head and frozen stages."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from littlenet import same
from safetensors.torch import save_file

from edge_resnet.core.errors import ConfigError, WeightsError
from edge_resnet.core.records import ModelSpec
from edge_resnet.network import build_network
from edge_resnet.network.training.job import start_network

SPEC = ModelSpec("cifar", 8, "A", classes=10, input_size=32)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of the network with ten classes."""
    torch.manual_seed(7)
    path = tmp_path / "weights.safetensors"
    save_file(build_network(SPEC).state_dict(), path)
    return path


def test_random_weights_depend_on_the_seed() -> None:
    """The same seed draws the same weights and does not affect the caller's generator."""
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert same(start_network(SPEC, "random", seed=1), start_network(SPEC, "random", seed=1))
    assert not same(start_network(SPEC, "random", seed=1), start_network(SPEC, "random", seed=2))
    assert torch.equal(torch.rand(1), expected)


def test_a_file_with_the_same_head_is_loaded_completely(weights: Path) -> None:
    """Every tensor is that of the file."""
    torch.manual_seed(7)
    assert same(start_network(SPEC, str(weights), seed=0), build_network(SPEC))


def test_another_head_is_new_and_the_rest_is_loaded(weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With three classes the head has three, drawn from the seed; everything before it is from the file."""
    spec = replace(SPEC, classes=3)
    with caplog.at_level(logging.INFO, "edge_resnet"):
        network = start_network(spec, str(weights), seed=0)
    torch.manual_seed(7)
    donor = build_network(SPEC)
    assert same(network.layer3, donor.layer3)
    assert same(network.bn1, donor.bn1)
    assert same(network.fc, start_network(spec, "random", seed=0).fc)
    assert "the head is new: 3 classes, 10 in the weights" in caplog.text


def test_weights_of_another_depth_are_refused(weights: Path) -> None:
    """Weights that differ in more than the head are refused; the hint says what they fit."""
    with pytest.raises(WeightsError, match="do not fit") as caught:
        start_network(replace(SPEC, depth=14, classes=3), str(weights), seed=0)
    assert "--depth 8" in caught.value.hint


@pytest.mark.parametrize(("stage", "frozen"), [("stem", 3), ("layer1", 9), ("layer3", 21)])
def test_a_stage_is_frozen_with_all_before_it(weights: Path, stage: str, frozen: int) -> None:
    """That many of the 23 tensors of ResNet-8 have no gradient; the head always has one."""
    network = start_network(SPEC, str(weights), seed=0, freeze=stage)
    still = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    assert len(still) == frozen
    assert "conv1.weight" in still
    assert network.fc.weight.requires_grad


@pytest.mark.parametrize(
    ("stage", "weights_choice", "message"), [("layer4", "", "no stage"), ("head", "", "no stage"), ("stem", "random", "freezing")]
)
def test_what_cannot_be_frozen(weights: Path, stage: str, weights_choice: str, message: str) -> None:
    """A stage that the network does not have, and random weights."""
    with pytest.raises(ConfigError, match=message):
        start_network(SPEC, weights_choice or str(weights), seed=0, freeze=stage)
