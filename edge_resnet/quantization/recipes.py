"""INT8 recipes, the ones that ship in ``calibration/recipes`` and the user's own: TOML files, read and checked key by key.

Knows nothing of images or graphs.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import FAMILIES, CalibMethod, Correction, Family, QuantRecipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["NamedRecipe", "RecipeChanges", "available_recipes", "changed", "load_recipe", "recipe_for"]

_SUFFIX = ".toml"
_TEXTS: Mapping[str, Any] = MappingProxyType({"data": str, "description": str})
_FIELDS: Mapping[str, Any] = MappingProxyType({**_TEXTS, **get_type_hints(QuantRecipe)})


@dataclass(frozen=True)
class NamedRecipe:
    """A recipe, the ``data`` (a name or a path) to calibrate on where the user gives none, and a line on what it is for.

    ``data`` is None where the recipe leaves the images to the user.
    """

    name: str
    data: str | None
    recipe: QuantRecipe
    description: str = ""


@dataclass(frozen=True)
class RecipeChanges:
    """What the user's words put in place of a recipe's own values; None leaves the recipe's."""

    method: CalibMethod | None = None
    images: int | None = None
    percentile: float | None = None
    seed: int | None = None
    correction: Correction | None = None


def recipe_for(family: Family) -> str:
    """The name of the recipe that a family of networks takes where none is asked for."""
    return FAMILIES[family].recipe


def available_recipes() -> tuple[NamedRecipe, ...]:
    """The recipes that ship, by name."""
    return tuple(load_recipe(name) for name in _shipped())


def load_recipe(name_or_path: str) -> NamedRecipe:
    """The shipped recipe of that name, or the one in a file whose path ends in ``.toml``.

    A file's ``data`` that names something beside the file is found there, wherever the command runs. Raises ConfigError that
    names the file and the key: an unknown key, a value of another type or out of range, no TOML, no file, no such name.
    """
    if name_or_path in _shipped():
        file = resources.files("edge_resnet.calibration") / "recipes" / f"{name_or_path}{_SUFFIX}"
        return _parsed(name_or_path, f"{name_or_path}{_SUFFIX}", file.read_bytes())
    path = Path(name_or_path)
    if path.suffix.lower() != _SUFFIX:
        raise ConfigError(f"no recipe is called {name_or_path!r}", hint=_suggestion(name_or_path))
    try:
        content = path.read_bytes()
    except OSError as error:
        hint = _suggestion(path.stem) if isinstance(error, FileNotFoundError) else "name a recipe or its .toml file"
        raise ConfigError(f"recipe {path} cannot be read: {error.strerror}", hint=hint) from error
    named = _parsed(path.stem, str(path), content)
    if named.data is None or not (path.parent / named.data).exists():
        return named
    return replace(named, data=str(path.parent / named.data))


def changed(recipe: QuantRecipe, changes: RecipeChanges) -> QuantRecipe:
    """The recipe with the user's values in place of its own; a percentile alone also chooses the method of that name.

    Raises ConfigError where a value makes no sense, or a percentile meets a method that has none.
    """
    method = changes.method
    if changes.percentile is not None:
        method = method or "percentile"
        if method != "percentile":
            raise ConfigError(f"--percentile has no meaning with --calib-method {method}", hint="leave one of them out")
    words = {
        "method": method,
        "images": changes.images,
        "percentile": changes.percentile,
        "seed": changes.seed,
        "correction": changes.correction,
    }
    given: dict[str, Any] = {key: value for key, value in words.items() if value is not None}
    return replace(recipe, **given)


def _shipped() -> list[str]:
    files = (resources.files("edge_resnet.calibration") / "recipes").iterdir()
    return sorted(file.name.removesuffix(_SUFFIX) for file in files if file.name.endswith(_SUFFIX))


def _suggestion(name: str) -> str:
    known = _shipped()
    return f"{_meant(name, known)}recipes are {', '.join(known)}, or a path that ends in {_SUFFIX}"


def _meant(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word.lower(), known, 1)
    return f"did you mean {close[0]}? " if close else ""


def _parsed(name: str, file: str, content: bytes) -> NamedRecipe:
    try:
        values = tomllib.loads(content.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {file} is not TOML: {error}", hint='lines of the form method = "mse"') from error
    checked = {key: _value(file, key, value) for key, value in values.items()}
    data, description = checked.pop("data", None), checked.pop("description", "")
    if data is not None and not data.strip():
        raise ConfigError(f"recipe {file}: data is empty", hint="name images, or leave the line out")
    try:
        return NamedRecipe(name, data, QuantRecipe(**checked), description)
    except ConfigError as error:
        raise ConfigError(f"recipe {file}: {error.message}", hint=error.hint) from error


def _value(file: str, key: str, value: Any) -> Any:
    """One key's value, of exactly the type that the record has."""
    if key not in _FIELDS:
        known = sorted(_FIELDS)
        raise ConfigError(f"recipe {file}: unknown key {key}", hint=f"{_meant(key, known)}keys are {', '.join(known)}")
    try:
        # TOML knows lists and the record, which must not change, tuples.
        return TypeAdapter(_FIELDS[key]).validate_python(tuple(value) if isinstance(value, list) else value, strict=True)
    except ValidationError as error:
        shown = json.dumps(value, default=str)
        raise ConfigError(f"recipe {file}: {key} takes {_kind(_FIELDS[key])}, not {shown}", hint=_example(key)) from error


def _kind(hint: Any) -> str:
    """A type in the words of someone who writes TOML."""
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", tuple[str, ...]: "a list of texts"}
    return words.get(hint) or f"one of {', '.join(hint.__args__)}"


def _example(key: str) -> str:
    samples = {"data": "images", "description": "what it is for", "keep_high_precision": ["conv1"]}
    return f"for example {key} = {json.dumps(samples.get(key, getattr(QuantRecipe(), key, None)))}"
