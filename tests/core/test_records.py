"""The records: what they refuse, that they are frozen, and that they survive JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from edge_resnet.artifact import schema
from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.core import records as spec
from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import (
    FAMILIES,
    BatchProfile,
    Family,
    Interpolation,
    ModelSpec,
    Precision,
    Preprocess,
    QuantRecipe,
    Shortcut,
    default_spec,
)

SHARES = st.floats(0.01, 1, allow_nan=False)
TRIPLES = st.tuples(SHARES, SHARES, SHARES)
PREPROCESSES = st.integers(1, 4096).flatmap(
    lambda crop: st.builds(Preprocess, resize=st.integers(crop, 8192), crop=st.just(crop), mean=TRIPLES, std=TRIPLES)
)
MODELS = st.one_of(
    st.builds(ModelSpec, family=st.just("imagenet"), depth=st.sampled_from([18, 34, 50, 101, 152]), classes=st.integers(2, 5000)),
    st.builds(
        ModelSpec,
        family=st.just("cifar"),
        depth=st.integers(1, 200).map(lambda n: 6 * n + 2),
        shortcut=st.sampled_from(get_args(Shortcut)),
        plain=st.booleans(),
    ),
)
RECIPES = st.builds(
    QuantRecipe,
    method=st.sampled_from(["max", "percentile"]),
    images=st.integers(1, 10_000),
    seed=st.integers(0, 2**31),
    percentile=st.floats(50, 100, exclude_min=True),
    keep_high_precision=st.lists(st.text(), max_size=3).map(tuple),
)


@given(record=st.one_of(PREPROCESSES, MODELS, RECIPES))
def test_json_brings_a_record_back(record: Any) -> None:
    """A record that is written and read is equal, including tuples and floats."""
    adapter = TypeAdapter(type(record))
    assert adapter.validate_json(json.dumps(asdict(record))) == record


@pytest.mark.parametrize(
    "make",
    [
        lambda: Preprocess(crop=0),
        lambda: Preprocess(resize=100, crop=224),
        lambda: Preprocess(resize=10_000, crop=224),
        lambda: Preprocess(mean=(123.7, 116.3, 103.5)),
        lambda: Preprocess(std=(0.0, 0.2, 0.2)),
        lambda: Preprocess(std=(58.4, 57.1, 57.4)),
        lambda: ModelSpec(depth=51),
        lambda: ModelSpec(family="cifar", depth=21),
        lambda: ModelSpec(family="cifar", depth=2),
        lambda: ModelSpec(classes=1),
        lambda: ModelSpec(input_size=4),
        lambda: QuantRecipe(images=0),
        lambda: QuantRecipe(percentile=100.1),
        lambda: QuantRecipe(percentile=50),
        lambda: QuantRecipe(percentile=-1),
        lambda: BatchProfile(0, 1, 1),
        lambda: BatchProfile(1, 8, 4),
        lambda: BatchProfile(1, 1, 2**31),
        lambda: BatchProfile(4, 2, 8),
    ],
)
def test_nonsense_is_refused_with_a_hint(make: Any) -> None:
    """An invalid value raises ConfigError with a hint when the record is created."""
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.hint


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_a_table_holds_only_ranges(value: float) -> None:
    """A range that is not positive and finite is refused, and the tensor is named."""
    with pytest.raises(ConfigError, match=r"layer1\.0\.relu"):
        CalibrationTable({"input": 1.0, "layer1.0.relu": value}, (), QuantRecipe(), 1, "", "")


@pytest.mark.parametrize("field", ["family", "depth", "shortcut", "plain"])
def test_json_of_the_wrong_type_is_refused(field: str) -> None:
    """A value of another type or outside the known values is refused."""
    values = {**asdict(ModelSpec()), field: "nonsense"}
    with pytest.raises(ValidationError):
        TypeAdapter(ModelSpec).validate_json(json.dumps(values))


def test_records_are_frozen() -> None:
    """Every record of the module is a frozen dataclass."""
    records = [
        value for module in (spec, schema) for name in module.__all__ if dataclasses.is_dataclass(value := getattr(module, name))
    ]
    assert len(records) >= 9
    assert all(record.__dataclass_params__.frozen for record in records)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (ModelSpec(depth=50), "resnet50"),
        (ModelSpec(depth=34, plain=True), "plain34"),
        (ModelSpec("cifar", 20), "resnet20-cifar"),
        (ModelSpec("cifar", 56, plain=True), "plain56-cifar"),
    ],
)
def test_names_are_the_literatures(model: ModelSpec, name: str) -> None:
    """A network has the name that papers use."""
    assert model.name == name


def test_the_words_are_the_documented_ones() -> None:
    """Precisions, families and shortcut options are those of the command line."""
    assert get_args(Precision) == ("fp32", "fp16", "int8")
    assert get_args(Family) == ("imagenet", "cifar", "small")
    assert get_args(Interpolation) == ("bilinear", "bicubic")
    assert get_args(Shortcut) == ("A", "B", "C")


@pytest.mark.parametrize(
    ("family", "size", "short_side"),
    [("imagenet", 224, 256), ("imagenet", 288, 329), ("imagenet", 64, 73), ("cifar", 32, 32), ("cifar", 40, 40)],
)
def test_a_family_knows_its_preprocessing(family: Family, size: int, short_side: int) -> None:
    """An ImageNet crop is 224 of 256 at any size; a CIFAR image is taken whole."""
    assert FAMILIES[family].resize(size) == short_side


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (default_spec("imagenet", 50), ModelSpec("imagenet", 50, "B", classes=1000, input_size=224)),
        (default_spec("cifar", 20), ModelSpec("cifar", 20, "A", classes=10, input_size=32)),
    ],
)
def test_the_papers_networks(model: ModelSpec, expected: ModelSpec) -> None:
    """The shortcut, the classes and the input of each family are the paper's, and each of its depths is accepted."""
    assert model == expected
    for depth in FAMILIES[model.family].depths:
        assert default_spec(model.family, depth).depth == depth
