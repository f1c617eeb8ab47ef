"""recipes.py: the recipes that ship, and files that say what no recipe can."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import get_args

import pytest

from edge_resnet.datasets import NAMES
from edge_resnet.errors import ConfigError
from edge_resnet.quantization import recipes
from edge_resnet.quantization.histogram import METHODS
from edge_resnet.quantization.recipes import load_recipe
from edge_resnet.spec import Family, QuantRecipe


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cifar.toml that stands in for the shipped one."""
    (tmp_path / "recipes").mkdir()
    monkeypatch.setattr(recipes.resources, "files", lambda _: tmp_path)
    return tmp_path / "recipes" / "cifar.toml"


def test_every_family_has_a_recipe_and_every_recipe_a_family() -> None:
    """The shipped files are the families, one each."""
    shipped = (resources.files("edge_resnet.calibration") / "recipes").iterdir()
    assert sorted(file.name for file in shipped) == sorted(f"{family}.toml" for family in get_args(Family))


@pytest.mark.parametrize("family", get_args(Family))
def test_the_shipped_recipes_can_be_followed(family: Family) -> None:
    """Each names data that can be opened, a method that exists and enough pictures to be worth the name."""
    named = load_recipe(family)
    assert named.data in NAMES
    assert named.recipe.method in METHODS
    assert named.recipe.images >= 256


def test_a_file_becomes_the_record(written: Path) -> None:
    """Every key of a recipe is read, with the types that the record has; what is left out takes the default."""
    written.write_text('data = "photos"\nmethod = "max"\nimages = 7\nkeep_high_precision = ["conv1", "fc"]\n')
    assert load_recipe("cifar").data == "photos"
    assert load_recipe("cifar").recipe == QuantRecipe(method="max", images=7, keep_high_precision=("conv1", "fc"))
    assert hash(load_recipe("cifar").recipe)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('data = "x"\nmethods = "max"', "methods"),
        ('method = "max"', "data"),
        ('data = "x"\nmethod = "mean"', "mean"),
        ('data = "x"\nimages = 0', "image"),
        ('data = "x"\npercentile = 0.9999', "percentile"),
    ],
    ids=["unknown key", "no data", "unknown method", "no images", "a share for a percentile"],
)
def test_a_file_that_makes_no_sense_is_refused(written: Path, text: str, named: str) -> None:
    """An unknown key, a missing one and a value out of range raise an error that names it."""
    written.write_text(text)
    with pytest.raises(ConfigError, match=named):
        load_recipe("cifar")
