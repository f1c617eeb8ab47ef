"""benchmarks/quantization.py and hard_networks.py: figures from known classes; hard networks compute what the sound ones do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from exported import deployable, small
from scripts import load_script

from edge_resnet.core.records import ModelSpec
from edge_resnet.core.statistics import mcnemar_exact
from edge_resnet.network import ResNet

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
#: Every kind of block and shortcut: options A and B, plain, and bottlenecks behind a stem without a pool.
SPECS = [small("A"), small("B"), small(plain=True), ModelSpec("small", 50, classes=10, input_size=16)]


@pytest.fixture(scope="module", autouse=True)
def _on_path() -> Iterator[None]:
    """The scripts import each other from their own folder."""
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def hard() -> ModuleType:
    """The script hard_networks.py as a module."""
    return load_script(BENCHMARKS / "hard_networks.py")


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    """The module peers/figures.py."""
    return load_script(BENCHMARKS / "peers" / "figures.py")


def network(spec: ModelSpec) -> ResNet:
    """A seeded network whose batch norms are as after training."""
    made = deployable(spec).network
    assert isinstance(made, ResNet)
    return made


def norms(model: ResNet) -> dict[str, torch.Tensor]:
    """The factors of every batch norm."""
    return {name: value for name, value in model.state_dict().items() if value.dim() == 1 and name.endswith("weight")}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("change", ["scaled", "loud"])
def test_a_rescaled_network_computes_the_same(hard: ModuleType, spec: ModelSpec, change: str) -> None:
    """Logits agree to 1e-4 of the largest, although every batch norm of every block has channels scaled apart."""
    sound, made = network(spec), getattr(hard, change)(network(spec))
    assert hard.difference(sound, made, spec) <= 1e-4
    before, after = norms(sound), norms(made)
    spread = {name: (after[name] / before[name]).max() / (after[name] / before[name]).min() for name in before}
    assert all(value >= 2**6 for value in spread.values()), spread
    if change == "scaled":
        assert max(spread.values()) == 2**14


def test_small_margins_keep_every_class(hard: ModuleType) -> None:
    """The head of small margins gives the same class and logits that are four times as close together."""
    images = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    sound, made = network(small()), hard.with_small_margins(network(small()))
    with torch.inference_mode():
        before, after = sound(images), made(images)
    assert torch.equal(before.argmax(1), after.argmax(1))
    torch.testing.assert_close(after.std(1), before.std(1) / 4)
    assert float(after.max()) < 0


def test_training_with_regularisation_is_seeded_and_shrinks_weights(hard: ModuleType) -> None:
    """The same images give the same weights, which strong decay makes smaller than those it began with."""
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (64, 16, 16, 3), np.uint8), np.arange(64) % 10
    how = hard.Regularisation(epochs=2, batch=16, weight_decay=0.2)
    first, second = (hard.regularise(network(small()), pixels, labels, how).conv1.weight.detach() for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert float(first.norm()) < float(network(small()).conv1.weight.detach().norm())


def test_a_row_counts_the_images_that_only_one_tool_keeps(figures: ModuleType) -> None:
    """Of ten images ours keeps FP32's class on nine and the peer on seven, both on six: three against one."""
    reference = np.zeros(10, np.int64)
    ours, peer = reference.copy(), reference.copy()
    ours[0] = 1
    peer[7:] = 1
    row = figures.accuracy(peer, reference, reference, ours)
    assert (row["only_ours"], row["only_this"]) == (3, 1)
    assert row["p"] == mcnemar_exact(3, 1) == 0.625
    assert row["agreement"] == row["top1"] == 70
    assert row["agreement_ci95"][0] < 70 < row["agreement_ci95"][1]


def test_the_table_says_what_was_not_measured(figures: ModuleType) -> None:
    """A tool that is not installed has its row with the reason, and no figure."""
    reference = np.zeros(10, np.int64)
    rows = [
        {"network": "cifar20", "tool": "FP32", **figures.accuracy(reference, reference, reference)},
        {"network": "cifar20", "tool": "nncf", "note": "not measured: nncf is not installed"},
    ]
    table = figures.markdown(rows).splitlines()
    assert table[0] == "### cifar20, 10 held-out images"
    assert table[-1] == "| nncf |  |  |  |  |  |  |  | not measured: nncf is not installed |"
    assert "100.00 [" in table[-2]
