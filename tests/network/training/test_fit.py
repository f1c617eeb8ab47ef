"""A training learns, is reproducible to the bit, resumes where it stopped, and reports why it ends."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from littlenet import PREPROCESS, QUICK, LittleNet, little_net, same, stripes, stripes_data
from torch import nn

from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.core.records import ModelSpec, Preprocess
from edge_resnet.images.imageset import from_arrays
from edge_resnet.network import build_network
from edge_resnet.network.training import EpochRecord, TrainData, TrainOptions, fit, score

STEPS = 6


def test_it_generalises_to_other_images() -> None:
    """After forty epochs on stripes it classifies other stripes; the records show it."""
    network = little_net()
    data = stripes_data()
    result = fit(network, data, dataclasses.replace(QUICK, epochs=40))
    assert result.records[-1].test_error is not None
    assert result.records[-1].test_error < 20 < 75
    assert result.records[-1].train_loss < result.records[0].train_loss / 2
    assert [record.epoch for record in result.records] == list(range(1, 41))
    assert result.records[-1].step == 40 * STEPS
    assert data.test is not None
    assert score(network, data.test, PREPROCESS).error == result.records[-1].test_error
    assert result.best.test_error == min(record.test_error for record in result.records if record.test_error is not None)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema": 0.9, "label_smoothing": 0.1, "decay_norms": False},
        {"schedule": "paper-cifar", "warm_up": 0.01, "nesterov": False},
        {"precision": "bf16", "channels_last": False, "keep": "best", "patience": 9},
    ],
    ids=["plain", "average", "warm-up", "bf16"],
)
def test_resuming_is_bit_identical(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Four epochs equal two, an interruption in the third, and the rest: weights, records and files."""
    options = dataclasses.replace(QUICK, **changes)
    straight = little_net()
    whole = fit(straight, stripes_data(), options, folder=tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        fit(little_net(), stripes_data(), options, folder=tmp_path / "broken", progress=interrupt_at(2 * STEPS + 3))
    resumed = little_net()
    rest = fit(resumed, stripes_data(), options, folder=tmp_path / "broken", resume=True)
    assert same(straight, resumed)
    assert list(map(figures, whole.records)) == list(map(figures, rest.records))
    files = [(tmp_path / folder / "weights.safetensors").read_bytes() for folder in ("straight", "broken")]
    assert files[0] == files[1]


def interrupt_at(step: int) -> Any:
    """Ctrl-C after a number of steps."""

    def progress(stage: str, done: int, total: int) -> None:
        if done == step:
            raise KeyboardInterrupt

    return progress


def figures(record: EpochRecord) -> EpochRecord:
    """The fields that do not depend on the clock."""
    return dataclasses.replace(record, seconds=0.0, images_per_s=0.0)


def test_a_stop_at_max_steps_can_be_resumed(tmp_path: Path) -> None:
    """Two epochs of a schedule of four and then the rest equal four at once."""
    straight, resumed = little_net(), little_net()
    fit(straight, stripes_data(), QUICK)
    first = fit(resumed, stripes_data(), dataclasses.replace(QUICK, max_steps=2 * STEPS), folder=tmp_path)
    assert [record.step for record in first.records] == [STEPS, 2 * STEPS]
    resumed = little_net()
    fit(resumed, stripes_data(), QUICK, folder=tmp_path, resume=True)
    assert same(straight, resumed)


def test_resuming_a_finished_training_changes_nothing(tmp_path: Path) -> None:
    """Nothing is trained, and a lost weights file is written again."""
    network, again = little_net(), little_net()
    fit(network, stripes_data(), QUICK, folder=tmp_path)
    (tmp_path / "weights.safetensors").unlink()
    result = fit(again, stripes_data(), QUICK, folder=tmp_path, resume=True)
    assert same(network, again)
    assert len(result.records) == 4
    assert (tmp_path / "weights.safetensors").is_file()


def test_the_seed_decides() -> None:
    """The same seed gives the same weights, another one does not, and the caller's random numbers are unaffected."""
    networks = [little_net() for _ in range(3)]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    for network, seed in zip(networks, (0, 0, 1), strict=True):
        fit(network, stripes_data(), dataclasses.replace(QUICK, epochs=1, seed=seed))
    assert same(networks[0], networks[1])
    assert not same(networks[0], networks[2])
    assert torch.equal(torch.rand(3), expected)


def test_deterministic_is_set_during_the_training_only() -> None:
    """torch's deterministic algorithms are on during the training and off again afterwards."""
    seen = []

    class Looking(LittleNet):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(torch.are_deterministic_algorithms_enabled())
            return super().forward(images)

    fit(Looking(), stripes_data(), dataclasses.replace(QUICK, epochs=1, deterministic=True))
    assert all(seen)
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_network_is_ready_for_inference() -> None:
    """It ends in eval mode, with updated statistics and weights in contiguous memory format."""
    network = little_net()
    fit(network, stripes_data(), dataclasses.replace(QUICK, epochs=1))
    assert not any(module.training for module in network.modules())
    assert network.bn1.running_mean is not None
    assert network.bn1.running_mean.abs().sum() > 0
    assert network.conv2.weight.is_contiguous()


def test_progress_counts_the_steps_of_all_epochs() -> None:
    """From 0 to the last; images that fill no batch are left out of the epoch."""
    calls: list[tuple[str, int, int]] = []
    data = TrainData(stripes(100), None, PREPROCESS)
    fit(little_net(), data, dataclasses.replace(QUICK, epochs=2, batch=32), progress=lambda *call: calls.append(call))
    assert [call[1] for call in calls] == list(range(7))
    assert calls[-1] == ("train", 6, 6)


def test_an_observer_gets_loss_and_error() -> None:
    """Running means during an epoch, and a record at its end."""

    class Watching:
        def __init__(self) -> None:
            self.means: list[tuple[int, float, float]] = []
            self.records: list[EpochRecord] = []

        def __call__(self, stage: str, done: int, total: int) -> None:
            pass

        def running(self, epoch: int, loss: float, error: float) -> None:
            self.means.append((epoch, loss, error))

        def epoch(self, record: EpochRecord) -> None:
            self.records.append(record)

    watcher = Watching()
    result = fit(little_net(), stripes_data(), dataclasses.replace(QUICK, epochs=2), progress=watcher)
    assert len(watcher.means) == 2 * STEPS
    assert tuple(watcher.records) == result.records
    epoch, loss, error = watcher.means[-1]
    assert (epoch, loss, error) == (2, pytest.approx(result.records[-1].train_loss), result.records[-1].train_error)


def test_half_epochs_and_images_fewer_than_a_batch() -> None:
    """One and a half epochs of six steps are nine; a batch of all images is one step."""
    result = fit(little_net(), stripes_data(), dataclasses.replace(QUICK, epochs=1.5))
    assert [record.step for record in result.records] == [6, 9]
    few = fit(little_net(), stripes_data(), dataclasses.replace(QUICK, epochs=2, batch=500))
    assert [record.step for record in few.records] == [1, 2]


def test_the_average_is_what_is_tested_and_kept() -> None:
    """With a moving average the network ends with other weights than without, and their test error is that of the record."""
    network, plain = little_net(), little_net()
    data = stripes_data()
    result = fit(network, data, dataclasses.replace(QUICK, ema=0.9))
    fit(plain, data, QUICK)
    assert not same(network, plain)
    assert data.test is not None
    assert score(network, data.test, PREPROCESS).loss == result.records[-1].test_loss


def test_the_loss_of_smoothed_labels_has_a_floor() -> None:
    """It is the entropy of the labels."""
    options = dataclasses.replace(QUICK, epochs=20, label_smoothing=0.2)
    share = [0.85, 0.05, 0.05, 0.05]
    floor = -sum(p * math.log(p) for p in share)
    assert fit(little_net(), stripes_data(), options).records[-1].train_loss > floor


def test_norms_and_biases_can_be_excluded_from_decay() -> None:
    """Under a decay much larger than the gradients everything shrinks; excluded, the norms' scales stay near 1."""
    spared, shrunk = little_net(), little_net()
    options = dataclasses.replace(QUICK, rate=0.01, weight_decay=0.9, momentum=0.0, nesterov=False, epochs=30)
    fit(spared, stripes_data(), dataclasses.replace(options, decay_norms=False))
    fit(shrunk, stripes_data(), options)
    scales = [float(network.bn1.weight.detach().abs().mean()) for network in (spared, shrunk)]
    assert scales[0] > 0.9 > 0.6 > scales[1]
    assert spared.conv1.weight.detach().norm() < little_net().conv1.weight.detach().norm()


def test_the_warm_up_ends_when_something_is_learned() -> None:
    """The first steps have the warm-up's rate, the last one the schedule's."""
    options = dataclasses.replace(QUICK, epochs=20, schedule="constant", warm_up=0.02)
    records = fit(little_net(), stripes_data(), options).records
    assert records[0].rate == 0.02
    assert records[-1].rate == 0.1


def test_a_loss_that_is_not_finite_in_the_first_epoch_is_an_error() -> None:
    """The error has the learning rate that was too high."""
    with pytest.raises(ConfigError, match="rate of up to 1e\\+30") as caught:
        fit(little_net(), stripes_data(), dataclasses.replace(QUICK, rate=1e30))
    assert "--rate" in caught.value.hint


def test_divergence_later_ends_with_the_weights_of_the_last_complete_epoch(tmp_path: Path) -> None:
    """The result says so, and the weights are those of its last record."""
    network = little_net()
    data = stripes_data()

    def poison(stage: str, done: int, total: int) -> None:
        if done == 2 * STEPS + 2:
            with torch.no_grad():
                network.fc.weight.fill_(float("nan"))

    result = fit(network, data, QUICK, folder=tmp_path, progress=poison)
    assert result.diverged
    assert result.stopped is not None
    assert "epoch 3" in result.stopped
    assert len(result.records) == 2
    assert data.test is not None
    assert score(network, data.test, PREPROCESS).loss == result.records[-1].test_loss


def test_patience_ends_a_training_that_does_not_improve() -> None:
    """At a tiny learning rate no test is better than the first."""
    result = fit(little_net(), stripes_data(), dataclasses.replace(QUICK, epochs=50, rate=1e-12, patience=3))
    assert result.stopped == "no improvement in 3 tests"
    assert 4 <= len(result.records) < 20


def test_the_best_epochs_weights_can_be_kept() -> None:
    """Their test error is that of the best record, not of the last."""
    network, data = little_net(), stripes_data()
    options = dataclasses.replace(QUICK, epochs=12, rate=0.5, schedule="constant", keep="best")
    result = fit(network, data, options)
    assert result.best is not result.records[-1]
    assert data.test is not None
    assert score(network, data.test, PREPROCESS).loss == result.best.test_loss


def test_tests_can_be_rare_except_for_the_last() -> None:
    """Every second epoch, and the last."""
    records = fit(little_net(), stripes_data(), dataclasses.replace(QUICK, epochs=5, test_every=2)).records
    assert [record.test_error is not None for record in records] == [False, True, False, True, True]


def test_a_frozen_stage_keeps_weights_and_statistics() -> None:
    """Frozen parameters and batch norm statistics are bit-identical; the rest is trained."""
    network, before = little_net(), little_net()
    for module in (network.conv1, network.bn1):
        module.requires_grad_(requires_grad=False)
    fit(network, stripes_data(), QUICK)
    assert same(network.conv1, before.conv1)
    assert same(network.bn1, before.bn1)
    assert not same(network.bn2, before.bn2)


def test_a_folder_with_a_training_is_not_overwritten(tmp_path: Path) -> None:
    """Without resume it is refused before training."""
    fit(little_net(), stripes_data(), dataclasses.replace(QUICK, epochs=1), folder=tmp_path)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="already contains a training"):
        fit(little_net(), stripes_data(), QUICK, folder=tmp_path)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def one_class() -> TrainData:
    pixels = np.zeros((20, 16, 16, 3), np.uint8)
    return TrainData(from_arrays("cats", pixels, np.zeros(20, int), ("cat", "dog")), None, PREPROCESS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (one_class(), "all 20 images of cats are cat"),
        (TrainData(stripes(1), None, PREPROCESS), "needed at least"),
        (TrainData(stripes().subset(range(2)), stripes(8), PREPROCESS), ""),
        (TrainData(from_arrays("bare", np.zeros((9, 16, 16, 3), np.uint8)), None, PREPROCESS), "no labels"),
    ],
    ids=["one class", "one image", "two images", "no labels"],
)
def test_images_that_cannot_be_used(data: TrainData, message: str) -> None:
    """Each is an error that says why; two images of two classes are enough."""
    if not message:
        assert len(fit(little_net(), data, dataclasses.replace(QUICK, epochs=1)).records) == 1
        return
    with pytest.raises(DataError, match=message):
        fit(little_net(), data, QUICK)


def test_a_head_that_is_too_narrow_is_found_before_training() -> None:
    """The error has the class and the network's range."""
    with pytest.raises(DataError, match="class 3, the network knows 0"):
        fit(little_net(3), stripes_data(), QUICK)


def test_images_too_small_for_the_network() -> None:
    """The network refuses the size before training, with a hint."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(8), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4, 4))
    with pytest.raises(ConfigError, match="cannot process images of 16 pixels") as caught:
        fit(network, stripes_data(), QUICK)
    assert "--input-size" in caught.value.hint


def test_one_image_per_step_is_refused() -> None:
    """A batch norm has no statistics of a single image."""
    with pytest.raises(DataError, match="needs two"):
        fit(little_net(), stripes_data(), dataclasses.replace(QUICK, batch=1))


def test_synchronised_norms_and_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a single process sync_bn changes nothing; a missing device is refused."""
    fit(little_net(), stripes_data(), dataclasses.replace(QUICK, epochs=1, sync_bn=True))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no GPU"):
        fit(little_net(), stripes_data(), dataclasses.replace(QUICK, device="cuda"))
    with pytest.raises(ConfigError, match="no device"):
        fit(little_net(), stripes_data(), dataclasses.replace(QUICK, device="abacus"))


def test_a_residual_network_learns_digits() -> None:
    """ResNet-8 with option A on two hundred digits for three epochs is far better than chance."""
    digits = pytest.importorskip("edge_resnet.images.datasets").load_named("digits", "train").subset(range(256))
    torch.manual_seed(0)
    network = build_network(ModelSpec("cifar", 8, "A", classes=10, input_size=32))
    options = TrainOptions(epochs=4, batch=16, augment="shift")
    result = fit(network, TrainData(digits, None, Preprocess(16, 16)), options)
    assert result.records[-1].train_loss < 1.6 < math.log(10)
