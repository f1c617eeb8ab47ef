"""The networks that an experiment is about: named as the paper names them, opened with weights, asked for probabilities.

Knows nothing of training and of what the answers are compared with.
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
from torch import nn

from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.core.records import ModelSpec, Preprocess, Progress, Shortcut
from edge_resnet.images.preprocess import ImageArray
from edge_resnet.network import build_network, load_weights
from edge_resnet.network.training.validation import normalise

__all__ = [
    "FINISHED",
    "Member",
    "Probabilities",
    "named_spec",
    "normalised",
    "open_members",
    "printed_name",
    "probabilities",
]

#: (N, classes) float32, rows sum to 1.
Probabilities: TypeAlias = npt.NDArray[np.float32]

#: The file that says of a network's folder that its training is over.
FINISHED = "network.json"
_NAME = re.compile(r"(?:(plain|resnet)-?)?(\d+)(?:[- ]?([abc]))?", re.IGNORECASE)
_HOW = "write NAME=FILE with a name such as 50, resnet-34-B or plain-20, for example 20=resnet20.th"


@dataclass(frozen=True, eq=False)
class Member:
    """A network with its weights, in eval mode. ``weights``: the id for the record, ``sha256:…`` for a file."""

    name: str
    spec: ModelSpec
    network: nn.Module
    weights: str


def printed_name(spec: ModelSpec, *, option: bool = False) -> str:
    """As the paper writes it: ``plain-20``, ``ResNet-34``, and with its shortcut option ``ResNet-34 B``."""
    if spec.plain:
        return f"plain-{spec.depth}"
    return f"ResNet-{spec.depth}{f' {spec.shortcut}' if option else ''}"


def named_spec(text: str, like: ModelSpec) -> ModelSpec:
    """The network that ``text`` names (``50``, ``plain-20``, ``resnet-34-B``); the rest is as in ``like``.

    Raises ConfigError for any other text and for a depth that the family lacks.
    """
    found = _NAME.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"{text!r} names no network", hint=_HOW)
    kind, depth, option = found.groups()
    shortcut = next((letter for letter in get_args(Shortcut) if letter == (option or "").upper()), like.shortcut)
    return replace(like, plain=(kind or "").lower() == "plain", depth=int(depth), shortcut=shortcut)


def open_members(
    named: Sequence[str], like: ModelSpec, *, source: Path | None = None, progress: Progress | None = None
) -> tuple[Member, ...]:
    """Open each ``NAME=FILE`` of ``named``, then the finished networks of the experiment's folder ``source``.

    ``like``: family, shortcut, classes and input size of those named. Raises ConfigError where there is none or a name is no
    network's, WeightsError where a file does not fit, DataError where ``source`` holds no finished network.
    """
    members = [_from_word(word, like, progress) for word in named]
    if source is not None:
        members += _from_folder(source)
    if not members:
        raise ConfigError("no weights are named", hint=f"--weights: {_HOW}; or --from the folder of an experiment that trained")
    return tuple(_told_apart(members))


def probabilities(network: nn.Module, pixels: ImageArray, spec: Preprocess) -> Probabilities:
    """Softmax of the network's logits: (N, H, W, 3) uint8 RGB → (N, classes)."""
    with torch.inference_mode():
        answer: Probabilities = torch.softmax(network(normalised(pixels, spec)), dim=1).numpy()
    return answer


def normalised(pixels: ImageArray, spec: Preprocess) -> torch.Tensor:
    """(N, H, W, 3) uint8 RGB → (N, 3, H, W) float32, channels last, mean and deviation applied."""
    return normalise(torch.from_numpy(np.ascontiguousarray(pixels)), spec)


def _from_word(word: str, like: ModelSpec, progress: Progress | None) -> Member:
    name, separator, file = word.partition("=")
    if not separator or not file:
        raise ConfigError(f"--weights {word} names no file", hint=_HOW)
    return _opened(named_spec(name, like), file, progress)


def _opened(spec: ModelSpec, weights: str, progress: Progress | None = None) -> Member:
    network = build_network(spec)
    origin = load_weights(network, spec, weights, progress=progress)
    network = network.to(memory_format=torch.channels_last).eval()
    return Member(printed_name(spec), replace(spec, weights=origin), network, origin)


def _from_folder(source: Path) -> list[Member]:
    members = []
    for path in sorted(source.glob(f"networks/*/{FINISHED}")):
        try:
            spec = ModelSpec(**json.loads(path.read_text(encoding="utf-8"))["spec"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} cannot be read: {error}", hint="train that network again") from error
        members.append(_opened(spec, str(path.parent / "weights.safetensors")))
    if not members:
        raise DataError(
            f"{source} holds no finished network",
            hint="give --from the output folder of the experiment degradation, shortcuts or depth",
        )
    return sorted(members, key=lambda member: (not member.spec.plain, member.spec.depth, member.spec.shortcut))


def _told_apart(members: Sequence[Member]) -> list[Member]:
    """Names that occur twice get what tells them apart: the option where it differs, else a number."""
    options = {member.name: {m.spec.shortcut for m in members if m.name == member.name} for member in members}
    named = [replace(m, name=printed_name(m.spec, option=len(options[m.name]) > 1)) for m in members]
    seen: dict[str, int] = {}
    apart = []
    for member in named:
        seen[member.name] = seen.get(member.name, 0) + 1
        apart.append(member if seen[member.name] == 1 else replace(member, name=f"{member.name} #{seen[member.name]}"))
    return apart
