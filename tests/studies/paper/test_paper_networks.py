"""Networks by the paper's names, loaded with weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.core.errors import ConfigError, DataError, WeightsError
from edge_resnet.core.records import ModelSpec, Preprocess
from edge_resnet.studies.paper.networks import FINISHED, named_spec, open_networks, printed_name, probabilities

LIKE = ModelSpec("cifar", 20, "A", classes=10, input_size=32)
IMAGENET = ModelSpec("imagenet", 18, "B", classes=5, input_size=32)
Save = Callable[..., Path]


@given(st.booleans(), st.sampled_from([8, 20, 56, 110]), st.sampled_from("ABC"))
def test_a_printed_name_is_read_back(plain: bool, depth: int, option: str) -> None:
    """The printed name with its option gives the same network again; a plain one has no option."""
    spec = replace(LIKE, plain=plain, depth=depth, shortcut=option)
    assert named_spec(printed_name(spec, option=True), replace(LIKE, shortcut=option)) == spec


@pytest.mark.parametrize(
    ("text", "depth", "plain", "option"),
    [("20", 20, False, "A"), ("plain20", 20, True, "A"), ("resnet-56-c", 56, False, "C"), ("ResNet-32 B", 32, False, "B")],
)
def test_names_as_people_write_them(text: str, depth: int, plain: bool, option: str) -> None:
    """A bare depth, without hyphens, in any case, with an option."""
    spec = named_spec(text, LIKE)
    assert (spec.depth, spec.plain, spec.shortcut) == (depth, plain, option)


@pytest.mark.parametrize("text", ["", "vgg-16", "resnet", "20-D", "21"])
def test_other_names_are_refused(text: str) -> None:
    """No network, no such option, no such depth: ConfigError with a hint."""
    with pytest.raises(ConfigError) as refused:
        named_spec(text, LIKE)
    assert refused.value.hint


def test_weights_by_name(weights: Save) -> None:
    """Each NAME=FILE gives a network in eval mode whose id is the file's hash."""
    eight, fourteen = (replace(LIKE, depth=depth) for depth in (8, 14))
    networks = open_networks([f"8={weights(eight)}", f"14={weights(fourteen)}"], LIKE)
    assert [network.name for network in networks] == ["ResNet-8", "ResNet-14"]
    assert all(network.weights.startswith("sha256:") and not network.module.training for network in networks)


def test_the_same_name_twice(weights: Save) -> None:
    """Two networks of one depth are distinguished by their option if it differs, else by a number."""
    a, b = replace(LIKE, depth=8), replace(LIKE, depth=8, shortcut="B")
    options = open_networks([f"8={weights(a)}", f"8-B={weights(b)}"], LIKE)
    assert [network.name for network in options] == ["ResNet-8 A", "ResNet-8 B"]
    numbers = open_networks([f"8={weights(a)}", f"8={weights(a, 1)}"], LIKE)
    assert [network.name for network in numbers] == ["ResNet-8", "ResNet-8 #2"]


def test_what_cannot_be_opened(weights: Save, tmp_path: Path) -> None:
    """No weights, no file, weights of another depth, a folder without networks: each is an error that names it."""
    file = weights(replace(LIKE, depth=14))
    for named, error, message in (
        ([], ConfigError, "no weights"),
        ([str(file)], ConfigError, str(file)),
        (["8="], ConfigError, "8="),
        ([f"8={file}"], WeightsError, "do not fit"),
    ):
        with pytest.raises(error, match=message):
            open_networks(named, LIKE)
    with pytest.raises(WeightsError) as wrong:
        open_networks([f"8={file}"], LIKE)
    assert "--depth 14" in wrong.value.hint
    with pytest.raises(DataError, match="no finished network"):
        open_networks([], LIKE, source=tmp_path)


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    """A truncated network.json is a DataError that names the file."""
    path = tmp_path / "networks" / "resnet-8" / FINISHED
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"spec": asdict(LIKE)})[:20], encoding="utf-8")
    with pytest.raises(DataError, match=FINISHED):
        open_networks([], LIKE, source=tmp_path)


def test_probabilities_sum_to_one(weights: Save) -> None:
    """For images of any size that the network accepts, each row is a distribution."""
    spec = replace(IMAGENET, depth=18)
    network = open_networks([f"18={weights(spec)}"], IMAGENET)[0]
    rng = np.random.default_rng(0)
    for shape in ((3, 32, 32, 3), (1, 40, 65, 3)):
        answers = probabilities(network.module, rng.integers(0, 256, shape, dtype=np.uint8), Preprocess(32, 32))
        assert answers.shape == (shape[0], 5)
        assert answers.sum(axis=1) == pytest.approx(1, abs=1e-5)
