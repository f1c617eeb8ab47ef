"""The cells of a sweep in the order in which they are measured, with what each is expected to take. Measures nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.errors import ConfigError, WeightsError
from edge_resnet.core.records import ModelSpec, Precision, Preprocess, QuantRecipe

__all__ = ["Network", "Pace", "SweepRequest", "Target", "cell_seconds", "find_weights", "plan_targets"]


@dataclass(frozen=True)
class Network:
    """One to be built: ``weights`` as ``build`` takes them, None where the folder of weights has none for it."""

    model: ModelSpec
    preprocess: Preprocess
    weights: str | None


@dataclass(frozen=True)
class SweepRequest:
    """``networks`` in each of ``precisions``, and ``artifacts`` as they are, on each of ``backends``, with each of ``batches``: 1
    is timed image after image, larger ones offline. ``results``: files of measurements to show beside them.

    ``data``: images that accuracy is measured on; without it only latency is. ``calibration_data``: for INT8; where there is
    none, a part of ``data`` is held out for it. ``seconds``: of each latency measurement at least. ``options``: for people, by
    their names.
    """

    networks: tuple[Network, ...] = ()
    precisions: tuple[Precision, ...] = ("fp32", "int8")
    artifacts: tuple[Path, ...] = ()
    results: tuple[Path, ...] = ()
    backends: tuple[str, ...] = ("auto",)
    batches: tuple[int, ...] = (1, 8)
    data: str | None = None
    calibration_data: str | None = None
    recipe: QuantRecipe = field(default_factory=QuantRecipe)
    seconds: float = 5.0
    allow_random: bool = False
    title: str = "Accuracy against latency"
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.networks and not self.artifacts and not self.results:
            raise ConfigError("there is nothing to report on", hint="--depths 18,50, or name artifacts or result files")
        if self.networks and not self.precisions:
            raise ConfigError("no precision was asked for", hint="--precisions fp32,int8")
        if (self.networks or self.artifacts) and not (self.backends and self.batches):
            raise ConfigError("no backend or no batch size was asked for", hint="--backends auto --batch 1,8")
        known = get_args(Precision)
        wrong = [precision for precision in self.precisions if precision not in known]
        if wrong:
            raise ConfigError(f"no precision is called {wrong[0]}", hint=f"choose of {', '.join(known)}")
        if any(batch < 1 for batch in self.batches):
            raise ConfigError("a batch holds at least one image", hint="--batch 1,8")
        if not 0 < self.seconds < float("inf"):
            raise ConfigError("a measurement takes a number of seconds above 0", hint="--seconds 5")


#: Seconds on two cores for ResNet-18, and how a depth multiplies them: a first guess, which the sweep corrects as it goes.
_BUILD_S = {"fp32": 10.0, "fp16": 10.0, "int8": 25.0}
_DEPTHS = {18: 1.0, 34: 1.8, 50: 2.2, 101: 3.8, 152: 5.5}
_SMALL = 0.2
#: Of a latency measurement beside its own seconds: opening, warm-up, stages, a cold start.
_AROUND_S = 6.0
_IMAGE_S = 0.02


@dataclass(frozen=True)
class Target:
    """One artifact to measure: built from ``network`` in ``precision``, or ``given``. ``label``: unlike any other's."""

    label: str
    model: ModelSpec
    precision: Precision
    network: Network | None = None
    given: Artifact | None = None


def plan_targets(request: SweepRequest, artifacts: Sequence[Artifact]) -> list[Target]:
    """Given artifacts first, then networks by precision, FP32 before what is made of it."""
    targets = [Target("", a.manifest.model, a.manifest.precision, given=a) for a in artifacts]
    targets += [
        Target("", network.model, precision, network=network)
        for network in request.networks
        for precision in sorted(set(request.precisions), key=("fp32", "fp16", "int8").index)
    ]
    plain = [f"{target.model.name} {target.precision}" for target in targets]
    named = [_folder(target, label) if plain.count(label) > 1 else label for target, label in zip(targets, plain, strict=True)]
    unique = [f"{label} ({index + 1})" if named.count(label) > 1 else label for index, label in enumerate(named)]
    return [Target(label, t.model, t.precision, t.network, t.given) for label, t in zip(unique, targets, strict=True)]


def cell_seconds(kind: str, target: Target, request: SweepRequest, images: int) -> float:
    """What a cell is expected to take: ``build``, ``answers`` or ``latency``."""
    size = _DEPTHS.get(target.model.depth, _SMALL) if target.model.family == "imagenet" else _SMALL
    if kind == "build":
        return _BUILD_S[target.precision] * size
    return _IMAGE_S * size * images + 2 if kind == "answers" else request.seconds + _AROUND_S


@dataclass
class Pace:
    """How long the rest will take. ``expected``: seconds of the cells that are left, by their kind and the first guess; each kind
    is corrected by how long its own cells took, since a measurement of a given length is no faster on a faster machine."""

    expected: dict[str, float] = field(default_factory=dict)
    _guessed: dict[str, float] = field(default_factory=dict)
    _spent: dict[str, float] = field(default_factory=dict)
    _begun: float = 0.0

    def begin(self) -> None:
        """A cell begins."""
        self._begun = time.monotonic()

    def end(self, kind: str, expected: float, *, measured: bool) -> float:
        """It has ended; what it was expected to take. Returns its seconds. One that was not ``measured`` says nothing of the
        pace."""
        seconds = time.monotonic() - self._begun
        self.expected[kind] = self.expected.get(kind, 0.0) - expected
        if measured:
            self._guessed[kind] = self._guessed.get(kind, 0.0) + expected
            self._spent[kind] = self._spent.get(kind, 0.0) + seconds
        return seconds

    @property
    def left_s(self) -> float:
        """Seconds left."""
        return sum(
            max(0.0, seconds) * (self._spent[kind] / self._guessed[kind] if kind in self._guessed else 1.0)
            for kind, seconds in self.expected.items()
        )


def _folder(target: Target, label: str) -> str:
    return label if target.given is None else Path(target.given.folder).resolve().name


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
