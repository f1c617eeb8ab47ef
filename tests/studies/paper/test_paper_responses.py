"""Standard deviations of layer responses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import ModelSpec, Preprocess
from edge_resnet.network import build_network
from edge_resnet.studies.paper import ExperimentRequest, run_experiment
from edge_resnet.studies.paper import responses as module
from edge_resnet.studies.paper.networks import normalised
from edge_resnet.studies.paper.responses import layer_deviations

LIKE = ModelSpec("cifar", 8, "A", classes=3, input_size=16)
CROP = Preprocess(16, 16)
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
Save = Callable[..., Path]


def test_one_pass_equals_all_at_once() -> None:
    """Batches of any size give the deviation of all values of the batch norm's output."""
    network = build_network(LIKE).eval()
    outputs: list[torch.Tensor] = []
    network.layer2[0].bn2.register_forward_hook(lambda _, __, out: outputs.append(out.clone()))  # type: ignore[index]
    with torch.inference_mode():
        network(normalised(PIXELS, CROP))
    expected = float(outputs[0].double().std(unbiased=False))
    for batch in (12, 5, 1):
        parts = [PIXELS[start : start + batch] for start in range(0, 12, batch)]
        assert layer_deviations(network, parts, CROP)["layer2.0.conv2"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("spec", "layers"),
    [
        (LIKE, 7),
        (replace(LIKE, depth=20), 19),
        (replace(LIKE, depth=20, plain=True), 19),
        (replace(LIKE, shortcut="C"), 7),
        (ModelSpec("imagenet", 18, input_size=32, classes=3), 16),
        (ModelSpec("imagenet", 50, input_size=32, classes=3), 16),
    ],
)
def test_the_layers_are_the_3x3_ones(spec: ModelSpec, layers: int) -> None:
    """6n+1 of CIFAR's 6n+2 layers, all except the classifier; no 7x7 stem, no 1x1 of bottlenecks, no projections."""
    found = layer_deviations(build_network(spec).eval(), [PIXELS[:2]], CROP)
    assert len(found) == layers
    assert not any("downsample" in name for name in found)
    assert min(found.values()) > 0


def test_before_relu_and_addition() -> None:
    """Doubling a batch norm doubles its layer's response and no earlier one; hooks are removed afterwards."""
    network = build_network(LIKE).eval()
    before = layer_deviations(network, [PIXELS], CROP)
    with torch.no_grad():
        network.layer1[0].bn1.weight.mul_(2)  # type: ignore[index]
    after = layer_deviations(network, [PIXELS], CROP)
    assert after["layer1.0.conv1"] == pytest.approx(2 * before["layer1.0.conv1"], rel=1e-4)
    assert after["conv1"] == pytest.approx(before["conv1"])
    assert not any(module._forward_hooks for module in network.modules())


def test_other_networks_are_refused() -> None:
    """A network without such a layer is a ConfigError."""
    with pytest.raises(ConfigError):
        layer_deviations(nn.Sequential(nn.Conv2d(3, 4, 1)), [PIXELS], CROP)


def test_a_constant_layer_does_not_respond() -> None:
    """A batch norm with weight zero has deviation zero, not the root of a negative rounding error."""
    network = build_network(LIKE).eval()
    with torch.no_grad():
        network.bn1.weight.zero_()
        network.bn1.bias.fill_(0.1)
    assert layer_deviations(network, [PIXELS], CROP)["conv1"] == pytest.approx(0, abs=1e-6)


def test_the_experiment_compares_as_figure_seven(weights: Save, small_set: Path, tmp_path: Path) -> None:
    """Means by network, deep against shallow, residual against plain; charts in order and sorted."""
    specs = {"8": LIKE, "14": replace(LIKE, depth=14), "plain-8": replace(LIKE, plain=True)}
    named = tuple(f"{name}={weights(spec)}" for name, spec in specs.items())
    result, _ = run_experiment(
        ExperimentRequest("responses", tmp_path / "out", data=str(small_set), classes=3, input_size=16, weights=named)
    )
    rows = {row["network"]: row for row in result.tables[0].as_dicts()}
    assert [rows[name]["layers"] for name in ("ResNet-8", "ResNet-14", "plain-8")] == [7, 13, 7]
    assert [chart.name for chart in result.charts] == ["responses-order", "responses-sorted"]
    verdicts = " ".join(result.verdicts)
    assert "ResNet-14's layers respond" in verdicts
    assert "than plain-8's" in verdicts
    means = {one["network"]: one["mean"] for one in result.data["networks"]}
    verdict = "less" if means["ResNet-8"] < means["plain-8"] else "not less"
    assert f"ResNet-8's layers respond {verdict} than plain-8's" in verdicts


def test_interrupted_after_one(weights: Save, small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the second network keeps the first and marks the result as interrupted."""
    real, calls = module.layer_deviations, []

    def interrupting(*args: object) -> dict[str, float]:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "layer_deviations", interrupting)
    named = (f"8={weights(LIKE)}", f"14={weights(replace(LIKE, depth=14))}")
    result, _ = run_experiment(
        ExperimentRequest("responses", tmp_path / "out", data=str(small_set), classes=3, input_size=16, weights=named)
    )
    assert result.interrupted
    assert [one["network"] for one in result.data["networks"]] == ["ResNet-8"]
