"""rounding.py: weights are rounded so that the output of their layer changes least, and nothing else is changed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest
import torch
from exported import graph, image_batch, small
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.compiler.graph.placement import quantized_weights
from edge_resnet.compiler.graph.qdq import measured_tensors
from edge_resnet.compiler.graph.scales import weight_scales
from edge_resnet.core.records import QuantRecipe
from edge_resnet.images.imagecache import ImageCache
from edge_resnet.quantization import rounding
from edge_resnet.quantization.calibrate import collect, table_from
from edge_resnet.quantization.covariance import QuantizedGraph
from edge_resnet.quantization.rounding import round_layers, round_weights

RECIPE = QuantRecipe(method="mse", images=24)


def inputs(size: int, seed: int) -> torch.Tensor:
    """A covariance of ``size`` inputs that go together, as those of neighbouring pixels do."""
    mixed = torch.randn(4 * size, size // 2, generator=torch.Generator().manual_seed(seed))
    mixed = mixed @ torch.randn(size // 2, size, generator=torch.Generator().manual_seed(seed + 1))
    noise = 0.3 * torch.randn(4 * size, size, generator=torch.Generator().manual_seed(seed + 2))
    return torch.cov((mixed + noise).T)


def error(steps: torch.Tensor, rounded: torch.Tensor, covariance: torch.Tensor) -> float:
    """The squared error of the layer's output."""
    lost = steps - rounded
    return float(torch.einsum("ok,kl,ol->", lost, covariance, lost))


@given(size=st.sampled_from([6, 40, 200]), filters=st.integers(64, 80), seed=st.integers(0, 1000))
def test_the_output_changes_less_than_by_the_nearest_integers(size: int, filters: int, seed: int) -> None:
    """Over the filters of a layer whose inputs go together, its error is smaller; every weight is a whole number in range.

    A single filter of few weights may do worse: rounding goes through the weights once, and does not look ahead.
    """
    steps = 30 * torch.randn(filters, size, generator=torch.Generator().manual_seed(seed + 3))
    covariance = inputs(size, seed)
    rounded = round_weights(steps, covariance)
    assert torch.equal(rounded, rounded.round().clamp(-127, 127))
    assert error(steps, rounded, covariance) < 0.7 * error(steps, steps.round().clamp(-127, 127), covariance)


@given(size=st.integers(2, 150), seed=st.integers(0, 1000))
def test_each_weight_is_the_nearest_to_its_best_value(size: int, seed: int) -> None:
    """Given the weights that were rounded before it, the inputs that vary most first, while all others may still change."""
    steps, covariance = 30 * torch.randn(3, size, generator=torch.Generator().manual_seed(seed)).double(), inputs(size, seed)
    rounded = round_weights(steps.float(), covariance).double()
    damped = covariance.double() + 0.01 * covariance.diagonal().mean().double() * torch.eye(size).double()
    order = torch.argsort(covariance.diagonal(), descending=True)
    for position in {*range(0, size, 17), size - 1}:
        weight = order[position]
        before, rest = order[:position], order[position:]
        lost = (steps - rounded)[:, before]
        # The error of the output is least where the errors of all that is left are -H⁻¹ c; the first of them is this weight's.
        best = steps[:, weight] + torch.linalg.solve(damped[rest[:, None], rest], damped[rest[:, None], before] @ lost.T)[0]
        assert ((rounded[:, weight] - best.clamp(-127, 127)).abs() <= 0.5 + 1e-3).all()


def test_inputs_that_have_nothing_in_common_are_rounded_to_the_nearest() -> None:
    """A diagonal covariance leaves nothing to make up for, and neither does one of zeros."""
    steps = 20 * torch.randn(5, 30, generator=torch.Generator().manual_seed(0))
    for covariance in (torch.diag(torch.rand(30) + 0.1), torch.zeros(30, 30)):
        assert torch.equal(round_weights(steps, covariance), steps.round())


def test_the_unit_of_the_inputs_does_not_matter() -> None:
    """Inputs a thousand times as large are rounded the same."""
    steps, covariance = 20 * torch.randn(4, 40, generator=torch.Generator().manual_seed(0)), inputs(40, 5)
    assert torch.equal(round_weights(steps, covariance), round_weights(steps, covariance * 2.0**20))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageCache]:
    """Twenty-four smooth images."""
    with ImageCache(iter([image_batch(24, 16)]), tmp_path_factory.mktemp("images")) as made:
        yield made


def table(model: onnx.ModelProto, images: ImageCache) -> CalibrationTable:
    """Plain ranges."""
    counted = collect(model, measured_tensors(model), images.batches(8), len(images))
    return table_from(counted.histograms, RECIPE, len(images), "", "")


def test_every_layer_is_rounded_on_its_grid(images: ImageCache) -> None:
    """All quantized convolutions but the kept one, by the scales of their weights, most weights within a step."""
    model = graph(small())
    kept = frozenset({"layer2.0.conv1"})
    found = round_layers(QuantizedGraph(model, table(model, images).amax, kept), images)
    assert set(found.integers) == set(quantized_weights(model, kept))
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name, integers in found.integers.items():
        weight = weights[f"{name}.weight"]
        np.testing.assert_array_equal(found.scales[name], weight_scales(weight))
        moved = np.abs(integers - weight / found.scales[name].reshape(-1, 1, 1, 1))
        assert np.quantile(moved, 0.9) <= 1


def test_it_is_the_same_again_and_in_groups(images: ImageCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second run gives the same integers; a pass per layer, when little memory is allowed, nearly the same."""
    model = graph(small())
    quantized = QuantizedGraph(model, table(model, images).amax)
    first, second = (round_layers(quantized, images) for _ in range(2))
    monkeypatch.setattr(rounding, "_BYTES", 1)
    apart = round_layers(quantized, images)
    for name, integers in first.integers.items():
        np.testing.assert_array_equal(second.integers[name], integers)
        assert (apart.integers[name] == integers).mean() > 0.5


def test_padding_of_option_a_stays_zero(images: ImageCache) -> None:
    """The rows of zeros in option A's fixed filter stay zero, and its rows of ones are exact."""
    model = graph(small("A"))
    found = round_layers(QuantizedGraph(model, table(model, images).amax), images)
    name = next(node.name for node in model.graph.node if node.op_type == "Conv" and len(node.input) == 2)
    weight = next(onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name == f"{name}.weight")
    exact = found.integers[name] * found.scales[name].reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(exact, weight, atol=1e-6)
    assert name not in found.biases


def test_it_can_be_interrupted(images: ImageCache) -> None:
    """Ctrl-C between two batches ends it."""
    model = graph(small())
    amax = table(model, images).amax

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "correlations":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        round_layers(QuantizedGraph(model, amax), images, progress=interrupt)
