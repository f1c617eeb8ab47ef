"""simulate.py: the logits are those of the graph as written, for batches of any size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from exported import exported, graph, image_batch, logits, small
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.compiler.graph.qdq import measured_tensors, quantize
from edge_resnet.core.errors import CalibrationError
from edge_resnet.core.records import QuantRecipe
from edge_resnet.quantization.calibrate import calibrate
from edge_resnet.quantization.simulate import Images, Logits, simulate

IMAGES = image_batch(24, 16)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest network's FP32 file."""
    path = tmp_path_factory.mktemp("simulate") / "model.onnx"
    path.write_bytes(exported(small()))
    return path


@pytest.fixture(scope="module")
def table(path: Path) -> CalibrationTable:
    """Its ranges over the images."""
    return calibrate(path, measured_tensors(graph(small())), [IMAGES], QuantRecipe(method="mse"))


def distance(a: Logits, b: Logits) -> float:
    """Root mean square error, relative to the variation of the logits between images."""
    return float(np.sqrt(((a - b) ** 2).mean()) / b.std(axis=0).mean())


@given(st.lists(st.integers(0, 24), max_size=6))
@settings(max_examples=20)
def test_the_batches_do_not_matter(cuts: list[int]) -> None:
    """Divided anywhere, with empty batches too, the images have the logits of a single batch, in order."""
    model = graph(small())
    found = simulate(model, iter(np.split(IMAGES, sorted(cuts))))
    assert found.shape == (24, 10)
    assert found.dtype == np.float32
    assert found == pytest.approx(logits(model, IMAGES), abs=1e-4)


def test_a_file_and_a_graph_are_the_same(path: Path) -> None:
    """A graph has exactly the same logits from a path and from memory."""
    assert np.array_equal(simulate(path, [IMAGES]), simulate(onnx.load(path), [IMAGES]))


def test_int8_is_computed_as_it_is_written(table: CalibrationTable) -> None:
    """TensorRT's form gives the logits of a run without any optimization, and these differ from FP32's."""
    model = graph(small())
    int8 = quantize(model, table, "tensorrt")
    found, written = simulate(int8, [IMAGES]), logits(int8, IMAGES)
    assert distance(found, written) < 0.1 * distance(written, logits(model, IMAGES))
    assert (found.argmax(axis=1) == written.argmax(axis=1)).mean() >= 0.9


def test_biases_are_not_rounded(table: CalibrationTable) -> None:
    """Biases below half an integer step have an effect: by default ONNX Runtime rounds them to zero, TensorRT does not."""
    rounded, as_written = (logits(_with_biases(table, share), IMAGES) for share in (0, 0.45))
    found = simulate(_with_biases(table, 0.45), [IMAGES])
    assert distance(found, as_written) < 0.2 * distance(rounded, as_written)


def _with_biases(table: CalibrationTable, share: float) -> onnx.ModelProto:
    """TensorRT's form with every convolution's bias at ``share`` of its integers' step, the input's times the weight's."""
    int8 = quantize(graph(small()), table, "tensorrt")
    stored = {tensor.name: tensor for tensor in int8.graph.initializer}
    maker = {node.output[0]: node for node in int8.graph.node}
    for node in int8.graph.node:
        if node.op_type == "Conv":
            of_input, of_weight = (numpy_helper.to_array(stored[maker[name].input[1]]) for name in node.input[:2])
            bias = (of_input * of_weight * share).astype(np.float32)
            stored[node.input[2]].CopyFrom(numpy_helper.from_array(bias, node.input[2]))
    return int8


def test_batches_are_taken_one_at_a_time() -> None:
    """The next batch is read when the one before is done, so that only one is held; strided views are read correctly."""
    model = graph(small())
    alive = 0

    def batches() -> Iterator[Images]:
        nonlocal alive
        for start in range(0, 24, 8):
            alive += 1
            yield image_batch(24, 32)[start : start + 8, ::2, ::-2]

    found = simulate(model, batches())
    assert alive == 3
    assert found == pytest.approx(logits(model, np.ascontiguousarray(image_batch(24, 32)[:, ::2, ::-2])), abs=1e-4)


@pytest.mark.parametrize("batches", [[], [IMAGES[:0]]], ids=["no batch", "an empty batch"])
def test_no_image_is_refused(batches: list[Images]) -> None:
    """A simulation without images is refused."""
    with pytest.raises(CalibrationError, match="no image"):
        simulate(graph(small()), batches)
