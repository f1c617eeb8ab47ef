"""Networks by name: ``resnet50``, ``resnext50_32x4d``, ``resnet50d``, ``resnet18-small``. Does not know about weights."""

from __future__ import annotations

import re
from dataclasses import replace

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import FAMILIES, STEM_LETTERS, Family, Layout, ModelSpec, default_spec

__all__ = ["NAMED", "spec_named"]

#: The networks that have a name of their own in torchvision or timm, apart from the paper's.
NAMED = (
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
    "resnet18d",
    "resnet34d",
    "resnet50c",
    "resnet50d",
    "resnet50s",
    "resnet50t",
    "resnet101d",
    "resnet152d",
    "resnet18-small",
    "resnet34-small",
    "resnet50-small",
)
_NAME = re.compile(r"(wide_)?(resnet|resnext|plain)(\d{1,4})([a-z]?)(?:_(\d{1,4})(?:x(\d{1,4})d)?)?(?:-(cifar|small)(-pooled)?)?")
_HINT = "edge-resnet models lists names"


def spec_named(name: str) -> ModelSpec:
    """The network of a name as ``ModelSpec.name`` gives it, with its family's classes and input size and random weights.

    Raises ConfigError for a name that no network has.
    """
    match = _NAME.fullmatch(name.strip().lower())
    letters = {letter: key for key, letter in STEM_LETTERS.items()}
    if match is None or match[4] not in letters:
        raise ConfigError(f"no network is called {name!r}", hint=_HINT)
    wide, kind, depth, letter, first, second, suffix, pooled = match.groups()
    stem, avg_down = letters[letter]
    layout = Layout(*_groups(wide, kind, first, second), stem, avg_down, bool(pooled))
    family: Family = next(iter(found for found in FAMILIES if found == suffix), "imagenet")
    spec = replace(default_spec(family, int(depth), plain=kind == "plain"), layout=layout)
    if spec.name != name.strip().lower():
        raise ConfigError(f"no network is called {name!r}", hint=_HINT)
    return spec


def _groups(wide: str | None, kind: str, first: str | None, second: str | None) -> tuple[int, int]:
    """Groups and width per group: 32 and 4 of ``resnext50_32x4d``, 1 and 128 of ``wide_resnet50_2``."""
    if kind == "resnext":
        return int(first or 1), int(second or 64)
    return 1, 64 * int(first) if wide and first else 64
