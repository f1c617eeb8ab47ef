"""Which file of a folder holds the weights of a depth, by its name. Knows no content of any."""

from __future__ import annotations

import re
from pathlib import Path

from edge_resnet.core.errors import WeightsError

__all__ = ["find_weights"]

_SUFFIXES = (".safetensors", ".pth", ".pt", ".th")


def find_weights(folder: Path, depth: int) -> Path | None:
    """The one file whose name holds ``resnet`` and the depth, as in ``resnet50-v1.pth`` or ``my_ResNet_50.safetensors``.

    None where there is none. Raises WeightsError where the folder is not one, and where several files fit: which of them is
    meant is not guessed.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder} is not a folder of weights", hint="--weights-dir names the folder that holds them")
    name = re.compile(rf"resnet[-_ ]?{depth}(?!\d)", re.IGNORECASE)
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and name.search(path.name))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise WeightsError(
            f"{folder} holds {len(found)} files for depth {depth}: {names}",
            hint="keep one of them there, or link it into a folder of its own",
        )
    return found[0] if found else None
