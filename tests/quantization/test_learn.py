"""learn.py: learning brings INT8 closer to FP32 on unseen images, reproducibly, and changes no function but by biases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from exported import graph, image_batch, logits, small
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.compiler.graph.corrections import EXACT_AMAX, SHIFTED, Corrections, apply, with_exact_input
from edge_resnet.compiler.graph.qdq import measured_tensors, quantize
from edge_resnet.core.errors import CalibrationError
from edge_resnet.core.records import ModelSpec, Progress, QuantRecipe
from edge_resnet.images.imagecache import ImageCache
from edge_resnet.quantization.biases import correct_biases
from edge_resnet.quantization.calibrate import collect, table_from
from edge_resnet.quantization.covariance import QuantizedGraph
from edge_resnet.quantization.executor import Executor
from edge_resnet.quantization.learn import Learned, Teacher, learn, learning_batch
from edge_resnet.quantization.rounding import round_layers

RECIPE = QuantRecipe(method="mse", images=96, epochs=6, seed=3)


@dataclass(frozen=True)
class Case:
    """A network, its images on disk, the table that plain calibration gives, and FP32's answers."""

    model: onnx.ModelProto
    images: ImageCache
    table: CalibrationTable
    logits: npt.NDArray[np.float32]

    def learn(self, recipe: QuantRecipe = RECIPE, judges: Teacher | None = None, progress: Progress | None = None) -> Learned:
        """What learning finds with another recipe."""
        graph = QuantizedGraph(self.model, self.table.amax, frozenset(recipe.keep_high_precision))
        return learn(graph, Teacher(self.images, self.logits), recipe, judges, progress=progress)

    def evened(self, found: Learned) -> onnx.ModelProto:
        """The FP32 graph with what was learned."""
        return apply(apply(self.model, found.evened), Corrections(biases=found.biases))


def case(folder: Path, model: onnx.ModelProto, recipe: QuantRecipe = RECIPE) -> Case:
    """Calibrate on smooth images."""
    size = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    images = ImageCache(iter([image_batch(recipe.images, size)]), folder)
    counted = collect(model, measured_tensors(model), images.batches(16), len(images))
    table = table_from(counted.histograms, recipe, len(images), images.digest, "")
    table = replace(table, amax={**table.amax, **({SHIFTED: EXACT_AMAX} if SHIFTED in table.amax else {})})
    return Case(model, images, table, counted.logits)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    """The smallest network."""
    made = case(tmp_path_factory.mktemp("plain"), graph(small()))
    with made.images:
        yield made


@pytest.fixture(scope="module")
def learned(plain: Case) -> Learned:
    """The result of learning on it."""
    return plain.learn()


def error(model: onnx.ModelProto, quantized: onnx.ModelProto, images: npt.NDArray[np.uint8]) -> float:
    """Squared error of the logits over their variance."""
    wanted, found = (value - value.mean(1, keepdims=True) for value in (logits(model, images), logits(quantized, images)))
    return float(((found - wanted) ** 2).sum() / (wanted**2).sum())


def with_ranges(made: Case, amax: dict[str, float]) -> CalibrationTable:
    """The table with other ranges."""
    table = made.table
    return CalibrationTable({**table.amax, **amax}, table.signed, table.recipe, table.images, "", "")


def test_unseen_images_are_answered_more_like_fp32(plain: Case, learned: Learned) -> None:
    """With rounded weights the logit error on other images falls by at least a fifth, in ONNX Runtime as well as in torch."""
    unseen = image_batch(64, 16, seed=99)
    before = error(plain.model, quantize(plain.model, plain.table, "tensorrt"), unseen)
    rounded = round_layers(QuantizedGraph(plain.evened(learned), learned.amax), plain.images)
    after = quantize(plain.evened(learned), with_ranges(plain, learned.amax), "tensorrt", rounded)
    assert error(plain.model, after, unseen) < 0.8 * before


def test_the_loss_falls(learned: Learned) -> None:
    """The last pass has a smaller loss than the first."""
    assert 0 < learned.last_loss < learned.first_loss


def test_images_that_are_not_learned_from_judge(plain: Case, tmp_path: Path) -> None:
    """Their error falls too, and before learning it is that of the plain ranges with float weights."""
    unseen = image_batch(40, 16, seed=99)
    with ImageCache(iter([unseen]), tmp_path) as images:
        found = plain.learn(judges=Teacher(images, logits(plain.model, unseen)))
    assert found.before is not None
    assert found.after is not None
    assert found.after.shape == found.before.shape == (40,)
    assert found.after.mean() < found.before.mean()
    floats = quantize(plain.model, plain.table, "tensorrt")
    # The weights are rounded there: their error comes on top.
    assert found.before.mean() < error(plain.model, floats, unseen) < 3 * found.before.mean()


def test_scaled_channels_do_not_change_the_function(plain: Case, learned: Learned) -> None:
    """Every factor that was learned cancels: without ranges and biases the graph answers as before."""
    images = image_batch(8, 16, seed=5)
    expected = logits(plain.model, images)
    np.testing.assert_allclose(logits(apply(plain.model, learned.evened), images), expected, atol=1e-4 * np.abs(expected).max())
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in plain.model.graph.initializer}
    inputs = {node.name: node.input[1] for node in plain.model.graph.node if len(node.input) > 1}
    ratios = [
        np.abs(weight / np.where(constants[inputs[name]], constants[inputs[name]], np.nan))
        for name, weight in learned.evened.floats.items()
    ]
    assert max(np.nanmax(ratio) / np.nanmin(ratio) for ratio in ratios) > 1.02


def test_a_channels_factor_is_a_step_of_its_own(plain: Case, learned: Learned) -> None:
    """What learning computed with a step per channel is what the graph with scaled channels computes with one step."""
    counted = collect(plain.model, [], plain.images.batches(16), len(plain.images))
    graph = QuantizedGraph(plain.evened(learned), learned.amax)
    again = learn(graph, Teacher(plain.images, counted.logits), replace(RECIPE, epochs=1), Teacher(plain.images, counted.logits))
    with_judges = plain.learn(judges=Teacher(plain.images, plain.logits))
    assert again.before is not None
    assert with_judges.after is not None
    assert again.before.mean() == pytest.approx(with_judges.after.mean(), rel=0.02)


def test_the_same_seed_learns_the_same(plain: Case, learned: Learned) -> None:
    """A build is reproducible: weights, biases and ranges are equal."""
    again = plain.learn()
    assert again.amax == learned.amax
    for name, bias in learned.biases.items():
        np.testing.assert_array_equal(again.biases[name], bias)
    for name, weight in learned.evened.floats.items():
        np.testing.assert_array_equal(again.evened.floats[name], weight)


def test_nodes_in_high_precision_are_left_alone(plain: Case) -> None:
    """A kept node learns no bias."""
    found = plain.learn(QuantRecipe(method="mse", images=96, epochs=1, keep_high_precision=("layer1.0.conv1",)))
    assert "layer1.0.conv1" not in found.biases
    assert "layer1.0.conv2" in found.biases


def test_an_exact_input_stays_exact(tmp_path: Path) -> None:
    """Its step is one pixel value and is not learned."""
    model = with_exact_input(graph(small()))
    made = case(tmp_path, model)
    with made.images:
        found = made.learn(QuantRecipe(images=96, epochs=1))
    assert found.amax[SHIFTED] == pytest.approx(EXACT_AMAX, rel=1e-6)


def test_padding_of_option_a_stays_zero(tmp_path: Path) -> None:
    """The rows of zeros in option A's fixed filter are zero after learning and rounding."""
    model = graph(small("A"))
    made = case(tmp_path, model)
    with made.images:
        found = made.learn(QuantRecipe(images=96, epochs=2))
        rounded = round_layers(QuantizedGraph(made.evened(found), found.amax), made.images)
    node = next(node for node in model.graph.node if node.op_type == "Conv" and len(node.input) == 2)
    weight = next(onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name == node.input[1])
    dead = np.array([not row.any() for row in weight])
    assert dead.any()
    assert not rounded.integers[node.name][dead].any()


@pytest.mark.parametrize("fits", [2, 0])
def test_a_full_gpu_computes_a_step_in_more_parts(
    plain: Case, learned: Learned, monkeypatch: pytest.MonkeyPatch, fits: int
) -> None:
    """Where more than ``fits`` images are too many, the parts get smaller and the result stays; below one it is an error."""
    run = Executor.run

    def with_little_memory(self: Executor, images: torch.Tensor, *args: object, **options: object) -> torch.Tensor:
        if torch.is_grad_enabled() and len(images) > fits:
            raise torch.OutOfMemoryError
        return run(self, images, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Executor, "run", with_little_memory)
    if not fits:
        with pytest.raises(CalibrationError, match="memory") as caught:
            plain.learn()
        assert "--device cpu" in caught.value.hint
        return
    found = plain.learn()
    assert found.last_loss == pytest.approx(learned.last_loss, rel=0.25)


def test_ctrl_c_stops_it(plain: Case) -> None:
    """Learning reports before every step, so that it can be interrupted there."""

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "learn" and done > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plain.learn(progress=interrupt)


@given(size=st.sampled_from([8, 16, 32, 64, 96, 224, 448]))
def test_a_step_sees_as_many_pixels_at_every_size(size: int) -> None:
    """32 small images or 8 of 224 pixels a step, never fewer than 4."""
    model = graph(small(input_size=16))
    for index in (1, 2):
        model.graph.input[0].type.tensor_type.shape.dim[index].dim_value = size
    batch = learning_batch(model)
    assert 4 <= batch <= 32
    assert batch == 8 or size != 224


def test_bias_correction_restores_the_means(plain: Case) -> None:
    """The mean output per channel of the last convolution is closer to FP32's with corrected biases than without."""
    found = correct_biases(plain.model, plain.table.amax, plain.images, frozenset())
    assert set(found.biases) == {node.name for node in plain.model.graph.node if node.op_type == "Conv"}
    images, tensor = plain.images.take(range(64)), "layer3.0.conv2"

    def means(model: onnx.ModelProto) -> npt.NDArray[np.float32]:
        watched = onnx.ModelProto()
        watched.CopyFrom(model)
        del watched.graph.output[:]
        watched.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
        mean: npt.NDArray[np.float32] = logits(watched, images).mean(axis=(0, 2, 3))
        return mean

    wanted = means(plain.model)
    before = np.abs(means(quantize(plain.model, plain.table, "tensorrt")) - wanted).mean()
    after = np.abs(means(quantize(plain.model, plain.table, "tensorrt", found)) - wanted).mean()
    assert after < 0.6 * before


def test_bias_correction_leaves_kept_nodes(plain: Case) -> None:
    """A node in high precision is not rounded, so its bias is not corrected."""
    found = correct_biases(plain.model, plain.table.amax, plain.images, frozenset({"conv1"}))
    assert "conv1" not in found.biases
    assert isinstance(apply(plain.model, found), onnx.ModelProto)
    assert isinstance(found, Corrections)


@pytest.mark.slow
def test_a_bottleneck_network_learns_too(tmp_path: Path) -> None:
    """Bottlenecks and max pooling pass gradients: ResNet-50's loss falls."""
    model = graph(ModelSpec("imagenet", 50, input_size=32))
    made = case(tmp_path, model, QuantRecipe(method="mse", images=32))
    with made.images:
        found = made.learn(QuantRecipe(epochs=4))
    assert found.last_loss < found.first_loss
