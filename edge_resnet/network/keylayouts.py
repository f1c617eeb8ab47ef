"""State dicts of libraries and repositories that name the same layers otherwise → torchvision's keys. Knows no files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

__all__ = ["to_torchvisions_keys"]

T = TypeVar("T")

#: Of Hugging Face's transformers, which says ``resnet.encoder.stages.0.layers.1.layer.2.convolution.weight``.
_TRANSFORMERS = "embedder.embedder.convolution.weight"
#: Of repositories that follow the paper's table, which says ``conv2_x.0.residual_function.3.weight``.
_TABLE = "conv2_x.0.residual_function.0.weight"


def to_torchvisions_keys(state: Mapping[str, T]) -> dict[str, T]:
    """The same values under torchvision's keys where the layout is a known one of others; else as they are.

    What stands before the network's own keys stays, but for transformers' ``resnet.``.
    """
    renamers = [renamer for mark, renamer in ((_TRANSFORMERS, _transformers), (_TABLE, _table)) if _has(state, mark)]
    renamed = {renamers[0](key): value for key, value in state.items()} if renamers else dict(state)
    return renamed if len(renamed) == len(state) else dict(state)  # two keys of one name: no known layout


def _has(keys: Iterable[str], ending: str) -> bool:
    return any(key == ending or key.endswith(f".{ending}") for key in keys)


def _transformers(key: str) -> str:
    key = re.sub(r"(^|\.)resnet\.(?=embedder|encoder)", r"\1", key)
    key = re.sub(r"embedder\.embedder\.(convolution|normalization)\.", lambda m: "conv1." if m[1][0] == "c" else "bn1.", key)
    key = re.sub(r"encoder\.stages\.(\d+)\.layers\.(\d+)\.", lambda m: f"layer{int(m[1]) + 1}.{m[2]}.", key)
    key = re.sub(r"\.layer\.(\d+)\.convolution\.", lambda m: f".conv{int(m[1]) + 1}.", key)
    key = re.sub(r"\.layer\.(\d+)\.normalization\.", lambda m: f".bn{int(m[1]) + 1}.", key)
    key = key.replace(".shortcut.convolution.", ".downsample.0.").replace(".shortcut.normalization.", ".downsample.1.")
    return re.sub(r"(^|\.)classifier\.1\.(weight|bias)$", r"\1fc.\2", key)


def _table(key: str) -> str:
    key = re.sub(r"(^|\.)conv1\.1\.", r"\1bn1.", key)
    key = re.sub(r"(^|\.)conv1\.0\.", r"\1conv1.", key)
    key = re.sub(r"(^|\.)conv(\d)_x\.", lambda m: f"{m[1]}layer{int(m[2]) - 1}.", key)
    return re.sub(r"\.residual_function\.(\d+)\.", lambda m: f".{('conv', 'bn')[int(m[1]) % 3]}{int(m[1]) // 3 + 1}.", key)
