"""pipeline.py: the steps in order on small networks: corrections, budgets, broken networks, the sweep."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from exported import graph, image_batch, logits, small
from rescaled import rescaled

from edge_resnet.artifact.folder import open_artifact
from edge_resnet.compiler.graph.corrections import EXACT_AMAX, SHIFTED, Corrections, apply
from edge_resnet.compiler.graph.qdq import measured_tensors, quantize
from edge_resnet.core.errors import CalibrationError
from edge_resnet.core.files import sha256_of
from edge_resnet.core.records import Correction, QuantRecipe
from edge_resnet.images.calibration import prepare_calibration_images
from edge_resnet.images.imagecache import ImageCache
from edge_resnet.images.imageset import from_arrays
from edge_resnet.quantization.equalize import balance
from edge_resnet.quantization.pipeline import Int8, Validation, make_int8, sweep_artifact

PLAIN = QuantRecipe(method="mse", images=64)
LEARNED = replace(PLAIN, correction="learned", epochs=3)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageCache]:
    """Sixty-four smooth images."""
    with ImageCache(iter([image_batch(64, 16)]), tmp_path_factory.mktemp("images")) as made:
        yield made


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest network as a file."""
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    onnx.save(graph(small()), path)
    return path


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same function with channels scaled by up to 3000, which plain ranges do not handle."""
    path = tmp_path_factory.mktemp("broken") / "model.onnx"
    onnx.save(rescaled(graph(small()), 3000), path)
    return path


def error(path: Path, made: Int8, batch: npt.NDArray[np.uint8]) -> float:
    """Squared error of the simulated INT8's logits over their variance."""
    wanted = logits(path, batch)
    found = logits(made.simulated(onnx.load(path)), batch)
    wanted, found = (value - value.mean(1, keepdims=True) for value in (wanted, found))
    return float(((found - wanted) ** 2).sum() / (wanted**2).sum())


@pytest.mark.parametrize("correction", ["none", "bias", "learned"])
@pytest.mark.parametrize("exact", [False, True])
def test_the_table_and_corrections_fit_the_graph(saved: Path, images: ImageCache, correction: Correction, exact: bool) -> None:
    """Every correction gives ranges for all tensors that a form quantizes, both forms are derived, and the digests are right."""
    recipe = replace(PLAIN, correction=correction, exact_input=exact, epochs=1)
    made = make_int8(saved, images, recipe)
    corrected = apply(onnx.load(saved), made.corrections)
    assert set(made.table.amax) == set(measured_tensors(corrected))
    assert made.table.model_digest == sha256_of(saved)
    assert made.table.images_digest == images.digest
    assert (made.corrections is None) == (correction == "none" and not exact)
    if exact:
        assert made.table.amax[SHIFTED] == pytest.approx(EXACT_AMAX, rel=1e-6)
    assert error(saved, made, image_batch(16, 16, seed=5)) < 0.02
    quantize(onnx.load(saved), made.table, "u8s8", made.corrections)


def test_each_correction_loses_less(saved: Path, images: ImageCache) -> None:
    """On unseen images learned is better than none, and bias is no worse."""
    unseen = image_batch(64, 16, seed=77)
    errors = {
        kind: error(saved, make_int8(saved, images, replace(LEARNED, correction=kind)), unseen)
        for kind in ("none", "bias", "learned")
    }
    assert errors["learned"] < 0.8 * errors["none"]
    assert errors["bias"] < 1.05 * errors["none"]


def test_auto_records_the_method_it_chose(saved: Path, images: ImageCache) -> None:
    """The table's recipe names the method that was chosen."""
    made = make_int8(saved, images, replace(PLAIN, method="auto"))
    assert made.table.recipe.method in ("max", "percentile", "mse", "entropy")


def test_a_kept_node_stays_float(saved: Path, images: ImageCache) -> None:
    """A node that the recipe keeps has no pair and no integers; its weights are FP32's, equalized with its neighbours'."""
    made = make_int8(saved, images, replace(LEARNED, keep_high_precision=("layer2.0.conv1",), epochs=1))
    assert made.corrections is not None
    assert "layer2.0.conv1" not in made.corrections.integers
    quantized = quantize(onnx.load(saved), made.table, "tensorrt", made.corrections)
    node = next(entry for entry in quantized.graph.node if entry.name == "layer2.0.conv1")
    assert not any(name.endswith(".dq") for name in node.input)


def test_equalization_repairs_what_scaling_broke(broken: Path, images: ImageCache) -> None:
    """Plain ranges lose the function; the chosen equalization restores it before anything is learned."""
    unseen = image_batch(32, 16, seed=5)
    assert error(broken, make_int8(broken, images, PLAIN), unseen) > 0.05
    model = onnx.load(broken)
    equalized = balance(model, images, LEARNED)
    assert equalized.floats
    np.testing.assert_allclose(logits(apply(model, equalized), unseen), logits(model, unseen), atol=1e-2)
    assert error(broken, make_int8(broken, images, replace(LEARNED, epochs=1)), unseen) < 0.02


@contextmanager
def validation(path: Path, folder: Path, max_drop: float) -> Iterator[Validation]:
    """Four hundred images whose labels are FP32's answers, except for one in ten."""
    batch = image_batch(400, 16, seed=11)
    labels = logits(path, batch).argmax(1)
    labels[::10] = (labels[::10] + 1) % 10
    with ImageCache(iter([batch]), folder) as images:
        yield Validation(images, labels.astype(np.int64), max_drop)


def test_a_budget_keeps_the_damaging_nodes(broken: Path, images: ImageCache, tmp_path: Path) -> None:
    """Without correction the broken network misses the budget; few nodes are kept, and the result meets it."""
    with validation(broken, tmp_path, 100.0) as anything:
        plain = make_int8(broken, images, PLAIN, anything)
    assert plain.budget is not None
    assert plain.budget.drop > 2
    with validation(broken, tmp_path, 1.0) as strict:
        made = make_int8(broken, images, PLAIN, strict)
    assert made.budget is not None
    assert made.budget.drop <= 1.0
    assert 0 < len(made.budget.kept) <= 6
    assert set(made.budget.kept) <= {f"layer{stage}.0.conv{n}" for stage in (1, 2, 3) for n in (1, 2)}
    assert made.table.recipe.keep_high_precision == made.budget.kept
    found = logits(quantize(onnx.load(broken), made.table, "tensorrt", made.corrections), image_batch(400, 16, seed=11))
    assert 100 * float((found.argmax(1) == strict.labels).mean()) == pytest.approx(made.budget.int8_top1, abs=0.3)


def test_a_budget_that_is_met_costs_nothing(broken: Path, images: ImageCache, tmp_path: Path) -> None:
    """With correction the network that lost 84 points meets the budget with every layer in INT8 and without a ranking."""
    with validation(broken, tmp_path, 5.0) as wanted:
        made = make_int8(broken, images, LEARNED, wanted)
    assert made.budget is not None
    assert made.budget.kept == ()
    assert made.budget.ranking == ()
    assert made.table.recipe.keep_high_precision == ()


def test_a_network_without_a_convolution_is_refused(tmp_path: Path, images: ImageCache) -> None:
    """There is nothing to quantize, and the error says so."""
    nodes = [
        onnx.helper.make_node("Cast", ["images"], ["cast"], name="cast", to=1),
        onnx.helper.make_node("Flatten", ["cast"], ["logits"], name="flatten"),
    ]
    inputs = [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["n", 16, 16, 3])]
    outputs = [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", 768])]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "none", inputs, outputs), opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(model, tmp_path / "model.onnx")
    for recipe in (PLAIN, LEARNED, replace(PLAIN, correction="bias")):
        with pytest.raises(CalibrationError, match="no convolution"):
            make_int8(tmp_path / "model.onnx", images, recipe)


def test_the_sweep_of_an_artifact_has_every_method(tiny_int8: Path) -> None:
    """Max, percentiles, mse and entropy, compared on a held-out quarter of the images."""
    artifact = open_artifact(tiny_int8)
    source = from_arrays("smooth", image_batch(64, 32), None, [])
    with prepare_calibration_images(source, artifact.manifest.preprocess) as prepared:
        rows = sweep_artifact(artifact, prepared, PLAIN)
    assert {row.recipe.method for row in rows} == {"max", "percentile", "mse", "entropy"}
    assert {row.images for row in rows} == {16}


def test_nothing_to_correct_is_no_record() -> None:
    """An empty record changes nothing."""
    model = graph(small())
    assert apply(model, Corrections()).SerializeToString() == model.SerializeToString()
