"""calibrate.py: which positions of large tensors are counted, and that nothing else about the graph changes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from exported import graph, image_batch, small

from edge_resnet.compiler.graph.qdq import measured_tensors
from edge_resnet.core.records import ModelSpec
from edge_resnet.network.export import INPUT
from edge_resnet.quantization.calibrate import LARGE, Probe, collect, probed

#: At 112 pixels the maps of the first stage have 50,176 values, those of the second 25,088.
NETWORK = ModelSpec("imagenet", 18, input_size=112)


def values_of(model: onnx.ModelProto, names: list[str], images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, {INPUT: images}), strict=True))


def with_outputs(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    return model


def map_of(channels: int, height: int, width: int) -> onnx.ModelProto:
    """One Relu over (N, channels, height, width)."""
    shape = ["n", channels, height, width]
    node = onnx.helper.make_node("Relu", [INPUT], ["y"])
    ends = [[onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)] for name in (INPUT, "y")]
    return onnx.helper.make_model(onnx.helper.make_graph([node], "map", *ends), ir_version=8)


@pytest.mark.parametrize(
    ("shape", "step"),
    [
        ((16, 32, 32), 1),  # CIFAR's: small
        ((64, 112, 112), 4),
        ((64, 56, 56), 4),
        ((128, 28, 28), 4),
        ((256, 14, 14), 2),
        ((2048, 7, 7), 1),  # no step divides it
        ((1024, 12, 12), 1),  # fewer than seven rows would be left
        ((64, 30, 28), 2),
        ((64, 31, 28), 1),
    ],
)
def test_the_step_follows_from_the_shape(shape: tuple[int, int, int], step: int) -> None:
    """Large maps are sampled at the widest step that divides them and leaves seven rows; the others are counted completely."""
    images = np.random.default_rng(0).standard_normal((2, *shape), dtype=np.float32)
    model, probes = probed(map_of(*shape), ["y"])
    probe = probes["y"]
    outputs = [name for name in (probe.values, probe.largest) if name is not None]
    found = values_of(model, outputs, images)
    wanted = np.maximum(images, 0)
    np.testing.assert_array_equal(found[probe.values], wanted[:, :, ::step, ::step])
    assert (probe.largest is None) is (step == 1)
    if probe.largest is not None:
        assert wanted[0].size >= LARGE
        np.testing.assert_array_equal(found[probe.largest].reshape(2, -1), wanted.max(axis=(2, 3)))


def test_a_network_gives_its_own_values() -> None:
    """The counted values of each tensor of a real graph are values of that tensor, and its largest is the largest of all."""
    model, images = graph(NETWORK), image_batch(3, 112)
    names = measured_tensors(model)
    _, probes = probed(model, names)
    assert list(probes) == names
    assert any(probe.largest for probe in probes.values())
    whole = values_of(with_outputs(graph(NETWORK), names), names, images)
    counted = collect(model, names, [images], 3)
    assert counted.images == 3
    for name, probe in probes.items():
        if probe.largest is None:
            assert counted.histograms[name].counts.sum() == whole[name].size
        else:
            assert whole[name].size / 16 <= counted.histograms[name].counts.sum() <= whole[name].size / 4
        if not counted.histograms[name].signed:
            assert counted.histograms[name].amax == pytest.approx(whole[name].max(), rel=1e-5)


def test_the_graph_given_is_left_as_it_is() -> None:
    """Probing works on a copy: the model does not change, and a small network gets no additional node."""
    model = graph(small())
    before = model.SerializeToString()
    changed, probes = probed(model, ["mul", "relu", "mul"])
    assert model.SerializeToString() == before
    assert probes == {"mul": Probe("mul", None), "relu": Probe("relu", None)}
    assert len(changed.graph.node) == len(model.graph.node)
    assert [output.name for output in changed.graph.output] == ["mul", "relu"]
