"""covariance.py: the statistics are those of the patches that a convolution reads, and do not depend on batches or cores."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
import torch.nn.functional as F
from exported import image_batch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edge_resnet.compiler.graph.placement import tensorrt_pairs
from edge_resnet.images.imagecache import ImageCache
from edge_resnet.quantization import covariance
from edge_resnet.quantization.covariance import QuantizedGraph, input_statistics

AMAX = 2.5


def convolution(groups: int, kernel: int, stride: int, pads: list[int], dilation: int = 1) -> onnx.ModelProto:
    """Images → normalised → one convolution of 6 channels in ``groups``, behind a 1x1 convolution, → means."""
    rng = np.random.default_rng(0)
    constants = {
        "scale": np.full((1, 3, 1, 1), 1 / 64, np.float32),
        "mean": np.full((1, 3, 1, 1), 100, np.float32),
        "first.weight": rng.normal(size=(6, 3, 1, 1)).astype(np.float32),
        "second.weight": rng.normal(size=(6, 6 // groups, kernel, kernel)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["cast"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["cast"], ["transpose"], name="transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Sub", ["transpose", "mean"], ["sub"], name="sub"),
        helper.make_node("Mul", ["sub", "scale"], ["mul"], name="mul"),
        helper.make_node("Conv", ["mul", "first.weight"], ["first"], name="first", kernel_shape=[1, 1]),
        helper.make_node(
            "Conv", ["first", "second.weight"], ["second"], name="second", group=groups, kernel_shape=[kernel, kernel],
            strides=[stride, stride], pads=pads, dilations=[dilation, dilation],
        ),
        helper.make_node("GlobalAveragePool", ["second"], ["pool"], name="pool"),
        helper.make_node("Flatten", ["pool"], ["logits"], name="flatten"),
    ]  # fmt: skip
    image = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 12, 12, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 6])
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    return helper.make_model(helper.make_graph(nodes, "one", [image], [logits], weights))


def patches(
    model: onnx.ModelProto, pixels: npt.NDArray[np.uint8], kernel: int, stride: int, pads: list[int], dilation: int
) -> torch.Tensor:
    """All patches that the second convolution reads, (m, C * kernel * kernel), quantized."""
    constants = {tensor.name: torch.from_numpy(np.array(numpy_helper.to_array(tensor))) for tensor in model.graph.initializer}
    x = (torch.from_numpy(pixels).float().permute(0, 3, 1, 2) - 100) / 64
    step = AMAX / 127

    def quantize(values: torch.Tensor) -> torch.Tensor:
        return torch.clamp(torch.round(values / step), -128, 127) * step

    x = quantize(F.conv2d(quantize(x), constants["first.weight"]))
    top, left, bottom, right = pads
    found = F.unfold(F.pad(x, (left, right, top, bottom)), kernel, dilation, 0, stride)
    return found.permute(0, 2, 1).reshape(-1, found.shape[1])


@pytest.mark.parametrize(
    ("groups", "kernel", "stride", "pads", "dilation"),
    [(1, 1, 1, [0] * 4, 1), (1, 3, 1, [1] * 4, 1), (2, 3, 2, [1] * 4, 1), (3, 1, 2, [0] * 4, 1), (1, 3, 1, [0, 1, 2, 1], 1),
     (1, 3, 1, [2] * 4, 2)],
)  # fmt: skip
def test_they_are_those_of_all_patches(
    monkeypatch: pytest.MonkeyPatch, groups: int, kernel: int, stride: int, pads: list[int], dilation: int
) -> None:
    """Where every position is taken, mean and covariance equal those of the patches cut by torch."""
    monkeypatch.setattr(covariance, "_MIN_PATCHES", 10_000)
    model, pixels = convolution(groups, kernel, stride, pads, dilation), image_batch(3, 12)
    amax = dict.fromkeys((pair.range_of for pair in tensorrt_pairs(model)), AMAX)
    with ImageCache(iter([pixels])) as images:
        found = input_statistics(QuantizedGraph(model, amax), images, ["second"])["second"]
    expected = patches(model, pixels, kernel, stride, pads, dilation)
    parts = expected.view(len(expected), groups, -1)
    torch.testing.assert_close(found.mean, parts.mean(0), rtol=0, atol=1e-4)
    for group in range(groups):
        wanted = torch.cov(parts[:, group].T, correction=0).reshape(found.covariance[group].shape)
        torch.testing.assert_close(found.covariance[group], wanted, rtol=0, atol=1e-3)


def test_a_sample_is_near_it_and_the_same_again() -> None:
    """With a few patches of each image the mean is about that of all, and a second run draws the same."""
    model, pixels = convolution(1, 3, 1, [1] * 4), image_batch(48, 12)
    amax = dict.fromkeys((pair.range_of for pair in tensorrt_pairs(model)), AMAX)
    with ImageCache(iter([pixels])) as images:
        found, again = (input_statistics(QuantizedGraph(model, amax), images, ["second"])["second"] for _ in range(2))
    assert torch.equal(found.covariance, again.covariance)
    expected = patches(model, pixels, 3, 1, [1] * 4, 1)
    torch.testing.assert_close(found.mean[0], expected.mean(0), rtol=0, atol=0.3)


@pytest.mark.parametrize("integers", [False, True])
@given(rows=st.integers(1, 600), left=st.integers(1, 80), right=st.integers(1, 80), seed=st.integers(0, 99))
def test_the_product_of_steps_is_exact(integers: bool, rows: int, left: int, right: int, seed: int) -> None:
    """By the processor's instructions for integers and by float32, of any shapes."""
    rng = np.random.default_rng(seed)
    a, b = (torch.from_numpy(rng.integers(-128, 128, (rows, columns)).astype(np.int8)) for columns in (left, right))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(covariance, "_MULTIPLIES_INTEGERS", integers)
        found = covariance._product(a, b)
    np.testing.assert_array_equal(found.numpy(), a.numpy().astype(np.int64).T @ b.numpy().astype(np.int64))
