"""with_exact_input: the function is unchanged, and the first quantization rounds nothing."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from exported import graph, image_batch, logits, small
from onnx import numpy_helper

from edge_resnet.compiler.graph.corrections import EXACT_AMAX, SHIFTED, with_exact_input
from edge_resnet.compiler.graph.placement import tensorrt_pairs
from edge_resnet.compiler.graph.qdq import measured_tensors
from edge_resnet.core.errors import CalibrationError
from edge_resnet.core.records import ModelSpec

NETWORKS = {"cifar": small(), "plain": small(plain=True), "imagenet": ModelSpec("imagenet", 18, input_size=32)}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_function_is_unchanged(name: str) -> None:
    """Logits differ only by rounding, borders included, for a 3x3 and for a 7x7 convolution."""
    model, images = graph(NETWORKS[name]), image_batch(4, NETWORKS[name].input_size)
    expected = logits(model, images)
    np.testing.assert_allclose(logits(with_exact_input(model), images), expected, atol=2e-4 * np.abs(expected).max())


def test_the_shifted_image_is_int8_already() -> None:
    """Every value that the first convolution reads inside the image is a whole number in -128..127: a step of 1 loses
    nothing."""
    model = with_exact_input(graph(small()))
    model.graph.output.append(onnx.helper.make_tensor_value_info(SHIFTED, onnx.TensorProto.FLOAT, None))
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    shifted = session.run([SHIFTED], {"images": every})[0]
    inside = shifted[:, :, 1:-1, 1:-1]
    np.testing.assert_array_equal(np.rint(inside), every.transpose(0, 3, 1, 2).astype(np.int64) - 128)
    assert np.abs(inside - np.rint(inside)).max() < 1e-4
    assert EXACT_AMAX / 127 == 1.0


def test_the_border_is_the_mean_image() -> None:
    """The padding is mean - 128 per channel, which the network's zero padding stands for."""
    model = with_exact_input(graph(small()))
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    subtract = next(node for node in model.graph.node if node.op_type == "Sub")
    mean = constants[subtract.input[1]].reshape(-1)
    np.testing.assert_allclose(constants["shift.weight"].reshape(-1), 128 - mean, rtol=1e-6)


def test_the_pair_moves_to_the_shifted_image() -> None:
    """Placement puts the first pair on it, the number of pairs is the same, and the table measures it."""
    model = graph(small())
    changed = with_exact_input(model)
    assert next(pair.tensor for pair in tensorrt_pairs(changed)) == SHIFTED
    assert len(tensorrt_pairs(changed)) == len(tensorrt_pairs(model))
    assert SHIFTED in measured_tensors(changed)
    onnx.checker.check_model(changed, full_check=True)


def test_the_graph_given_is_left_as_it_is() -> None:
    """The change is made on a copy."""
    model = graph(small())
    before = model.SerializeToString()
    with_exact_input(model)
    assert model.SerializeToString() == before


def test_another_beginning_is_refused() -> None:
    """A graph that has been changed before does not begin with Sub, Mul, Conv; the error says what to leave out."""
    with pytest.raises(CalibrationError, match="does not begin") as caught:
        with_exact_input(with_exact_input(graph(small())))
    assert "exact_input" in caught.value.hint
