"""methods.py: how many images are held out, the rows compared with single runs, and the rule that chooses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from exported import exported, graph, image_batch, small
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_resnet.compiler.graph.qdq import measured_tensors, quantize
from edge_resnet.core.errors import CalibrationError
from edge_resnet.core.records import QuantRecipe
from edge_resnet.core.statistics import wilson_interval
from edge_resnet.images.imageset import balanced_sample, from_arrays
from edge_resnet.quantization.calibrate import collect, table_from
from edge_resnet.quantization.histogram import AbsHistogram
from edge_resnet.quantization.methods import MIN_HELD_OUT, PERCENTILES, SweepRow, best, candidates, held_out_count, sweep
from edge_resnet.quantization.ranges import METHODS
from edge_resnet.quantization.simulate import Logits, simulate

RECIPE = QuantRecipe(method="auto", images=16, percentile=99)
HELD_OUT = image_batch(12, 16, seed=5)
Histograms = dict[str, AbsHistogram]


@pytest.fixture(scope="module")
def histograms(tmp_path_factory: pytest.TempPathFactory) -> Histograms:
    """Histograms of the smallest network over sixteen images, none of them held out."""
    path = tmp_path_factory.mktemp("sweep") / "model.onnx"
    path.write_bytes(exported(small()))
    return collect(path, measured_tensors(graph(small())), [image_batch(16, 16)], 16).histograms


def by_hand(histograms: Histograms, recipe: QuantRecipe) -> Logits:
    model = graph(small())
    return simulate(quantize(model, table_from(histograms, recipe, 16, "", ""), "tensorrt"), [HELD_OUT])


def row(agreement: float, error: float, images: int = 100) -> SweepRow:
    low, high = wilson_interval(round(agreement * images / 100), images)
    return SweepRow(QuantRecipe(), agreement, (100 * low, 100 * high), error, images)


@given(st.integers(16, 5000), st.floats(0.01, 0.99))
def test_some_are_held_out_and_some_are_left(total: int, share: float) -> None:
    """Both parts have eight images or more; the held-out part has its share, to an image, wherever it can."""
    held_out = held_out_count(total, share)
    assert MIN_HELD_OUT <= held_out <= total - MIN_HELD_OUT
    if MIN_HELD_OUT <= total * share <= total - MIN_HELD_OUT:
        assert abs(held_out - total * share) <= 0.5


def test_a_quarter_is_held_out() -> None:
    """The default: 128 of 512, and the minimum of a small set."""
    assert (held_out_count(512), held_out_count(40), held_out_count(16)) == (128, 10, 8)


@given(st.integers(16, 200), st.integers(2, 10), st.integers(0, 5))
@settings(max_examples=40)
def test_both_parts_of_a_balanced_sample_are_balanced(total: int, classes: int, seed: int) -> None:
    """The last images of a balanced sample, and those before them, have no class more than once more than another."""
    count = 200 - 200 % classes
    images = from_arrays("numbered", np.zeros((count, 1, 1, 3), np.uint8), np.arange(count) % classes)
    labels = images.subset(balanced_sample(images, total, seed)).labels
    assert labels is not None
    measured = len(labels) - held_out_count(len(labels))
    for part in (labels[:measured], labels[measured:]):
        sizes = Counter(part)
        assert max(sizes.values()) - min(sizes[label] for label in range(classes)) <= 1


@pytest.mark.parametrize("total", [0, 1, 8, 15])
def test_nothing_is_held_out_of_a_small_set(total: int) -> None:
    """Fewer than sixteen images are an error that says how many there are and which method holds out none."""
    with pytest.raises(CalibrationError, match=f"^{total} images are too few") as caught:
        held_out_count(total)
    assert "choose a method" in caught.value.hint


@given(st.floats(50.1, 100), st.sampled_from(["auto", "max", "percentile"]))
def test_candidates_are_every_method_and_the_recipes_own_percentile(percentile: float, method: str) -> None:
    """Each method occurs, percentiles rise without repetition, and the recipe's other values are kept."""
    recipe = QuantRecipe(method=method, percentile=percentile, seed=7, keep_high_precision=("conv1",))
    found = candidates(recipe)
    tried = [candidate.percentile for candidate in found if candidate.method == "percentile"]
    assert {candidate.method for candidate in found} == set(METHODS)
    assert tried == sorted({*PERCENTILES, percentile})
    assert {replace(candidate, method=method, percentile=percentile) for candidate in found} == {recipe}


def test_a_row_is_a_run_by_hand(histograms: Histograms) -> None:
    """Each row's numbers are those of its own recipe, quantized and run alone; agreement and interval are in percent."""
    model = graph(small())
    before = model.SerializeToString()
    reference = simulate(model, [HELD_OUT])
    rows = sweep(model, histograms, RECIPE, lambda: [HELD_OUT[:7], HELD_OUT[7:]], reference)
    assert model.SerializeToString() == before
    assert [found.recipe for found in rows] == candidates(RECIPE)
    for found in rows:
        logits = by_hand(histograms, found.recipe)
        hits = int((logits.argmax(axis=1) == reference.argmax(axis=1)).sum())
        assert found.images == 12
        assert found.agreement == pytest.approx(100 * hits / 12)
        assert found.ci95 == pytest.approx([100 * bound for bound in wilson_interval(hits, 12)])
        # The batches differ, and a sum in another order may move a value across a step.
        assert found.error == pytest.approx(((logits - reference) ** 2).sum() / (reference**2).sum(), rel=0.1)
    assert rows[1].error > 2 * rows[0].error, "percentile 99 clips hard"


def test_a_method_agrees_with_itself(histograms: Histograms) -> None:
    """With its own logits as the reference, a method has agreement 100 and error 0, and another method has not."""
    mse = replace(RECIPE, method="mse")
    rows = sweep(graph(small()), histograms, RECIPE, lambda: [HELD_OUT], by_hand(histograms, mse))
    found = {one.recipe: one for one in rows}
    assert (found[mse].agreement, found[mse].ci95[1], found[mse].error) == (100, 100, 0)
    assert found[replace(RECIPE, method="percentile")].error > 0
    assert best(rows).recipe == mse


def test_nodes_kept_in_high_precision_stay_so(histograms: Histograms) -> None:
    """With every node but one kept, every method comes closer to FP32 than with none kept."""
    model = graph(small())
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    others = tuple(node.name for node in model.graph.node if node.name != convolutions[1])
    reference = simulate(model, [HELD_OUT])
    all_int8 = sweep(model, histograms, RECIPE, lambda: [HELD_OUT], reference)
    one_int8 = sweep(model, histograms, replace(RECIPE, keep_high_precision=others), lambda: [HELD_OUT], reference)
    assert all(one.error < whole.error for one, whole in zip(one_int8, all_int8, strict=True))


def test_the_images_are_read_once_a_row_and_progress_is_reported(histograms: Histograms) -> None:
    """An iterator serves one row; progress starts at 0, counts the rows and ends complete."""
    asked, calls = [], []  # type: list[int], list[tuple[str, int, int]]

    def held_out() -> Iterator[npt.NDArray[np.uint8]]:
        asked.append(len(asked))
        return iter(np.split(HELD_OUT, 3))

    model: onnx.ModelProto = graph(small())
    rows = sweep(model, histograms, RECIPE, held_out, simulate(model, [HELD_OUT]), lambda *call: calls.append(call))
    assert len(asked) == len(rows) == len(candidates(RECIPE))
    assert calls == [("sweep", done, len(rows)) for done in range(len(rows) + 1)]


def test_agreement_decides_where_it_can() -> None:
    """A row below the interval of the highest agreement is not chosen, however small its logit error."""
    assert best([row(70, 0.001), row(95, 0.1)]) == row(95, 0.1)


def test_the_logits_decide_where_agreement_cannot() -> None:
    """One or two images of a hundred are no significant difference, so the smaller error is chosen; 5 % of a thousand are."""
    assert best([row(96, 0.02), row(95, 0.01)]) == row(95, 0.01)
    assert best([row(96, 0.02, 1000), row(91, 0.01, 1000)]) == row(96, 0.02, 1000)


@given(st.lists(st.builds(row, st.integers(0, 100), st.floats(0, 1)), min_size=1, max_size=8))
def test_nothing_better_is_skipped(rows: list[SweepRow]) -> None:
    """The choice is one of the rows; no other has a significantly higher agreement, or a similar one and a smaller error."""
    chosen = best(rows)
    highest = max(rows, key=lambda one: one.agreement)
    floor = min(highest.agreement, highest.ci95[0])
    assert chosen in rows
    assert chosen.agreement >= floor
    assert all(one.error >= chosen.error for one in rows if one.agreement >= floor)


@pytest.mark.slow
def test_methods_on_cifar_10(real_data: Path, tmp_path: Path) -> None:
    """On a trained ResNet-20 and 400 real images held out, the choice agrees with FP32 on 98 % and beats clipping 0.1 %."""
    from PIL import Image

    from edge_resnet.core.records import ModelSpec, Preprocess
    from edge_resnet.network import build_network, load_weights
    from edge_resnet.network.export import Deployable, export

    spec = ModelSpec("cifar", 20, "A", classes=10, input_size=32)
    network = build_network(spec)
    load_weights(network, spec, str(real_data / "weights" / "cifar10" / "resnet20-12fca82f.th"))
    export(Deployable(network, Preprocess()), 32, tmp_path / "model.onnx")
    sheet = np.asarray(Image.open(real_data / "cifar10" / "train_00.webp"))
    tiles = np.ascontiguousarray(sheet.reshape(25, 32, 40, 32, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3))
    model = onnx.load(tmp_path / "model.onnx")
    histograms = collect(tmp_path / "model.onnx", measured_tensors(model), np.split(tiles[:600], 60), 600).histograms
    held_out = np.split(tiles[600:], 8)
    rows = sweep(model, histograms, QuantRecipe(), lambda: held_out, simulate(model, held_out))
    chosen, tight = best(rows), next(one for one in rows if one.recipe.percentile == 99.9)
    assert chosen.agreement >= 98
    assert chosen.error < tight.error / 4
