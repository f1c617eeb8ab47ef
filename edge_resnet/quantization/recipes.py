"""The INT8 recipes that ship as data in ``calibration/recipes``: read and checked. Knows nothing of images or graphs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import resources
from typing import Any

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
    """The recipe for a family of networks. Raises ConfigError where the file says what no recipe can."""
    text = (resources.files("edge_resnet.calibration") / "recipes" / f"{family}.toml").read_text(encoding="utf-8")
    values: dict[str, Any] = tomllib.loads(text)
    if "keep_high_precision" in values:
        values["keep_high_precision"] = tuple(values["keep_high_precision"])
    try:
        data = values.pop("data")
        return NamedRecipe(data, QuantRecipe(**values))
    except (KeyError, TypeError) as error:
        raise ConfigError(f"recipe {family}: {error}") from error
