"""blame.py: the layers that were broken are found and named, and a remedy is promised only if it was seen to work."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from exported import graph, image_batch, small
from hypothesis import given
from hypothesis import strategies as st
from rescaled import rescaled

from edge_resnet.compiler.graph.placement import quantized_weights
from edge_resnet.compiler.graph.qdq import measured_tensors, quantize
from edge_resnet.core.records import QuantRecipe
from edge_resnet.quantization.blame import (
    Agreement,
    Blame,
    Disagreement,
    LayerDamage,
    agreement_of,
    blame_layers,
    unheld_warning,
    wanted_agreement,
)
from edge_resnet.quantization.calibrate import collect, table_from
from edge_resnet.quantization.simulate import simulate

Floats = npt.NDArray[np.float32]


def noisy(damages: Sequence[float], images: int = 200) -> Disagreement:
    """A network whose layer i, quantized, adds noise of the size damages[i] to the logits, which lie a unit apart."""
    rng = np.random.default_rng(0)
    reference = rng.permuted(np.tile(np.arange(10, dtype=np.float32), (images, 1)), axis=1)
    noise = rng.standard_normal((len(damages), images, 10)).astype(np.float32)
    names = tuple(f"layer{index}" for index in range(len(damages)))

    def logits(keep: frozenset[str], positions: Sequence[int]) -> Floats:
        chosen = list(positions)
        added = [size * noise[index, chosen] for index, size in enumerate(damages) if names[index] not in keep]
        return np.sum([reference[chosen], *added], axis=0, dtype=np.float32)

    return Disagreement(names, reference, logits)


def test_the_broken_block_of_a_real_graph_is_blamed() -> None:
    """Of a network with one block scaled apart, the layer that reads the scaled tensor makes nearly all of the damage."""
    model, images = rescaled(graph(small()), 3000, ("layer2.0",)), image_batch(48, 16)
    counted = collect(model, measured_tensors(model), [images], len(images))
    table = table_from(counted.histograms, QuantRecipe(method="mse"), counted.images, "", "")

    def logits(keep: frozenset[str], positions: Sequence[int]) -> Floats:
        kept = replace(table.recipe, keep_high_precision=tuple(keep))
        return simulate(quantize(model, replace(table, recipe=kept), "tensorrt"), [images[list(positions)]])

    found = blame_layers(Disagreement(tuple(quantized_weights(model)), simulate(model, [images]), logits), 100.0)
    assert found.layers[0].node == "layer2.0.conv2"
    assert found.layers[0].share > 0.8
    assert found.kept[:1] == ("layer2.0.conv2",)


@given(guilty=st.sets(st.integers(0, 11), min_size=1, max_size=3))
def test_the_layers_with_the_noise_come_first_and_no_more_are_kept_than_twice_their_number(guilty: set[int]) -> None:
    """With k broken layers of twelve, these k are the first, and 1, 2 or 4 kept layers bring the agreement back."""
    found = blame_layers(noisy([3.0 if index in guilty else 0.01 for index in range(12)]), 99.0)
    assert {layer.node for layer in found.layers[: len(guilty)]} == {f"layer{index}" for index in guilty}
    assert found.agreement.percent >= 99
    assert len(guilty) <= len(found.kept) < 2 * len(guilty)


def test_where_all_layers_are_bad_no_remedy_is_found() -> None:
    """Half of the layers are tried in high precision at most, and the agreement that is told is the best seen."""
    problem = noisy([3.0] * 8)
    found = blame_layers(problem, 99.0)
    assert len(found.kept) <= 4
    assert found.agreement.percent < 99
    assert found.agreement == agreement_of(problem.reference, problem.logits(frozenset(found.kept), range(200)))


def test_a_shift_of_all_logits_is_no_damage() -> None:
    """A layer that adds the same to every class changes no answer and is blamed for nothing."""
    problem = noisy([0.5, 0.5])

    def shifted(inner: Callable[[frozenset[str], Sequence[int]], Floats], keep: frozenset[str], at: Sequence[int]) -> Floats:
        return inner(keep - {"shift"}, at) + np.float32(0 if "shift" in keep else 100)

    logits = problem.logits
    found = blame_layers(
        Disagreement(("shift", *problem.nodes), problem.reference, lambda keep, at: shifted(logits, keep, at)), 99.0
    )
    assert found.layers[-1].node == "shift"
    assert found.layers[-1].share < 1e-6


def test_answers_that_are_not_finite_differ() -> None:
    """An image whose logits hold a NaN is not classified as FP32 does it, whatever argmax says."""
    reference = np.eye(4, dtype=np.float32)
    broken = reference.copy()
    broken[2, 0] = np.nan
    assert agreement_of(reference, broken) == Agreement(3, 4)


def test_what_is_usual_is_silent() -> None:
    """No warning at or above the wanted agreement; ten classes are held to more than a thousand."""
    assert unheld_warning(Agreement(99, 100), 99.0) == []
    assert wanted_agreement(10) > wanted_agreement(1000)


def test_few_images_promise_nothing() -> None:
    """Where the interval reaches the wanted agreement, no layer is accused: more images are asked for."""
    layers = (LayerDamage("conv1", 1.0),)
    (line,) = unheld_warning(Agreement(98, 100), 99.0, Blame(layers, ("conv1",), Agreement(100, 100)))
    assert "eval --simulate-int8" in line
    assert "conv1" not in line


@pytest.mark.parametrize(("restored", "remedy"), [(250, "--max-drop"), (200, "--fp16")])
def test_the_remedy_is_the_one_that_was_seen_to_work(restored: int, remedy: str) -> None:
    """Layers in high precision are advised only where they restore the agreement; the line says what they gave."""
    layers = (LayerDamage("layer1.0.conv2", 0.6), LayerDamage("conv1", 0.3), LayerDamage("fc", 0.1))
    (line,) = unheld_warning(Agreement(150, 250), 96.0, Blame(layers, ("layer1.0.conv2",), Agreement(restored, 250)))
    assert "most of the error comes from layer1.0.conv2 (60 %);" in line
    assert f"with 1 of 3 layers in high precision it is {100 * restored / 250:.1f} %" in line
    assert set(re.findall(r"--[a-z0-9-]+", line)) == {remedy, "--qat"}
    assert "\n" not in line


def test_a_quick_build_is_told_what_it_left_out_first() -> None:
    """The first remedy of a build that left something out is to build without that option."""
    (line,) = unheld_warning(Agreement(150, 250), 96.0, quick="--quick")
    assert line.index("without --quick") < line.index("--max-drop")
