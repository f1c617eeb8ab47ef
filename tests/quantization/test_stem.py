"""stem.py: what reads the first convolution's output is found through Relu and MaxPool, and kept only where it is cheap."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from exported import graph, image_batch, small

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import ModelSpec, QuantRecipe
from edge_resnet.images.imagecache import ImageCache
from edge_resnet.network.zoo import measure
from edge_resnet.quantization import stem
from edge_resnet.quantization.pipeline import make_int8
from edge_resnet.quantization.recipes import load_recipe
from edge_resnet.quantization.stem import cheap_stem_readers

BOTTLENECKS = ModelSpec("imagenet", 50, input_size=64)


def test_what_reads_the_stem_is_found_through_pooling() -> None:
    """The first block's convolutions and the MaxPool in front of them; an Add that reads the same tensor is none of them."""
    assert cheap_stem_readers(graph(small()), 100) == ("layer1.0.conv1",)
    assert cheap_stem_readers(graph(BOTTLENECKS), 100) == ("maxpool", "layer1.0.conv1", "layer1.0.downsample.0")


def test_a_first_block_that_costs_more_than_its_share_is_quantized() -> None:
    """The limit is the share of the multiply-adds, and 0 keeps nothing."""
    model = graph(BOTTLENECKS)
    costs = stem._multiply_adds(model)
    share = 100 * (costs["layer1.0.conv1"] + costs["layer1.0.downsample.0"]) / sum(costs.values())
    assert cheap_stem_readers(model, math.nextafter(share, 0)) == ()
    assert cheap_stem_readers(model, share) != ()
    assert cheap_stem_readers(model, 0) == ()


def test_multiply_adds_are_those_of_the_network() -> None:
    """Counted in the graph as in the torch model."""
    assert sum(stem._multiply_adds(graph(BOTTLENECKS)).values()) == measure(BOTTLENECKS).multiply_adds


@pytest.mark.parametrize(
    ("recipe", "spec", "kept"),
    [
        ("cifar10", ModelSpec("cifar", 20), True),
        ("cifar10", ModelSpec("cifar", 20, plain=True), True),
        ("cifar10", ModelSpec("cifar", 56, "B"), True),
        ("imagenet", ModelSpec("imagenet", 18), False),
    ],
)
def test_the_shipped_recipes_keep_it_where_it_is_cheap(recipe: str, spec: ModelSpec, kept: bool) -> None:
    """On CIFAR, with every depth; on ImageNet it would cost ONNX Runtime a tenth of the time or more."""
    assert bool(cheap_stem_readers(graph(spec), load_recipe(recipe).recipe.stem_share)) is kept


def test_the_artifact_names_what_is_kept(tmp_path: Path) -> None:
    """The recipe of the table has the names beside the user's own, so that every form leaves them in high precision."""
    onnx.save(graph(small()), tmp_path / "model.onnx")
    recipe = QuantRecipe(images=32, stem_share=100, keep_high_precision=("layer3.0.conv2",))
    with ImageCache(iter([image_batch(32, 16)]), tmp_path) as images:
        made = make_int8(tmp_path / "model.onnx", images, recipe)
    assert made.table.recipe.keep_high_precision == ("layer3.0.conv2", "layer1.0.conv1")
    nodes = {node.name: node for node in made.simulated(graph(small())).graph.node}
    assert not nodes["layer1.0.conv1"].input[0].endswith(".dq")
    assert nodes["layer1.0.conv2"].input[0].endswith(".dq")


@pytest.mark.parametrize("share", [-1.0, 101.0, np.nan])
def test_a_share_is_a_percentage(share: float) -> None:
    """Anything else is refused."""
    with pytest.raises(ConfigError, match="stem_share must lie"):
        QuantRecipe(stem_share=share)
