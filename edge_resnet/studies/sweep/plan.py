"""What a sweep is to measure: the request, the targets in order, weights files by depth, and the expected duration.

Measures nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from edge_resnet.artifact.folder import Artifact
from edge_resnet.artifact.schema import ForeignSpec, nearest_family
from edge_resnet.core.errors import ConfigError, WeightsError
from edge_resnet.core.records import ModelSpec, Precision, Preprocess, QuantRecipe

__all__ = ["Network", "Pace", "SweepRequest", "Target", "cell_seconds", "find_weights", "plan_targets"]

#: Seconds to build ResNet-18 on two cores, and how they grow with the depth: a first estimate, corrected during the sweep.
_BUILD_S = {"fp32": 10.0, "fp16": 10.0, "int8": 25.0}
_DEPTH_FACTORS = {18: 1.0, 34: 1.8, 50: 2.2, 101: 3.8, 152: 5.5}
_SMALL_FACTOR = 0.2
#: Seconds of a latency measurement beyond its own: opening, warm-up, stages, a cold start.
_OVERHEAD_S = 6.0
#: Seconds to classify one image with ResNet-18.
_IMAGE_S = 0.02

_WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt", ".th")


@dataclass(frozen=True)
class Network:
    """A network to build. ``weights``: as ``build`` takes them, None if the folder of weights has no file for it.

    ``preprocess``: None for what the weights say, else the family's.
    """

    model: ModelSpec
    preprocess: Preprocess | None
    weights: str | None


@dataclass(frozen=True)
class SweepRequest:
    """What to measure: ``networks`` in each of ``precisions``, and finished ``artifacts``, on each of ``backends``.

    ``results``: result files to show beside them. ``batches``: 1 is measured as single-stream latency, larger ones offline.
    ``data``: images to measure accuracy on; without it only latency is measured. ``calibration_data``: for INT8; without it a
    part of ``data`` is held out. ``seconds``: minimum duration of a latency measurement. ``options``: shown in the report.
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
            raise ConfigError("no precision is given", hint="--precisions fp32,int8")
        if (self.networks or self.artifacts) and not (self.backends and self.batches):
            raise ConfigError("no backend or no batch size is given", hint="--backends auto --batch 1,8")
        known = get_args(Precision)
        wrong = [precision for precision in self.precisions if precision not in known]
        if wrong:
            raise ConfigError(f"there is no precision {wrong[0]}", hint=f"choose from {', '.join(known)}")
        if any(batch < 1 for batch in self.batches):
            raise ConfigError("a batch has at least one image", hint="--batch 1,8")
        if not 0 < self.seconds < float("inf"):
            raise ConfigError("a measurement takes a number of seconds above 0", hint="--seconds 5")


@dataclass(frozen=True)
class Target:
    """One artifact to measure: built from ``network`` in ``precision``, or ``given``. ``label`` is unique."""

    label: str
    model: ModelSpec | ForeignSpec
    precision: Precision
    network: Network | None = None
    given: Artifact | None = None


def plan_targets(request: SweepRequest, artifacts: Sequence[Artifact]) -> list[Target]:
    """List given artifacts first, then each network's precisions, FP32 before INT8, which is made from it."""
    targets = [Target("", a.manifest.model, a.manifest.precision, given=a) for a in artifacts]
    targets += [
        Target("", network.model, precision, network=network)
        for network in request.networks
        for precision in sorted(set(request.precisions), key=("fp32", "fp16", "int8").index)
    ]
    plain = [f"{target.model.name} {target.precision}" for target in targets]
    named = [
        _folder_name(target, label) if plain.count(label) > 1 else label for target, label in zip(targets, plain, strict=True)
    ]
    unique = [f"{label} ({index + 1})" if named.count(label) > 1 else label for index, label in enumerate(named)]
    return [Target(label, t.model, t.precision, t.network, t.given) for label, t in zip(unique, targets, strict=True)]


def cell_seconds(kind: str, target: Target, request: SweepRequest, images: int) -> float:
    """The expected duration of a cell of a kind: ``build``, ``answers`` or ``latency``."""
    model = target.model
    if isinstance(model, ForeignSpec):  # as ResNet-18, where it takes images as large
        factor = 1.0 if nearest_family(model) == "imagenet" else _SMALL_FACTOR
    else:
        factor = _DEPTH_FACTORS.get(model.depth, _SMALL_FACTOR) if model.family == "imagenet" else _SMALL_FACTOR
    if kind == "build":
        return _BUILD_S[target.precision] * factor
    return _IMAGE_S * factor * images + 2 if kind == "answers" else request.seconds + _OVERHEAD_S


@dataclass
class Pace:
    """Estimates the remaining time. ``expected``: estimated seconds of the remaining cells by kind.

    The estimates of each kind are corrected by the time that its own cells took, because a measurement of a given length is not
    shorter on a faster machine.
    """

    expected: dict[str, float] = field(default_factory=dict)
    _estimated: dict[str, float] = field(default_factory=dict)
    _spent: dict[str, float] = field(default_factory=dict)
    _started: float = 0.0

    def start(self) -> None:
        """A cell starts."""
        self._started = time.monotonic()

    def end(self, kind: str, expected: float, *, measured: bool) -> float:
        """The cell has ended that was ``expected`` to take so long. Returns its seconds.

        A cell that was not ``measured`` does not affect the estimates.
        """
        seconds = time.monotonic() - self._started
        self.expected[kind] = self.expected.get(kind, 0.0) - expected
        if measured:
            self._estimated[kind] = self._estimated.get(kind, 0.0) + expected
            self._spent[kind] = self._spent.get(kind, 0.0) + seconds
        return seconds

    @property
    def left_s(self) -> float:
        """The remaining time in seconds."""
        return sum(
            max(0.0, seconds) * (self._spent[kind] / self._estimated[kind] if kind in self._estimated else 1.0)
            for kind, seconds in self.expected.items()
        )


def find_weights(folder: Path, depth: int) -> Path | None:
    """The file whose name contains ``resnet`` and the depth, such as ``resnet50-v1.pth`` or ``my_ResNet_50.safetensors``.

    Returns None if there is none. Raises WeightsError if the folder does not exist or several files match.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder} is not a folder of weights", hint="--weights-dir takes the folder that contains them")
    name = re.compile(rf"resnet[-_ ]?{depth}(?!\d)", re.IGNORECASE)
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in _WEIGHTS_SUFFIXES and name.search(path.name))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise WeightsError(
            f"{folder} contains {len(found)} files for depth {depth}: {names}",
            hint="keep only one of them there, or use another folder",
        )
    return found[0] if found else None


def _folder_name(target: Target, label: str) -> str:
    return label if target.given is None else Path(target.given.folder).resolve().name
