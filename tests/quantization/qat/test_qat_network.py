"""network.py: it rounds where the Q/DQ graph does, its logits are the simulated INT8's, and gradients end where it clips."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from _pytest.mark.structures import ParameterSet
from exported import graph, image_batch, small
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.compiler.graph.corrections import SHIFTED, Corrections, apply
from edge_resnet.compiler.graph.qdq import measured_tensors, quantize
from edge_resnet.core.errors import CalibrationError
from edge_resnet.core.records import ModelSpec, Preprocess, QuantRecipe
from edge_resnet.network.training.validation import normalise
from edge_resnet.quantization.calibrate import collect, table_from
from edge_resnet.quantization.qat.network import FakeQuantized, Fp32Teacher, Layer
from edge_resnet.quantization.simulate import simulate

NETWORKS = {
    "resnet18": ModelSpec("imagenet", 18, input_size=32),
    "resnet50": ModelSpec("imagenet", 50, input_size=32),
    "cifar20": ModelSpec("cifar", 20, "A", classes=10, input_size=16),
    "plain20": ModelSpec("cifar", 20, "A", plain=True, classes=10, input_size=16),
    "option B": ModelSpec("cifar", 20, "B", classes=10, input_size=16),
}
EXACT = Corrections(exact_input=True)


def cases(names: Iterable[str]) -> list[ParameterSet]:
    """Each network without and with an exact input; the default has one large case, ResNet-18 with an exact input."""
    large = {(False, "resnet18"), (False, "resnet50"), (True, "resnet50")}
    chosen = [(exact, name) for exact in (False, True) for name in names]
    return [pytest.param(*case, id=f"{case[0]}-{case[1]}", marks=[pytest.mark.slow] * (case in large)) for case in chosen]


def measured(
    model: onnx.ModelProto, size: int, corrections: Corrections | None = None, keep: tuple[str, ...] = ()
) -> CalibrationTable:
    """The calibration table of eight smooth images."""
    corrected = apply(model, corrections)
    counted = collect(corrected, measured_tensors(corrected), [image_batch(8, size)], 8)
    recipe = QuantRecipe(method="max", images=8, keep_high_precision=keep)
    table = table_from(counted.histograms, recipe, counted.images, "", "")
    return replace(table, amax={**table.amax, SHIFTED: 127.0}) if SHIFTED in table.amax else table


def answers(network: torch.nn.Module, size: int, count: int = 32) -> np.ndarray:
    """The network's logits of images that it was not calibrated on."""
    with torch.inference_mode():
        found: np.ndarray = network(normalise(torch.from_numpy(image_batch(count, size, seed=5)), Preprocess())).numpy()
    return found


@pytest.mark.parametrize(("exact", "name"), cases(NETWORKS))
def test_it_rounds_exactly_where_the_graph_has_pairs(name: str, exact: bool) -> None:
    """Tensors, their readers, weights and every scale are those of the Q/DQ graph that TensorRT gets."""
    model, corrections = graph(NETWORKS[name]), EXACT if exact else None
    table = measured(model, NETWORKS[name].input_size, corrections)
    network = FakeQuantized(model, table, corrections)
    quantized = quantize(model, table, "tensorrt", corrections)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    readers: dict[str, list[tuple[str, int]]] = {}
    for node in quantized.graph.node:
        for index, tensor in enumerate(node.input):
            readers.setdefault(tensor, []).append((node.name, index))
    found_pairs, found_weights = {}, set()
    for node in quantized.graph.node:
        if node.op_type != "QuantizeLinear":
            continue
        [(dequantize, _)] = readers[node.output[0]]
        ends = readers[dequantize]
        if node.input[0] in constants:
            [(reader, index)] = ends
            assert index == 1
            found_weights.add(reader)
            np.testing.assert_array_equal(network.layer(reader).scales().detach().numpy(), constants[node.input[1]])
        else:
            found_pairs[node.input[0]] = (sorted(ends), float(constants[node.input[1]]))
    steps = {name_: float(step.detach()) for name_, step in network.steps().items()}
    assert found_weights == set(network.quantized)
    assert found_pairs == {pair.tensor: (sorted(pair.readers), steps[pair.range_of]) for pair in network.pairs}


@pytest.mark.parametrize(("exact", "name"), cases(("cifar20", "plain20", "option B", "resnet18")))
def test_it_answers_as_the_simulated_graph(name: str, exact: bool) -> None:
    """Logits differ from ONNX Runtime's only by roundings that depend on the order of sums."""
    model, corrections, size = graph(NETWORKS[name]), EXACT if exact else None, NETWORKS[name].input_size
    table = measured(model, size, corrections)
    found = answers(FakeQuantized(model, table, corrections), size)
    wanted = simulate(quantize(model, table, "tensorrt", corrections), [image_batch(32, size, seed=5)])
    # Values on the line between two integers are many where nothing was trained: 4e-4 was seen on ResNet-18.
    assert float(((found - wanted) ** 2).sum() / (wanted**2).sum()) < 1e-3
    if name != "resnet18":
        assert (found.argmax(1) == wanted.argmax(1)).mean() >= 0.96  # one of 32 may lie between two classes


def test_in_float_it_is_the_graph() -> None:
    """The teacher's logits are those of the FP32 graph in ONNX Runtime, and no gradient passes through it."""
    model = graph(small("A"))
    teacher = Fp32Teacher(model)
    np.testing.assert_allclose(answers(teacher, 16), simulate(model, [image_batch(32, 16, seed=5)]), rtol=1e-3, atol=1e-3)
    assert not list(teacher.parameters())
    assert not teacher(torch.randn(1, 3, 16, 16, requires_grad=True)).requires_grad


def test_a_kept_node_is_trained_in_float() -> None:
    """A node in high precision has no scales, and its input is not rounded."""
    model = graph(small())
    network = FakeQuantized(model, measured(model, 16, keep=("layer2.0.conv1",)))
    assert network.layer("layer2.0.conv1").scales() is None
    assert network.layer("layer2.0.conv1").turn is not None
    assert "layer2.0.conv1" not in network.quantized
    assert all(reader != "layer2.0.conv1" for pair in network.pairs for reader, _ in pair.readers)
    with pytest.raises(CalibrationError, match="no integers"):
        network.layer("layer2.0.conv1").integers()


def test_option_a_has_no_parameters() -> None:
    """A node that only selects channels is not trained; everything else is, ranges included."""
    model = graph(small("A"))
    network = FakeQuantized(model, measured(model, 16))
    fixed = {name for name in network.names() if network.layer(name).fixed}
    assert fixed == {"layer2.0.downsample", "layer3.0.downsample"}
    network(torch.randn(4, 3, 16, 16)).square().sum().backward()
    silent = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert silent == []


@given(seed=st.integers(0, 999), clip=st.floats(0.3, 0.95))
def test_gradients_pass_rounding_and_end_at_the_clip(seed: int, clip: float) -> None:
    """A weight inside its range has the gradient of a float weight, in its unit; a clipped one has none."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(4, 3, 3, 3, generator=generator)
    scales = clip * weight.abs().flatten(1).amax(1) / 127
    layer = Layer(weight, None, scales)
    inside = (weight / scales.view(-1, 1, 1, 1)).abs() < 127.5
    assert not inside.all()
    pull = torch.randn(weight.shape, generator=generator) * 1e-6  # below what is held
    (layer.weight() * pull).sum().backward()
    assert layer.turn is not None
    assert layer.turn.grad is not None
    torch.testing.assert_close(layer.turn.grad, pull * layer.unit * inside, rtol=1e-4, atol=1e-12)


def test_large_gradients_are_held() -> None:
    """A layer that INT8 broke must not break the others in one step: its gradient keeps the direction, the size is bounded."""
    layer = Layer(torch.randn(4, 3, 3, 3), None, None)
    (layer.weight() * 1e6).sum().backward()
    assert layer.turn is not None
    assert layer.turn.grad is not None
    assert float(layer.turn.grad.square().mean().sqrt()) == pytest.approx(0.05, rel=1e-3)
    torch.testing.assert_close(layer.turn.grad / layer.turn.grad.max(), layer.unit.expand_as(layer.turn) / layer.unit.max())


def test_scaled_channels_learn_alike() -> None:
    """Channels scaled against each other, an output by 1000 and the input by 1/1000, have the same gradients in their units."""
    weight = torch.randn(4, 3, 3, 3)
    rows, columns = torch.tensor([1.0, 1000, 1, 0.01]).view(4, 1, 1, 1), torch.tensor([1.0, 0.05, 1]).view(1, 3, 1, 1)
    pull = torch.randn(weight.shape) * 1e-6
    plain, scaled = Layer(weight, None, None), Layer(weight * rows * columns, None, None)
    (plain.weight() * pull).sum().backward()
    (scaled.weight() * pull / rows / columns).sum().backward()
    assert plain.turn is not None
    assert scaled.turn is not None
    ratio = scaled.turn.grad / plain.turn.grad  # type: ignore[operator]
    assert float(ratio.max() / ratio.min()) < 4  # the largest of a row may lie in another column


def test_a_table_of_another_graph_is_refused() -> None:
    """A missing range is an error that names the tensor."""
    model = graph(small())
    table = measured(model, 16)
    short = replace(table, amax={name: value for name, value in table.amax.items() if name != "relu"})
    with pytest.raises(CalibrationError, match="no range for relu"):
        FakeQuantized(model, short)


def test_a_graph_without_normalisation_is_refused() -> None:
    """A graph of another origin is refused."""
    model = graph(small())
    for node in model.graph.node:
        if node.op_type == "Mul":
            node.op_type = "Div"
    with pytest.raises(CalibrationError, match="does not begin"):
        Fp32Teacher(model)
