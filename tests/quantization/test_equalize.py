"""equalize.py: no factor changes the function, and scaling between layers is undone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from exported import graph, image_batch, logits, small
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from rescaled import rescaled

from edge_resnet.compiler.graph.corrections import apply
from edge_resnet.compiler.graph.placement import tensorrt_pairs
from edge_resnet.compiler.graph.qdq import measured_tensors, quantize
from edge_resnet.core.records import ModelSpec, QuantRecipe
from edge_resnet.images.imagecache import ImageCache
from edge_resnet.quantization import equalize as equalize_module
from edge_resnet.quantization.calibrate import collect, table_from
from edge_resnet.quantization.equalize import channel_groups, equalize, even_out

NETWORKS = {
    "A": small("A"),
    "B": small("B"),
    "C": small("C"),
    "plain": small(plain=True),
    "resnet50": ModelSpec("imagenet", 50, input_size=32),
}


def channel_ranges(model: onnx.ModelProto) -> dict[str, npt.NDArray[np.float32]]:
    """The largest absolute value per channel of every quantized tensor, by ONNX Runtime."""
    names = list(dict.fromkeys(pair.range_of for pair in tensorrt_pairs(model)))
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    size = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    values = session.run(names, {"images": image_batch(4, size)})
    return {name: np.abs(value).max(axis=(0, 2, 3)) for name, value in zip(names, values, strict=True)}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "resnet50")) for name in NETWORKS])
def test_the_function_is_unchanged(name: str) -> None:
    """With any exponents the logits differ by rounding alone, over all shortcuts and bottlenecks."""
    model, images = graph(NETWORKS[name]), image_batch(3, NETWORKS[name].input_size)
    ranges, expected = channel_ranges(model), logits(model, images)
    for activations, weights in ((1.0, 0.0), (0.5, 0.5), (0.25, 0.0)):
        changed = logits(apply(model, equalize(model, ranges, activations, weights)), images)
        np.testing.assert_allclose(changed, expected, atol=1e-3 * np.abs(expected).max())


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), activations=st.floats(0, 1), weights=st.floats(0, 1))
def test_any_ranges_keep_the_function(seed: int, activations: float, weights: float) -> None:
    """Any ranges may be used. Dead channels are not scaled up beyond the precision of float."""
    model, images = graph(small()), image_batch(2, 16)
    rng = np.random.default_rng(seed)
    ranges = {
        name: rng.exponential(1, value.shape) * rng.integers(0, 2, value.shape) for name, value in channel_ranges(model).items()
    }
    ranges = {name: value.astype(np.float32) for name, value in ranges.items()}
    expected = logits(model, images)
    changed = logits(apply(model, equalize(model, ranges, activations, weights)), images)
    np.testing.assert_allclose(changed, expected, atol=1e-2 * np.abs(expected).max())


def test_full_strength_makes_the_channels_of_a_lone_tensor_alike() -> None:
    """Inside a block, where no Add ties tensors, every channel that is not dead ends with the same range."""
    model = graph(small())
    changed = apply(model, equalize(model, channel_ranges(model), 1.0, 0.0))
    before, after = (channel_ranges(m)["layer1.0.relu"] for m in (model, changed))
    lives = before > 1e-3 * before.max()
    assert lives.sum() > 4
    assert after[lives].max() / after[lives].min() < 1.001
    assert before[lives].max() / before[lives].min() > 1.2


def test_scaling_between_layers_is_undone() -> None:
    """Exponents that sum to 1 give the same ranges, up to one factor, whether or not channels were scaled by up to 1000
    before."""
    model = graph(small())
    broken = rescaled(model, 1000)
    assert channel_ranges(broken)["layer1.0.relu"].max() > 50 * channel_ranges(model)["layer1.0.relu"].max()
    ranges = [channel_ranges(apply(m, equalize(m, channel_ranges(m), 0.5, 0.5)))["layer1.0.relu"] for m in (model, broken)]
    lives = ranges[0] > 1e-3 * ranges[0].max()
    ratio = (ranges[1] / np.maximum(ranges[0], 1e-9))[lives]
    assert ratio.max() / ratio.min() < 1.3  # the stage after it is evened out too, and its factors enter the columns


def test_a_stage_shares_one_factor() -> None:
    """The tensors that Adds tie are one group; the image and the logits are in none."""
    groups = channel_groups(graph(ModelSpec("imagenet", 18, input_size=32)))
    stream = next(group for group in groups if "layer2.0.add" in group.tensors)
    assert {"layer2.0.downsample.0", "layer2.1.add", "layer2.1.relu_1"} <= set(stream.tensors)
    assert set(stream.writers) == {"layer2.0.conv2", "layer2.0.downsample.0", "layer2.1.conv2"}
    assert set(stream.readers) == {"layer2.1.conv1", "layer3.0.conv1", "layer3.0.downsample.0"}
    named = {tensor for group in groups for tensor in group.tensors}
    assert not named & {"mul", "images", "logits"}
    last = next(group for group in groups if "layer4.1.add" in group.tensors)
    assert "fc" in last.readers


def test_weights_stay_finite_where_channels_are_dead() -> None:
    """A channel that never fires gets a bounded factor: nothing overflows."""
    model = graph(small())
    ranges = {name: np.where(np.arange(len(value)) == 0, 0, value) for name, value in channel_ranges(model).items()}
    found = equalize(model, ranges, 1.0, 0.0)
    for name, weight in found.floats.items():
        original = next(n for n in model.graph.node if n.name == name).input[1]
        largest = max(np.abs(numpy_helper.to_array(t)).max() for t in model.graph.initializer if t.name == original)
        assert np.isfinite(weight).all()
        assert np.abs(weight).max() < 1e6 * largest


@pytest.mark.parametrize("factor", [None, 1000])
def test_channels_start_alike_however_they_were_scaled(tmp_path: Path, factor: int | None) -> None:
    """Rounded activations change the logits little from the start, also of a network whose channels were scaled by up to 1000."""
    model = graph(small()) if factor is None else rescaled(graph(small()), factor)
    with ImageCache(iter([image_batch(32, 16)]), tmp_path) as images:
        evened = apply(model, even_out(model, images))
        counted = collect(evened, measured_tensors(evened), images.batches(16), 32)
    unseen = image_batch(32, 16, seed=5)
    expected = logits(model, unseen)
    found = logits(quantize(evened, table_from(counted.histograms, QuantRecipe(images=32), 32, "", ""), "tensorrt"), unseen)
    centred = [values - values.mean(1, keepdims=True) for values in (found, expected)]
    assert ((centred[0] - centred[1]) ** 2).sum() < 0.001 * (centred[1] ** 2).sum()


def test_what_only_the_cpu_form_quantizes_is_not_scaled_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels that are loud in front of an Add and silent behind it keep their scale: the sum's inputs have one range in ONNX
    Runtime's form."""
    model = graph(small("A"))
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "layer3.0.conv2.bias")
    value = numpy_helper.to_array(bias).copy()
    value[::2] -= 3
    bias.CopyFrom(numpy_helper.from_array(value, bias.name))
    monkeypatch.setattr(equalize_module, "STARTS", ((1.0, 0.0),))
    images = image_batch(32, 16)
    with ImageCache(iter([images]), tmp_path) as cache:
        evened = apply(model, even_out(model, cache))
        counted = collect(evened, measured_tensors(evened), cache.batches(16), 32)
    quantized = quantize(evened, table_from(counted.histograms, QuantRecipe(images=32), 32, "", ""), "onnxruntime")
    expected = logits(model, images)
    assert ((logits(quantized, images) - expected) ** 2).sum() < 0.01 * ((expected - expected.mean(1, keepdims=True)) ** 2).sum()
