"""TensorRT as a library of plans: a plan is for one GPU and one version of TensorRT, and is built where it runs."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from edge_resnet.artifact.enginecache import EngineFacts, EngineOptions
from edge_resnet.core.errors import ConfigError
from edge_resnet.device.gpu import Gpu, first_gpu
from edge_resnet.runtime.tensorrt.library import LibraryName, load_library, typing_of

__all__ = ["NativeLibrary"]


class NativeLibrary:
    """TensorRT; a ``PlanLibrary``. Its runtime checks plans and GPUs itself."""

    name: LibraryName = "tensorrt"
    backend = "tensorrt"

    def facts(self, source_digest: str, options: EngineOptions) -> EngineFacts:
        """Raises BackendError without a GPU, or if TensorRT is too old, and ConfigError for targets."""
        if options.tuning.targets:
            raise ConfigError(
                "TensorRT builds only for the GPU of this machine", hint="choose a target with the backend tensorrt-rtx, or none"
            )
        trt, gpu = load_library(self.name), first_gpu()
        typing = typing_of(trt)
        return EngineFacts(str(trt.__version__), gpu.name, gpu.compute_capability, source_digest, typing, options)

    def needed_to_run(self, facts: EngineFacts) -> EngineFacts:
        """The same: it is built for the GPU that runs it."""
        return facts

    def caveat(self, facts: EngineFacts) -> str:  # noqa: ARG002 - the protocol's signature
        """None that is known before the plan is measured."""
        return ""

    def refuse_gpu(self, gpu: Gpu) -> None:
        """TensorRT refuses it when it builds."""

    def check(self, trt: ModuleType, runtime: Any, content: bytes) -> None:
        """TensorRT refuses it when it reads the plan."""

    def contexts(self, trt: ModuleType, engine: Any, cache: Path, *, graphs: bool) -> _Contexts:  # noqa: ARG002
        """As the engine makes them."""
        return _Contexts(engine)


class _Contexts:
    """Nothing is kept after a run, because everything was compiled when the plan was built."""

    captures = False

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def create_execution_context(self) -> Any:
        return self._engine.create_execution_context()

    def keep(self) -> None:
        return
