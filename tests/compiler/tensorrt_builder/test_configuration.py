"""configuration.py: a library that accepts a setting and ignores it, as real ones do, does not get away with it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edge_resnet.artifact.enginecache import EngineOptions, EngineTuning
from edge_resnet.compiler.tensorrt import PlanRequest
from edge_resnet.compiler.tensorrt.configuration import configure
from edge_resnet.core.errors import BuildError, ConfigError
from edge_resnet.core.records import BatchProfile
from edge_resnet.runtime.tensorrt.library import typing_of


class Deaf:
    """A configuration in whose place nothing that is set takes effect."""

    def __init__(self, config: Any) -> None:
        object.__setattr__(self, "_config", config)

    def __setattr__(self, name: str, value: Any) -> None:
        getattr(self._config, name)

    def __getattr__(self, name: str) -> Any:
        if name in ("set_flag", "set_memory_pool_limit"):
            return lambda *arguments: None
        return getattr(self._config, name)


def request(trt: ModuleType, *, targets: tuple[str, ...] = (), **tuning: Any) -> PlanRequest:
    """A request for FP32, which needs no flag itself."""
    options = EngineOptions("fp32", 16, BatchProfile(), EngineTuning(**tuning))
    return PlanRequest(Path("model.onnx"), options, typing_of(trt), targets=targets)


@pytest.mark.parametrize(
    ("tuning", "words"),
    [
        ({"workspace_mib": 256}, "ignores --workspace: the setting in effect is 1048576 MiB"),
        ({"level": 5}, "ignores --level: the setting in effect is 3"),
        ({"hardware_compatible": True}, "ignores --hardware-compatible: the setting in effect is off"),
        ({"version_compatible": True}, "does not support --version-compatible"),
    ],
)
def test_an_option_that_is_ignored_is_an_error(trt: ModuleType, tuning: dict[str, Any], words: str) -> None:
    """Every option is read back after it is set; the error says what is in effect, and the hint what to do."""
    with pytest.raises(ConfigError, match=words) as caught:
        configure(trt, Deaf(trt.IBuilderConfig()), request(trt, **tuning), tuning.get("workspace_mib"))
    assert caught.value.hint.startswith("leave --")
    configure(trt, trt.IBuilderConfig(), request(trt, **tuning), tuning.get("workspace_mib"))


def test_a_precision_that_is_ignored_is_an_error(trt: ModuleType) -> None:
    """A weakly typed network without its flags would be FP32 under the name of another precision."""
    wanted = PlanRequest(Path("model.onnx"), EngineOptions("int8", 16, BatchProfile()), typing_of(trt))
    if wanted.typing == "strong":
        configure(trt, Deaf(trt.IBuilderConfig()), wanted, None)  # the graph has the types, and no flag is set
        return
    with pytest.raises(BuildError, match="no FP16 of weak typing"):
        configure(trt, Deaf(trt.IBuilderConfig()), wanted, None)


def test_targets_are_for_tensorrt_for_rtx(trt: ModuleType) -> None:
    """TensorRT builds for the GPU at hand, and has no targets."""
    with pytest.raises(ConfigError, match="does not support --target"):
        configure(trt, trt.IBuilderConfig(), request(trt, targets=("SM86",)), None)
