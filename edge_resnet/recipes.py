"""The INT8 recipes that ship as data in ``calibration/recipes``: read and checked. Knows nothing of images or graphs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import resources

from edge_resnet.errors import ConfigError
from edge_resnet.spec import Family, QuantRecipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["NamedRecipe", "load_recipe"]


@dataclass(frozen=True)
class NamedRecipe:
    """A recipe and the ``data`` (a name or a path) to calibrate on where the user gives none."""

    data: str
    recipe: QuantRecipe


def load_recipe(family: Family) -> NamedRecipe:
    """The recipe for a family of networks. Raises ConfigError where the file has a key that no recipe knows."""
    text = (resources.files("edge_resnet.calibration") / "recipes" / f"{family}.toml").read_text(encoding="utf-8")
    values = tomllib.loads(text)
    data = values.pop("data")
    try:
        return NamedRecipe(data, QuantRecipe(**values))
    except TypeError as error:
        raise ConfigError(f"recipe {family}: {error}") from error
