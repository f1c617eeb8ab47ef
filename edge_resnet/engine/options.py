"""What is asked of TensorRT's builder, checked once. Knows no TensorRT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import BatchProfile, Precision

__all__ = ["EngineOptions", "EngineTuning", "read_options"]


@dataclass(frozen=True)
class EngineTuning:
    """What changes how an engine is built and where it runs, and not what it computes.

    ``workspace_mib``: memory that a layer may use while it runs, TensorRT's own default where None. ``level``: the builder's
    effort in 0..5, its own default where None. ``version_compatible``: runs on later TensorRT of the same major version too;
    ``hardware_compatible``: on every GPU from Ampere on, with fewer fusions (TensorRT's API reference,
    HardwareCompatibilityLevel).
    """

    workspace_mib: int | None = None
    level: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False

    def __post_init__(self) -> None:
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise ConfigError(f"the workspace must be 1 MiB or more, not {self.workspace_mib}", hint="512 suits a small board")
        if self.level is not None and not 0 <= self.level <= 5:
            raise ConfigError(f"the builder's level must lie in 0..5, not {self.level}", hint="3 is TensorRT's own")


@dataclass(frozen=True)
class EngineOptions:
    """``input_size``: pixels of height and width. ``batch``: the batches that the engine serves, fastest at ``opt``."""

    precision: Precision
    input_size: int
    batch: BatchProfile
    tuning: EngineTuning = field(default_factory=EngineTuning)


def read_options(words: Mapping[str, Any]) -> EngineOptions:
    """What ``asdict`` made of options. Raises KeyError or TypeError where it is nothing of the kind."""
    return EngineOptions(words["precision"], words["input_size"], BatchProfile(**words["batch"]), EngineTuning(**words["tuning"]))
