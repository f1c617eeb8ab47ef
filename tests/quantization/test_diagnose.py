"""diagnose.py: good networks and sets give no warning, broken ones give one line each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from exported import graph, image_batch, logits, small
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from PIL import Image
from rescaled import rescaled

from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.compiler.graph.corrections import SHIFTED, Corrections, apply
from edge_resnet.compiler.graph.qdq import measured_tensors
from edge_resnet.core.records import ModelSpec, Preprocess, QuantRecipe
from edge_resnet.images.calibration import prepare_calibration_images
from edge_resnet.images.checks import sampled_stats
from edge_resnet.images.datasets import load_named
from edge_resnet.images.imageset import ImageSet, from_arrays, open_images
from edge_resnet.network import build_network, load_weights
from edge_resnet.network.export import Deployable, export
from edge_resnet.quantization.calibrate import collect, table_from
from edge_resnet.quantization.diagnose import (
    Risk,
    check_answers,
    check_normalisation,
    check_set,
    check_unlike,
    risk_warning,
    risky_layers,
)
from edge_resnet.quantization.histogram import AbsHistogram
from edge_resnet.quantization.ranges import METHODS

Images = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]
Histograms = Mapping[str, AbsHistogram]
CIFAR = Preprocess(resize=32, crop=32)


def set_warnings(images: ImageSet, classes: int, spec: Preprocess | None = None) -> list[str]:
    """All warnings about a set: as the network sees it, with its normalisation, if there is a ``spec``."""
    if spec is None:
        return check_set(images, list(sampled_stats(images)), classes)
    with prepare_calibration_images(images, spec) as prepared:
        stats = list(sampled_stats(prepared))
    return [*check_set(images, stats, classes), *check_normalisation(stats, spec)]


class Trained(NamedTuple):
    """A network with published weights, and images of its kind: training and test images and the latter's labels."""

    model: onnx.ModelProto
    train: Images
    test: Images
    labels: npt.NDArray[np.int64]


@pytest.fixture(scope="module")
def cifar(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """CIFAR ResNet-20, 91.73 % top-1, exported; 256 images of either split."""
    path = tmp_path_factory.mktemp("diagnose") / "model.onnx"
    export_with(CIFAR, real_data, path)
    sheets = {}
    for split in ("train", "test"):
        sheet = np.asarray(Image.open(real_data / "cifar10" / f"{split}_00.webp"))
        tiles = sheet.reshape(25, 32, 40, 32, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3)
        sheets[split] = np.ascontiguousarray(tiles[:256])
    return Trained(onnx.load(path), sheets["train"], sheets["test"], np.arange(256) % 10)


def export_with(preprocess: Preprocess, real_data: Path, path: Path) -> None:
    """Write the CIFAR network with this normalisation."""
    spec = ModelSpec("cifar", 20, "A", classes=10, input_size=32)
    network = build_network(spec)
    load_weights(network, spec, str(real_data / "weights" / "cifar10" / "resnet20-12fca82f.th"))
    with torch.inference_mode():
        export(Deployable(network, preprocess).eval(), 32, path)


def measured(model: onnx.ModelProto, images: Images) -> Histograms:
    """Histograms of a graph over images."""
    cut = (images[start : start + 32] for start in range(0, len(images), 32))
    return collect(model, measured_tensors(model), cut, len(images)).histograms


def ranges(histograms: Histograms, recipe: QuantRecipe) -> CalibrationTable:
    """The table of a recipe."""
    return table_from(dict(histograms), recipe, 1, "", "")


def counted(model: onnx.ModelProto, images: Images) -> tuple[Histograms, CalibrationTable]:
    """Histograms of a graph over images, and the ranges that mse reads."""
    histograms = measured(model, images)
    return histograms, ranges(histograms, QuantRecipe(method="mse"))


def filled(values: Values) -> AbsHistogram:
    """A histogram of these values."""
    histogram = AbsHistogram()
    histogram.add(values)
    return histogram


def loud_channel(model: onnx.ModelProto, factor: float) -> onnx.ModelProto:
    """The CIFAR network with one channel of its second residual stream ``factor`` times as large, and the same function.

    Whatever adds to the channel is multiplied, whatever reads it divided: what outliers of a residual stream look like.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in changed.graph.initializer}
    makers = ("layer2.0.conv2", "layer2.1.conv2", "layer2.2.conv2", "layer2.0.downsample")
    readers = ("layer2.1.conv1", "layer2.2.conv1", "layer3.0.conv1", "layer3.0.downsample")
    for node in changed.graph.node:
        scaled = {**dict.fromkeys(node.input[1:3], (slice(7, 8), factor))} if node.name in makers else {}
        if node.name in readers:
            scaled = {node.input[1]: ((slice(None), slice(7, 8)), 1 / factor)}
        for name, (place, by) in scaled.items():
            value = numpy_helper.to_array(constants[name]).copy()
            value[place] *= by
            constants[name].CopyFrom(numpy_helper.from_array(value, name))
    return changed


@pytest.mark.parametrize("spec", [small("A"), small("B"), small(plain=True), ModelSpec("imagenet", 18, input_size=32)])
def test_sound_networks_are_not_flagged(spec: ModelSpec) -> None:
    """Trained networks have no risky layer."""
    model = graph(spec)
    assert risky_layers(model, *counted(model, image_batch(32, spec.input_size))) == []


def test_a_trained_network_is_not_flagged_by_any_method(cifar: Trained) -> None:
    """CIFAR ResNet-20, which quantizes well with plain ranges, has no risky layer with any method."""
    histograms = measured(cifar.model, cifar.train)
    for method in METHODS:
        recipe = QuantRecipe(method=method)  # type: ignore[arg-type]
        assert risky_layers(cifar.model, histograms, ranges(histograms, recipe)) == [], method


@pytest.mark.parametrize(("factor", "figure"), [(30, "127 steps"), (100, "127 steps"), (3000, "become zero")])
def test_a_loud_channel_of_a_residual_stream_is_flagged(cifar: Trained, factor: float, figure: str) -> None:
    """One scaled channel of 32, from where agreement falls below 95 % to where the others vanish; FP32 is unchanged."""
    model = loud_channel(cifar.model, factor)
    before, after = (logits(network, cifar.test[:32]).argmax(axis=1) for network in (cifar.model, model))
    assert (before == after).mean() > 0.95
    risks = risky_layers(model, *counted(model, cifar.train[:64]))
    assert risks
    assert figure in risks[0].why
    assert {risk.node.split(".")[0] for risk in risks} <= {"layer2", "layer3"}, "the streams before and after are sound"


def test_a_network_scaled_apart_is_flagged_where_it_was() -> None:
    """Function-preserving scaling of a block's channels by up to 3000 is found in that block alone: its tensors, its weights."""
    model = rescaled(graph(small()), 3000, ("layer2.0",))
    risks = risky_layers(model, *counted(model, image_batch(32, 16)))
    assert {risk.node for risk in risks} == {"layer2.0.conv2"}
    assert {risk.why.split(" lie ")[0].split(" of ", 1)[1].split(" of its")[0] for risk in risks} >= {"its weights"}
    assert [risk.value for risk in risks] == sorted((risk.value for risk in risks), reverse=True)
    assert all(risk.value > 1 and "\n" not in risk.why for risk in risks)


def test_the_wider_apart_the_worse() -> None:
    """The worst layer's value grows with the factor, starting from no warning."""
    values = []
    for factor in (1, 30, 300, 3000):
        model = rescaled(graph(small()), factor, ("layer1.0",))
        risks = risky_layers(model, *counted(model, image_batch(32, 16)))
        values.append(risks[0].value if risks else 0.0)
    assert values[0] == 0
    assert values == sorted(values)
    assert values[-1] > 2


def test_weights_alone_can_be_the_risk() -> None:
    """An input channel that is always zero may have huge weights: no activation shows them, but they use up all steps."""
    model = graph(small())
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "layer2.0.conv2.weight")
    weight = numpy_helper.to_array(tensor).copy()
    weight[:, 3] *= 100
    tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    risks = risky_layers(model, {}, CalibrationTable({}, (), QuantRecipe(), 1, "", ""))
    assert [risk.node for risk in risks] == ["layer2.0.conv2"]
    assert "weights" in risks[0].why


def one_loud_value_in(rate: int, factor: float) -> Values:
    """Small values with one in ``rate`` of them ``factor`` times as large."""
    values = np.abs(np.random.default_rng(0).standard_normal(20_000)).astype(np.float32)
    values[::rate] *= factor
    return values


@pytest.mark.parametrize(
    ("amax", "text"), [(None, "127 steps"), (4.0, "clipping removes")], ids=["nothing is clipped", "the loud ones are clipped"]
)
def test_either_way_of_reading_an_outlier_is_flagged(amax: float | None, text: str) -> None:
    """Values a hundred times the rest: with max they leave the rest no steps, and if clipped they are lost themselves."""
    histogram = filled(one_loud_value_in(50, 100))
    table = CalibrationTable({"relu": amax or histogram.amax}, (), QuantRecipe(method="max"), 1, "", "")
    risks = risky_layers(graph(small()), {"relu": histogram}, table)
    assert [risk.node for risk in risks] == ["layer1.0.conv1"], "the layer that reads the tensor can be kept in high precision"
    assert text in risks[0].why
    assert "relu" in risks[0].why


def test_a_sparse_tensor_is_no_risk() -> None:
    """A ReLU may give 97 % zeros: no channel of this network is much larger than another."""
    values = np.abs(np.random.default_rng(0).standard_normal(20_000)).astype(np.float32)
    values[np.arange(20_000) % 100 > 2] = 0
    histogram = filled(values)
    table = CalibrationTable({"relu": histogram.amax}, (), QuantRecipe(method="max"), 1, "", "")
    assert risky_layers(graph(small()), {"relu": histogram}, table) == []


def test_what_is_kept_or_only_added_is_not_judged() -> None:
    """Neither the input of layers that stay in high precision, nor a tensor that only an Add reads, nor one without a range."""
    model, histogram = graph(small()), filled(one_loud_value_in(50, 100))
    kept = QuantRecipe(method="max", keep_high_precision=("layer1.0.conv1", "layer2.0.conv2"))
    amax = {"relu": histogram.amax, "layer1.0.conv2": histogram.amax}
    assert risky_layers(model, dict.fromkeys(amax, histogram), CalibrationTable(amax, (), kept, 1, "", "")) == []
    assert risky_layers(model, {"relu": histogram}, CalibrationTable({}, (), QuantRecipe(), 1, "", "")) == []
    wide = rescaled(model, 3000, ("layer2.0",))
    assert risky_layers(wide, {}, CalibrationTable({}, (), kept, 1, "", "")) == []


def test_the_warning_is_one_line_with_the_worst_first() -> None:
    """One line for any number of layers: it names the worst three, counts the others, and says what to do."""
    assert risk_warning([]) == []
    lines = risk_warning([Risk(f"layer{index}", 9.0 - index, "bad") for index in range(5)])
    assert len(lines) == 1
    assert "\n" not in lines[0]
    assert lines[0].index("layer0") < lines[0].index("layer2")
    assert "layer4" not in lines[0]
    assert "2 more" in lines[0]
    assert "--max-drop" in lines[0]


def test_a_layer_with_several_risks_is_named_and_counted_once() -> None:
    """Four layers with two risks each: the worse one of each is told, and one layer is left over, not five risks."""
    risks = [Risk(f"layer{index % 4}", 9.0 - index, f"reason {index}") for index in range(8)]
    (line,) = risk_warning(risks[::-1])
    assert [word for word in ("reason 0", "reason 1", "reason 2", "reason 3", "reason 4") if word in line] == [
        "reason 0",
        "reason 1",
        "reason 2",
    ]
    assert "and 1 more layer;" in line


def test_a_good_set_gives_no_warning() -> None:
    """Two hundred images of all classes give no warning."""
    spec = Preprocess(resize=16, crop=16)
    assert set_warnings(from_arrays("good", image_batch(200, 16), np.arange(200) % 10, []), 10, spec) == []


def test_real_sets_give_no_warning(cifar: Trained) -> None:
    """CIFAR-10 and handwritten digits, as their networks see them."""
    assert set_warnings(from_arrays("cifar10", cifar.train, cifar.labels), 10, CIFAR) == []
    assert set_warnings(load_named("digits", "train"), 10, CIFAR) == []


@pytest.mark.slow
def test_imagenet_gives_no_warning(real_data: Path) -> None:
    """Five hundred images of as many classes, as a network sees them."""
    assert set_warnings(open_images(real_data / "imagenet" / "sample500.csv"), 1000, Preprocess()) == []


def test_ten_classes_of_a_thousand_are_enough() -> None:
    """As in a set of ten ImageNet classes; ranges hardly depend on the classes."""
    assert set_warnings(from_arrays("ten", image_batch(200, 16), np.arange(200) % 10), 1000) == []


@pytest.mark.parametrize(
    ("images", "labels", "text"),
    [
        (image_batch(20, 16), None, "far too few"),
        (image_batch(100, 16), None, "few"),
        (image_batch(200, 16), np.zeros(200, np.int64), "one class"),
        (image_batch(200, 16), np.arange(200) % 2, "2 of 10 classes"),
        (np.repeat(image_batch(4, 16), 50, axis=0), None, "repeat another"),
        (np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None, None, None], (200, 16, 16, 3)), None, "one colour"),
        (np.broadcast_to(np.array([200, 30, 90], np.uint8), (200, 16, 16, 3)), None, "one colour"),
    ],
)
def test_an_unfit_set_is_named(images: Images, labels: npt.NDArray[np.int64] | None, text: str) -> None:
    """A set that is too small, of one or few classes, repeated or flat gives one line with the number."""
    lines = set_warnings(from_arrays("set", images, labels, []), 10)
    assert len(lines) == 1, lines
    assert text in lines[0]
    assert "\n" not in lines[0]


@pytest.mark.parametrize(
    ("spec", "doubted"),
    [
        (CIFAR, False),
        (Preprocess(32, 32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)), False),  # another network's, and as likely
        (Preprocess(32, 32, mean=(0, 0, 0)), True),
        (Preprocess(32, 32, std=(1, 1, 1)), True),
        (Preprocess(32, 32, std=(0.229 / 255, 0.224 / 255, 0.225 / 255)), True),
    ],
    ids=["right", "halves", "no mean", "no deviation", "deviation divided by 255 again"],
)
def test_a_normalisation_that_fits_no_image_is_warned_about(cifar: Trained, spec: Preprocess, doubted: bool) -> None:
    """A missing mean or deviation shows in the pixels; two usual normalisations cannot be distinguished."""
    lines = set_warnings(from_arrays("cifar10", cifar.train), 10, spec)
    assert [("--mean" in line) for line in lines] == [True] * doubted


def test_images_that_cannot_be_read_do_not_raise(tmp_path: Path) -> None:
    """Broken files are reported by the calibration pass; here they are skipped."""
    for index in range(3):
        (tmp_path / f"{index}.png").write_bytes(b"no image")
    assert any("far too few" in line for line in set_warnings(open_images(tmp_path), 10))


def test_fp32_near_chance_is_doubted() -> None:
    """Random answers to labelled images: the normalisation, the labels or the weights are wrong; right ones pass."""
    rng = np.random.default_rng(0)
    answers, labels = rng.standard_normal((64, 10)).astype(np.float32), rng.integers(0, 10, 64)
    assert "hardly more than chance" in check_answers(answers, labels)[0]
    assert check_answers(9 * np.eye(10, dtype=np.float32)[labels], labels) == []


def test_a_modest_network_is_not_doubted() -> None:
    """40 % right of a thousand classes is far from chance."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 1000, 64)
    answers = np.where(np.arange(64) % 5 < 2, labels, (labels + 1) % 1000)
    assert check_answers(20 * np.eye(1000, dtype=np.float32)[answers], labels) == []


def test_one_answer_for_everything_is_doubted() -> None:
    """Without labels, the same answer for all images means a wrong input; for images of one class it does not."""
    answers = np.zeros((64, 10), np.float32)
    answers[:, 3] = 9
    assert "one class" in check_answers(answers, None)[0]
    assert check_answers(answers, np.full(64, 3)) == []
    assert check_answers(answers[:10], None) == []


def test_a_network_that_knows_nothing_is_doubted() -> None:
    """Nearly uniform answers, as before training, give a warning without labels; moderately sure ones do not."""
    answers = np.random.default_rng(0).standard_normal((64, 10)).astype(np.float32)
    assert "unsure" in check_answers(0.1 * answers, None)[0]
    assert check_answers(4 * answers, None) == []


@pytest.mark.parametrize("count", [0, 1, 15])
def test_few_answers_are_not_judged(count: int) -> None:
    """Three wrong answers of three are no evidence."""
    assert check_answers(np.zeros((count, 10), np.float32), np.ones(count, np.int64)) == []


def test_fp32_of_a_trained_network_is_believed_until_its_input_is_wrong(cifar: Trained, real_data: Path, tmp_path: Path) -> None:
    """The published ResNet-20 passes; pixels 255 times too large, or labels in another order, give a warning."""
    right = logits(cifar.model, cifar.test[:64])
    assert check_answers(right, cifar.labels[:64]) == []
    assert check_answers(right, None) == []
    assert "chance" in check_answers(right, np.roll(cifar.labels[:64], 5))[0]
    export_with(Preprocess(32, 32, std=(0.229 / 255, 0.224 / 255, 0.225 / 255)), real_data, tmp_path / "wrong.onnx")
    assert "chance" in check_answers(logits(tmp_path / "wrong.onnx", cifar.test[:64]), cifar.labels[:64])[0]


def test_sets_of_one_kind_are_alike_and_others_are_not() -> None:
    """Other images of the same kind pass; the same images at a third of the brightness, and faint ones, do not."""
    model = graph(small())
    base, _ = counted(model, image_batch(96, 16))
    assert check_unlike(base, counted(model, image_batch(96, 16, seed=5))[0]) == []
    dark = (image_batch(96, 16, seed=5) // 3).astype(np.uint8)
    faint = (image_batch(96, 16, seed=5) // 8 + 110).astype(np.uint8)
    for other in (dark, faint):
        lines = check_unlike(base, counted(model, other)[0])
        assert len(lines) == 1
        assert "unlike" in lines[0]


def test_training_and_test_images_are_alike_and_dark_ones_are_not(cifar: Trained) -> None:
    """Either set may calibrate for the other; half the brightness gives a warning, and another about values clipped by it."""
    train, test, dark = (measured(cifar.model, images) for images in (cifar.train, cifar.test, cifar.test // 2))
    assert check_unlike(train, test) == []
    assert check_unlike(test, train) == []
    few = measured(cifar.model, cifar.train[:32])
    assert check_unlike(few, test) == []
    assert len(check_unlike(train, dark)) == 1
    lines = check_unlike(dark, test)
    assert "clipped" in lines[0]
    assert "unlike" in lines[1]


def test_an_exact_input_is_not_called_clipped(cifar: Trained) -> None:
    """Its range is that of a pixel for any images: brighter ones lie within it."""
    model = apply(cifar.model, Corrections(exact_input=True))
    bright, dark = (measured(model, images) for images in (cifar.test[:64], cifar.test[:64] // 4 + 96))
    assert SHIFTED in dark
    assert not any(SHIFTED in line for line in check_unlike(dark, bright))


@given(seed=st.integers(0, 99), factor=st.floats(0.2, 5))
def test_unlikeness_is_a_distance(seed: int, factor: float) -> None:
    """A set is like itself, and a scaling is detected from both sides or from neither."""
    values = np.abs(np.random.default_rng(seed).standard_normal(4000)).astype(np.float32)
    first, second = {"t": filled(values)}, {"t": filled(values * np.float32(factor))}
    assert check_unlike(first, first) == []
    if not 0.85 < factor < 1.15:
        assert check_unlike(first, second)
        assert check_unlike(second, first)


def test_tensors_without_values_are_passed_over() -> None:
    """A tensor that is all zero, or that only one side has, is no evidence."""
    dead = {"t": filled(np.zeros(4, np.float32))}
    assert check_unlike(dead, dead) == []
    assert check_unlike({}, dead) == []
