"""Networks named as in the paper, loaded with weights, and their class probabilities.

Does not know about training, nor what the probabilities are compared with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import torch
from pydantic import TypeAdapter
from torch import nn

from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.core.records import ModelSpec, Preprocess, Progress, Shortcut
from edge_resnet.images.preprocess import ImageArray
from edge_resnet.network import build_network, load_weights
from edge_resnet.network.training.validation import normalise

__all__ = [
    "FINISHED",
    "LoadedNetwork",
    "Probabilities",
    "named_spec",
    "normalised",
    "open_networks",
    "printed_name",
    "probabilities",
]

#: (N, classes) float32, rows sum to 1.
Probabilities: TypeAlias = npt.NDArray[np.float32]

#: The record in a network's folder; it exists when the training is finished.
FINISHED = "network.json"
_NAME = re.compile(r"(?:(plain|resnet)-?)?(\d+)(?:[- ]?([abc]))?", re.IGNORECASE)
_HOW = "write NAME=FILE with a name such as 50, resnet-34-B or plain-20, for example 20=resnet20.th"


@dataclass(frozen=True, eq=False)
class LoadedNetwork:
    """A network with its weights. ``module``: in eval mode. ``weights``: their id, ``sha256:…`` for a file."""

    name: str
    spec: ModelSpec
    module: nn.Module
    weights: str


def printed_name(spec: ModelSpec, *, option: bool = False) -> str:
    """The paper's name: ``plain-20``, ``ResNet-34``, or with the shortcut option ``ResNet-34 B``."""
    if spec.plain:
        return f"plain-{spec.depth}"
    return f"ResNet-{spec.depth}{f' {spec.shortcut}' if option else ''}"


def named_spec(text: str, base: ModelSpec) -> ModelSpec:
    """The network that ``text`` names (``50``, ``plain-20``, ``resnet-34-B``); everything else is taken from ``base``.

    Raises ConfigError for any other text and for a depth that the family does not have.
    """
    found = _NAME.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"{text!r} is not the name of a network", hint=_HOW)
    kind, depth, option = found.groups()
    shortcut = next((letter for letter in get_args(Shortcut) if letter == (option or "").upper()), base.shortcut)
    return replace(base, plain=(kind or "").lower() == "plain", depth=int(depth), shortcut=shortcut)


def open_networks(
    named: Sequence[str], base: ModelSpec, *, source: Path | None = None, progress: Progress | None = None
) -> tuple[LoadedNetwork, ...]:
    """Load each ``NAME=FILE`` of ``named``, then the finished networks in an experiment's folder ``source``.

    ``base`` has the family, shortcut, classes and input size of those named. Raises ConfigError if there is no network or a
    name is invalid, WeightsError if a file does not fit, DataError if ``source`` contains no finished network.
    """
    networks = [_from_argument(argument, base, progress) for argument in named]
    if source is not None:
        networks += _from_folder(source)
    if not networks:
        raise ConfigError("no weights are given", hint=f"--weights: {_HOW}; or --from the folder of an experiment that trained")
    return tuple(_with_unique_names(networks))


def probabilities(network: nn.Module, pixels: ImageArray, spec: Preprocess) -> Probabilities:
    """Softmax of the network's logits: (N, H, W, 3) uint8 RGB → (N, classes)."""
    with torch.inference_mode():
        predicted: Probabilities = torch.softmax(network(normalised(pixels, spec)), dim=1).numpy()
    return predicted


def normalised(pixels: ImageArray, spec: Preprocess) -> torch.Tensor:
    """(N, H, W, 3) uint8 RGB → (N, 3, H, W) float32, channels last, mean and deviation applied."""
    return normalise(torch.from_numpy(np.ascontiguousarray(pixels)), spec)


def _from_argument(argument: str, base: ModelSpec, progress: Progress | None) -> LoadedNetwork:
    name, separator, file = argument.partition("=")
    if not separator or not file:
        raise ConfigError(f"--weights {argument} names no file", hint=_HOW)
    return _load(named_spec(name, base), file, progress)


def _load(spec: ModelSpec, weights: str, progress: Progress | None = None) -> LoadedNetwork:
    network = build_network(spec)
    origin = load_weights(network, spec, weights, progress=progress)
    network = network.to(memory_format=torch.channels_last).eval()
    return LoadedNetwork(printed_name(spec), replace(spec, weights=origin), network, origin)


def _from_folder(source: Path) -> list[LoadedNetwork]:
    networks = []
    for path in sorted(source.glob(f"networks/*/{FINISHED}")):
        try:
            spec = TypeAdapter(ModelSpec).validate_python(json.loads(path.read_text(encoding="utf-8"))["spec"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} cannot be read: {error}", hint="train that network again") from error
        networks.append(_load(spec, str(path.parent / "weights.safetensors")))
    if not networks:
        raise DataError(
            f"{source} contains no finished network",
            hint="--from takes the output folder of the experiment degradation, shortcuts or depth",
        )
    return sorted(networks, key=lambda one: (not one.spec.plain, one.spec.depth, one.spec.shortcut))


def _with_unique_names(networks: Sequence[LoadedNetwork]) -> list[LoadedNetwork]:
    """Add the shortcut option to names that occur twice with different options, and a number to those that still do."""
    options = {one.name: {other.spec.shortcut for other in networks if other.name == one.name} for one in networks}
    named = [replace(one, name=printed_name(one.spec, option=len(options[one.name]) > 1)) for one in networks]
    seen: dict[str, int] = {}
    unique = []
    for one in named:
        seen[one.name] = seen.get(one.name, 0) + 1
        unique.append(one if seen[one.name] == 1 else replace(one, name=f"{one.name} #{seen[one.name]}"))
    return unique
