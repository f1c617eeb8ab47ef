"""What a sweep is asked for, checked before anything long begins. Knows no network and no file's content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import ModelSpec, Precision, Preprocess, QuantRecipe

__all__ = ["Network", "SweepRequest"]


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
