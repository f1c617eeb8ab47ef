"""executor.py: torch computes what ONNX Runtime computes, and the gradient of fake quantization is the published one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from exported import graph, image_batch, logits, small
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from torch import Tensor

from edge_resnet.compiler.graph.corrections import with_exact_input
from edge_resnet.compiler.graph.placement import Pair, tensorrt_pairs
from edge_resnet.core.errors import CalibrationError
from edge_resnet.core.records import ModelSpec
from edge_resnet.quantization.executor import Executor, FakeQuantize

NETWORKS = {
    "A": small("A"),
    "C": small("C"),
    "plain": small(plain=True),
    "resnet18": ModelSpec("imagenet", 18, input_size=32),
    "resnet50": ModelSpec("imagenet", 50, input_size=32),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("exact", [False, True])
def test_torch_agrees_with_onnx_runtime(name: str, exact: bool) -> None:
    """The logits differ by the order of sums alone, for every family and shortcut, with and without the exact input."""
    model = graph(NETWORKS[name])
    model = with_exact_input(model) if exact else model
    images = image_batch(3, NETWORKS[name].input_size)
    with torch.inference_mode():
        found = Executor(model, tensorrt_pairs(model)).run(torch.from_numpy(images)).numpy()
    expected = logits(model, images)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_each_pair_is_read_once_and_reaches_all_its_readers() -> None:
    """A block's input is quantized once for the convolution and the Add; both get what ``read`` returns."""
    model = graph(small())
    pairs, seen = tensorrt_pairs(model), []

    def read(pair: Pair, x: Tensor) -> Tensor:
        seen.append(pair.tensor)
        return x * 0

    with torch.inference_mode():
        zeroed = Executor(model, pairs).run(torch.from_numpy(image_batch(2, 16)), read=read)
    assert seen == [pair.tensor for pair in pairs]
    assert torch.equal(zeroed[0], zeroed[1])  # nothing of the images is left


def test_watch_may_change_an_output() -> None:
    """The hook's result replaces the output, and the hook is called for every node in order."""
    model = graph(small())
    executor, names = Executor(model, []), []

    def hook(name: str, output: Tensor) -> Tensor:
        names.append(name)
        return output + 1 if name == "fc" else output

    images = torch.from_numpy(image_batch(1, 16))
    with torch.inference_mode():
        assert torch.allclose(executor.run(images, on_output=hook), executor.run(images) + 1, atol=1e-5)
    assert names == [node.name for node in model.graph.node]


def test_an_unknown_operator_is_refused_by_name() -> None:
    """A graph with unknown operators is refused as a whole."""
    model = graph(small())
    model.graph.node.append(helper.make_node("Softmax", ["logits"], ["p"], name="softmax"))
    with pytest.raises(CalibrationError, match="Softmax"):
        Executor(model, [])


@given(scale=st.floats(1e-3, 10), seed=st.integers(0, 99), spread=st.floats(0.1, 1000))
def test_fake_quantization_rounds_and_passes_gradients(scale: float, seed: int, spread: float) -> None:
    """Values lie on the grid within half a step; x's gradient is 1 inside and 0 outside; scale's is Esser's equation 3."""
    x = (torch.randn(50, generator=torch.Generator().manual_seed(seed)) * spread).requires_grad_()
    step = torch.tensor(scale, requires_grad=True)
    y = FakeQuantize.apply(x, step)
    y.sum().backward()
    ratio = (x / step).detach()
    assert torch.allclose(y.detach() / step.detach(), torch.clamp(torch.round(ratio), -128, 127), atol=1e-3)
    inside = (ratio >= -128) & (ratio <= 127)
    assert x.grad is not None
    assert step.grad is not None
    assert torch.equal(x.grad, inside.float())
    expected = torch.where(inside, torch.round(ratio) - ratio, torch.clamp(ratio, -128, 127)).sum()
    assert torch.allclose(step.grad, expected, rtol=1e-3, atol=1e-3)


def test_operators_keep_uneven_padding() -> None:
    """A convolution padded on two sides only computes what ONNX says."""
    weight = np.random.default_rng(0).standard_normal((2, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["images"], ["c"], name="c", to=1),
        helper.make_node("Transpose", ["c"], ["t"], name="t", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w"], ["v"], name="v", pads=[0, 0, 1, 1], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["v"], ["g"], name="g"),
        helper.make_node("Flatten", ["g"], ["logits"], name="f"),
    ]
    graph_ = helper.make_graph(
        nodes,
        "uneven",
        [helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["n", 8, 8, 3])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", 2])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph_, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    images = image_batch(2, 8)
    with torch.inference_mode():
        found = Executor(model, []).run(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, logits(model, images), rtol=1e-4)
