"""diagnose.py: sound networks and sets pass in silence, broken ones are named in one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from exported import graph, pictures, small
from hypothesis import given
from hypothesis import strategies as st
from rescaled import rescaled

from edge_resnet.imageset import from_arrays, open_images
from edge_resnet.quantization.calibrate import collect, table_from
from edge_resnet.quantization.diagnose import Risk, check_answers, check_set, check_unlike, risk_warning, risky_layers
from edge_resnet.quantization.histogram import AbsHistogram
from edge_resnet.quantization.qdq import measured_tensors
from edge_resnet.spec import CalibrationTable, ModelSpec, QuantRecipe

Images = npt.NDArray[np.uint8]


def counted(model: onnx.ModelProto, images: Images) -> tuple[Mapping[str, AbsHistogram], CalibrationTable]:
    """Histograms of a graph over pictures, and the ranges that mse reads."""
    histograms, count = collect(model, measured_tensors(model), iter([images]), len(images))
    return histograms, table_from(histograms, QuantRecipe(method="mse"), count, "", "")


def filled(values: npt.NDArray[np.float32]) -> AbsHistogram:
    """A histogram of these values."""
    histogram = AbsHistogram()
    histogram.add(values)
    return histogram


@pytest.mark.parametrize("spec", [small("A"), small("B"), small(plain=True), ModelSpec("imagenet", 18, input_size=32)])
def test_sound_networks_are_not_flagged(spec: ModelSpec) -> None:
    """Networks as training leaves them have no risky layer."""
    model = graph(spec)
    assert risky_layers(model, *counted(model, pictures(32, spec.input_size))) == []


def test_a_network_scaled_apart_is_flagged_where_it_was() -> None:
    """Function-preserving scaling of a block's channels by up to 3000 is found in that block: its tensor, its weights."""
    model = rescaled(graph(small()), 3000, ("layer2.0",))
    risks = risky_layers(model, *counted(model, pictures(32, 16)))
    assert {risk.node for risk in risks} <= {"layer2.0.relu", "layer2.0.conv1", "layer2.0.conv2"}
    assert {"layer2.0.conv1"} <= {risk.node for risk in risks}
    assert [risk.value for risk in risks] == sorted((risk.value for risk in risks), reverse=True)


def test_one_loud_channel_is_flagged() -> None:
    """A tensor of small values with one value in a hundred two hundred times as large loses the small ones under max."""
    rng = np.random.default_rng(0)
    values = np.abs(rng.standard_normal(20_000)).astype(np.float32)
    values[::100] *= 200
    model, histogram = graph(small()), filled(values)
    table = CalibrationTable({"relu": histogram.amax}, (), QuantRecipe(method="max"), 1, "", "")
    risks = risky_layers(model, {"relu": histogram}, table)
    assert [risk.node for risk in risks] == ["relu"]
    assert "rounded to zero" in risks[0].why


def test_the_warning_is_one_line_with_the_worst_first() -> None:
    """However many layers: one line, the worst three named, the others counted, and what to do."""
    assert risk_warning([]) == []
    lines = risk_warning([Risk(f"layer{index}", 9.0 - index, "bad") for index in range(5)])
    assert len(lines) == 1
    assert "\n" not in lines[0]
    assert lines[0].index("layer0") < lines[0].index("layer2")
    assert "layer4" not in lines[0]
    assert "2 more" in lines[0]
    assert "--max-drop" in lines[0]


def test_a_good_set_passes_in_silence() -> None:
    """Two hundred pictures of all classes: nothing to say."""
    assert check_set(from_arrays("good", pictures(200, 16), np.arange(200) % 10, []), 10) == []


@pytest.mark.parametrize(
    ("images", "labels", "text"),
    [
        (pictures(20, 16), None, "far too few"),
        (pictures(100, 16), None, "few"),
        (pictures(200, 16), np.zeros(200, np.int64), "one class"),
        (pictures(200, 16), np.arange(200) % 2, "2 of 10 classes"),
        (np.repeat(pictures(4, 16), 50, axis=0), None, "repeat another"),
        (np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None, None, None], (200, 16, 16, 3)), None, "one colour"),
    ],
)
def test_an_unfit_set_is_named(images: Images, labels: npt.NDArray[np.int64] | None, text: str) -> None:
    """Too small, one class, few classes, repeated, flat: a line each, that says the number."""
    lines = check_set(from_arrays("set", images, labels, []), 10)
    assert any(text in line for line in lines), lines
    assert all("\n" not in line for line in lines)


def test_pictures_that_cannot_be_read_do_not_raise(tmp_path: Path) -> None:
    """A broken file is the pass's to name; here it is only not looked at."""
    for index in range(3):
        (tmp_path / f"{index}.png").write_bytes(b"no picture")
    assert any("far too few" in line for line in check_set(open_images(tmp_path), 10))


def test_fp32_near_chance_is_doubted() -> None:
    """Random answers to labelled pictures: the normalisation, the labels or the weights are wrong; right ones pass."""
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((64, 10)).astype(np.float32), rng.integers(0, 10, 64)
    assert "hardly more than chance" in check_answers(logits, labels)[0]
    assert check_answers(np.eye(10, dtype=np.float32)[labels], labels) == []


def test_a_modest_network_is_not_doubted() -> None:
    """Four in ten right of a thousand classes is far from chance."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 1000, 64)
    answers = np.where(np.arange(64) % 5 < 2, labels, (labels + 1) % 1000)
    assert check_answers(np.eye(1000, dtype=np.float32)[answers], labels) == []


def test_one_answer_for_everything_is_doubted() -> None:
    """Where nothing is labelled, a network that says the same of all pictures has the wrong input; of one class it may."""
    logits = np.zeros((64, 10), np.float32)
    logits[:, 3] = 1
    assert "one class" in check_answers(logits, None)[0]
    assert check_answers(logits, np.full(64, 3)) == []
    assert check_answers(logits[:10], None) == []


def test_sets_of_one_kind_are_alike_and_others_are_not() -> None:
    """Other pictures of the same kind pass; the same pictures at a third of the brightness, and faint ones, do not."""
    model = graph(small())
    base, _ = counted(model, pictures(96, 16))
    assert check_unlike(base, counted(model, pictures(96, 16, seed=5))[0]) == []
    dark = (pictures(96, 16, seed=5) // 3).astype(np.uint8)
    faint = (pictures(96, 16, seed=5) // 8 + 110).astype(np.uint8)
    for other in (dark, faint):
        lines = check_unlike(base, counted(model, other)[0])
        assert len(lines) == 1
        assert "unlike" in lines[0]


@given(seed=st.integers(0, 99), factor=st.floats(0.2, 5))
def test_unlikeness_is_a_distance(seed: int, factor: float) -> None:
    """A set is like itself, and a scaling is seen from either side or from neither."""
    values = np.abs(np.random.default_rng(seed).standard_normal(4000)).astype(np.float32)
    first, second = {"t": filled(values)}, {"t": filled(values * np.float32(factor))}
    assert check_unlike(first, first) == []
    if not 0.85 < factor < 1.15:
        assert check_unlike(first, second)
        assert check_unlike(second, first)


def test_tensors_without_values_are_passed_over() -> None:
    """A dead tensor, or one that only one side has, is no evidence."""
    dead = {"t": filled(np.zeros(4, np.float32))}
    assert check_unlike(dead, dead) == []
    assert check_unlike({}, dead) == []
