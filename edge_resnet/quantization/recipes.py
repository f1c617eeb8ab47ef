"""INT8 recipes: TOML files that ship in ``calibration/recipes`` or are the user's own, read and checked key by key.

Does not know about images or graphs.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.files import read_bounded
from edge_resnet.core.records import FAMILIES, CalibMethod, Correction, Family, QuantRecipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["NamedRecipe", "RecipeOverrides", "available_recipes", "load_recipe", "overridden", "overridden_recipe", "recipe_for"]

_SUFFIX = ".toml"
#: The recipe of networks of other makers.
_OWN = "own"
#: A recipe has a few hundred bytes.
_MAX_BYTES = 1 << 20
_TEXTS: Mapping[str, Any] = MappingProxyType({"data": str, "description": str})
_FIELDS: Mapping[str, Any] = MappingProxyType({**_TEXTS, **get_type_hints(QuantRecipe)})


@dataclass(frozen=True)
class NamedRecipe:
    """A recipe, the default ``data`` to calibrate on (a name or a path), and one line about its purpose.

    ``data`` is None if the user must choose the images.
    """

    name: str
    data: str | None
    recipe: QuantRecipe
    description: str = ""


@dataclass(frozen=True)
class RecipeOverrides:
    """The user's values that replace a recipe's own; None keeps the recipe's."""

    method: CalibMethod | None = None
    images: int | None = None
    percentile: float | None = None
    seed: int | None = None
    correction: Correction | None = None


def recipe_for(family: Family | None) -> str:
    """The name of the default recipe of a family of networks; None is a foreign network."""
    return _OWN if family is None else FAMILIES[family].recipe


def available_recipes() -> tuple[NamedRecipe, ...]:
    """The shipped recipes, sorted by name."""
    return tuple(load_recipe(name) for name in _shipped())


def load_recipe(name_or_path: str) -> NamedRecipe:
    """The shipped recipe of that name, or the one in a file whose path ends in ``.toml``.

    If a file's ``data`` exists relative to the file, that is used, wherever the command runs. Raises ConfigError with the file
    and the key for an unknown key, a value of another type or out of range, invalid TOML, a missing file, or an unknown name.
    """
    if name_or_path in _shipped():
        file = resources.files("edge_resnet.calibration") / "recipes" / f"{name_or_path}{_SUFFIX}"
        return _parsed(name_or_path, f"{name_or_path}{_SUFFIX}", file.read_bytes())
    path = Path(name_or_path)
    if path.suffix.lower() != _SUFFIX:
        raise ConfigError(f"no recipe is called {name_or_path!r}", hint=_suggestion(name_or_path))
    try:
        content = read_bounded(path, _MAX_BYTES, regular=True)
    except OSError as error:
        hint = _suggestion(path.stem) if isinstance(error, FileNotFoundError) else "use the name of a recipe, or its .toml file"
        raise ConfigError(f"recipe {path} cannot be read: {error.strerror}", hint=hint) from error
    named = _parsed(path.stem, str(path), content)
    if named.data is None or not (path.parent / named.data).exists():
        return named
    return replace(named, data=str(path.parent / named.data))


def overridden(recipe: QuantRecipe, overrides: RecipeOverrides) -> QuantRecipe:
    """The recipe with the user's values in place of its own; a percentile alone also chooses the method ``percentile``.

    Raises ConfigError for a value out of range, and for a percentile together with another method.
    """
    given: dict[str, Any] = {key: value for key, value in asdict(overrides).items() if value is not None}
    if "percentile" in given and given.setdefault("method", "percentile") != "percentile":
        raise ConfigError(f"--percentile has no meaning with --calib-method {given['method']}", hint="leave one of them out")
    return replace(recipe, **given)


def overridden_recipe(name: str | None, family: Family | None, overrides: RecipeOverrides | None = None) -> NamedRecipe:
    """The recipe of that name or file, else the family's, with ``overrides`` of its values."""
    named = load_recipe(name or recipe_for(family))
    return replace(named, recipe=overridden(named.recipe, overrides or RecipeOverrides()))


def _shipped() -> list[str]:
    files = (resources.files("edge_resnet.calibration") / "recipes").iterdir()
    return sorted(file.name.removesuffix(_SUFFIX) for file in files if file.name.endswith(_SUFFIX))


def _suggestion(name: str) -> str:
    known = _shipped()
    return f"{_did_you_mean(name, known)}recipes are {', '.join(known)}, or a path that ends in {_SUFFIX}"


def _did_you_mean(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name.lower(), known, 1)
    return f"did you mean {close[0]}? " if close else ""


def _parsed(name: str, file: str, content: bytes) -> NamedRecipe:
    try:
        values = tomllib.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # TOML's and UTF-8's errors are ValueErrors, and so is a number of 5,000 digits
        raise ConfigError(f"recipe {file} is not TOML: {error}", hint='write lines of the form method = "mse"') from error
    checked = {key: _value(file, key, value) for key, value in values.items()}
    data, description = checked.pop("data", None), checked.pop("description", "")
    if data is not None and not data.strip():
        raise ConfigError(f"recipe {file}: data is empty", hint="name a set of images, or leave the line out")
    try:
        return NamedRecipe(name, data, QuantRecipe(**checked), description)
    except ConfigError as error:
        raise ConfigError(f"recipe {file}: {error.message}", hint=error.hint) from error


def _value(file: str, key: str, value: Any) -> Any:
    """The value of one key, checked against the type of the record's field."""
    if key not in _FIELDS:
        known = sorted(_FIELDS)
        raise ConfigError(f"recipe {file}: unknown key {key}", hint=f"{_did_you_mean(key, known)}keys are {', '.join(known)}")
    try:
        # TOML has lists; the frozen record has tuples.
        return TypeAdapter(_FIELDS[key]).validate_python(tuple(value) if isinstance(value, list) else value, strict=True)
    except ValidationError as error:
        shown = json.dumps(value, default=str)
        raise ConfigError(f"recipe {file}: {key} takes {_kind(_FIELDS[key])}, not {shown}", hint=_example(key)) from error


def _kind(hint: Any) -> str:
    """A type as someone who writes TOML calls it."""
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", tuple[str, ...]: "a list of texts"}
    return names.get(hint) or f"one of {', '.join(hint.__args__)}"


def _example(key: str) -> str:
    samples = {"data": "images", "description": "what it is for", "keep_high_precision": ["conv1"]}
    return f"for example {key} = {json.dumps(samples.get(key, getattr(QuantRecipe(), key, None)))}"
