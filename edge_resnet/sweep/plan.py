"""The cells of a sweep in the order in which they are measured, with what each is expected to take. Measures nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.records import ModelSpec, Precision
from edge_resnet.sweep.request import Network, SweepRequest

__all__ = ["Pace", "Target", "cell_seconds", "plan_targets"]

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
