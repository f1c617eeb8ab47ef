"""Training in memory: it learns, it is repeatable, it reports."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edge_resnet.datasets import load_named
from edge_resnet.errors import ConfigError
from edge_resnet.models import ResNet, build_network
from edge_resnet.spec import ModelSpec, Preprocess
from edge_resnet.train import TrainOptions, fit

PREPROCESS = Preprocess(resize=32, crop=32)


def _network() -> ResNet:
    torch.manual_seed(0)
    return build_network(ModelSpec("cifar", 8, "A", classes=10, input_size=32))


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """The first 256 handwritten digits of the training half, 16 x 16 pixels, and their labels."""
    train = load_named("digits", "train")
    images = np.stack([train.load(index)[::2, ::2] for index in range(256)])
    return np.ascontiguousarray(images), np.array(train.labels[:256] if train.labels else (), np.int64)


def test_it_learns(digits: tuple[np.ndarray, np.ndarray]) -> None:
    """Four passes over a few digits beat chance by far, and a longer training has the lower loss."""
    network = _network()
    short = fit(_network(), *digits, PREPROCESS, TrainOptions(epochs=1, batch=16, flip=False))
    loss = fit(network, *digits, PREPROCESS, TrainOptions(epochs=4, batch=16, flip=False))
    assert loss < short
    assert loss < 1.5 < np.log(10)


def test_the_same_seed_gives_the_same_weights(digits: tuple[np.ndarray, np.ndarray]) -> None:
    """Two trainings are equal to the bit; another seed's is not."""
    states = []
    for seed in (0, 0, 1):
        network = _network()
        fit(network, *digits, PREPROCESS, TrainOptions(epochs=1, seed=seed))
        states.append(network.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["conv1.weight"], states[2]["conv1.weight"])


def test_the_network_is_ready_for_inference(digits: tuple[np.ndarray, np.ndarray]) -> None:
    """After training the batch norms use their statistics, and these have moved."""
    network = _network()
    fit(network, *digits, PREPROCESS, TrainOptions(epochs=1))
    assert not network.training
    assert network.bn1.running_mean is not None
    assert network.bn1.running_mean.abs().sum() > 0


def test_progress_counts_steps(digits: tuple[np.ndarray, np.ndarray]) -> None:
    """From nothing to epochs times batches, the ragged last batch included."""
    calls: list[tuple[str, int, int]] = []
    images, labels = digits[0][:100], digits[1][:100]
    fit(_network(), images, labels, PREPROCESS, TrainOptions(epochs=2, batch=32), progress=lambda *call: calls.append(call))
    assert [call[1] for call in calls] == list(range(9))
    assert calls[-1] == ("train", 8, 8)


@pytest.mark.parametrize("options", [{"epochs": 0}, {"batch": 0}, {"rate": 0.0}, {"rate": -1.0}])
def test_options_that_make_no_sense(options: dict[str, float]) -> None:
    """They are refused before anything runs."""
    with pytest.raises(ConfigError):
        TrainOptions(**options)  # type: ignore[arg-type]
