"""TensorRT for RTX as a library of plans: a plan is for the GPUs of its targets, and is built on any machine.

The first run on a GPU compiles the plan's kernels, and a cache in the user's folder keeps them for the next. Does not run
anything itself.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from edge_resnet.artifact.enginecache import EngineFacts, EngineOptions, EngineTuning
from edge_resnet.core.errors import BackendError, ConfigError, EdgeResnetError, IncompatibleEngineError
from edge_resnet.core.files import prune_cache, read_cache, write_cache
from edge_resnet.device.gpu import Gpu, first_gpu
from edge_resnet.device.rtxtargets import refuse_gpu, targets_for
from edge_resnet.runtime.tensorrt.library import LibraryName, load_library, typing_of

__all__ = ["RtxLibrary"]

_TITLE = "TensorRT for RTX"
_AGAIN = "edge-resnet compile ARTIFACT --backend tensorrt-rtx"
#: Members of EngineInvalidityDiagnostics, bits of one number → the error and its hint. The first that is set is told.
_REASONS: tuple[tuple[str, type[EdgeResnetError], str, str], ...] = (
    ("MALFORMED_ENGINE", IncompatibleEngineError, "the plan is damaged, or another library wrote it", _AGAIN),
    ("VERSION_MISMATCH", IncompatibleEngineError, "another version of TensorRT for RTX wrote the plan", _AGAIN),
    ("UNSUPPORTED_CC", IncompatibleEngineError, "the plan was compiled for other GPUs", _AGAIN),
    ("OLD_CUDA_DRIVER", BackendError, "the CUDA driver is too old", "edge-resnet doctor names the driver that is needed"),
    ("OLD_CUDA_RUNTIME", BackendError, "its CUDA libraries are too old", "pip install --upgrade 'edge-resnet[rtx]'"),
    ("INSUFFICIENT_GPU_MEMORY", BackendError, "the GPU has not enough memory", "close other programs, or use a smaller batch"),
    ("CUDA_ERROR", BackendError, "CUDA does not work", "edge-resnet doctor checks the GPU and its driver"),
)
#: Why INT8 does not pay here, by what its plans say (docs/decisions/2026-11-tensorrt-rtx.md).
_INT8 = (
    "INT8 on TensorRT for RTX: each convolution writes its result as FP32, and bias, ReLU and residual Add run after it, where "
    "FP16 computes them inside the convolution: expect no gain over FP16 (edge-resnet build --fp16)"
)
_INT8_ON_TURING = (
    "INT8 on TensorRT for RTX: a plan for Turing computes in FP16, with quantization as additional work around each layer: "
    "expect it to be slower than FP16 (edge-resnet build --fp16)"
)
_log = logging.getLogger(__name__)


class RtxLibrary:
    """TensorRT for RTX; a ``PlanLibrary``."""

    name: LibraryName = "tensorrt_rtx"
    backend = "tensorrt-rtx"

    def facts(self, source_digest: str, options: EngineOptions) -> EngineFacts:
        """Without targets in the options, those that suit this machine.

        Raises ConfigError for an option that the library ignores, and BackendError if the library is too old.
        """
        _refuse_ignored(options.tuning)
        trt = load_library(self.name)
        typing = typing_of(trt)
        targets = options.tuning.targets or targets_for(_capability_here())
        aimed = replace(options, tuning=replace(options.tuning, targets=targets))
        return EngineFacts(str(trt.__version__), "", "", source_digest, typing, aimed, library=self.name)

    def needed_to_run(self, facts: EngineFacts) -> EngineFacts:
        """A plan with this machine's GPU among its targets; without a GPU, one with all targets of ``facts``."""
        here = _capability_here()
        if not here:
            return facts
        return replace(facts, options=replace(facts.options, tuning=replace(facts.options.tuning, targets=(here,))))

    def caveat(self, facts: EngineFacts) -> str:
        """Why INT8 is not worth it, for an INT8 plan."""
        if facts.options.precision != "int8":
            return ""
        return _INT8_ON_TURING if "7.5" in facts.options.tuning.targets else _INT8

    def refuse_gpu(self, gpu: Gpu) -> None:
        """Hopper, Jetson and what is older than Turing."""
        refuse_gpu(gpu)

    def check(self, trt: ModuleType, runtime: Any, content: bytes) -> None:
        """Let the library judge a plan by its header first. Raises IncompatibleEngineError and BackendError."""
        if not hasattr(runtime, "get_engine_validity"):
            return
        validity, reasons = runtime.get_engine_validity(content)
        if validity == trt.EngineValidity.SUBOPTIMAL:
            _log.warning("the plan of %s is slower on this GPU than one that is compiled for it", _TITLE)
        if validity != trt.EngineValidity.INVALID:
            return
        for name, kind, reason, hint in _REASONS:
            if int(reasons) & int(getattr(trt.EngineInvalidityDiagnostics, name, 0)):
                raise kind(f"{_TITLE} {trt.__version__} cannot run the engine: {reason}", hint=hint)
        # Without a reason the driver could not be asked, as on a machine whose driver is too old for this CUDA.
        raise BackendError(
            f"{_TITLE} {trt.__version__} cannot ask the GPU whether the engine fits", hint="edge-resnet doctor checks the driver"
        )

    def contexts(self, trt: ModuleType, engine: Any, cache: Path, *, graphs: bool) -> _JitContexts:
        """Contexts that share the kernels in the file ``cache``."""
        return _JitContexts(trt, engine, cache, graphs=graphs)


class _JitContexts:
    """Execution contexts that compile kernels at the first run of a batch size. ``graphs``: the library captures CUDA graphs.

    A kernel for each batch size is compiled before its first run, not in the background: otherwise the same image would get
    slightly different logits once the compilation is done, and a measurement would hold both kernels.
    """

    captures = True

    def __init__(self, trt: ModuleType, engine: Any, cache: Path, *, graphs: bool) -> None:
        self._engine = engine
        self._path = cache
        self._config = engine.create_runtime_config()
        if self._config is None:
            raise BackendError(f"{_TITLE} gives no runtime configuration", hint="--debug shows its log")
        strategies = trt.DynamicShapesKernelSpecializationStrategy
        self._config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        self._config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE if graphs else trt.CudaGraphStrategy.DISABLED
        self._kept = read_cache(cache, "runtime cache")
        self._cache = self._loaded()

    def create_execution_context(self) -> Any:
        return self._engine.create_execution_context(runtime_config=self._config)

    def keep(self) -> None:
        """Write what was compiled since the cache was read or written; failures are logged, and cost only time."""
        if self._cache is None:
            return
        content = self._cache.serialize()
        if content is None or bytes(content) == self._kept:
            return
        self._kept = bytes(content)
        if write_cache(self._path, self._kept, "runtime cache"):
            prune_cache(self._path, "runtime cache")
        else:
            self._cache = None  # one line is enough

    def _loaded(self) -> Any | None:
        """The runtime cache with what the file holds; None if the library makes none."""
        cache = self._config.create_runtime_cache()
        if cache is None:
            _log.warning("%s makes no runtime cache: every start compiles the kernels again", _TITLE)
            return None
        if self._kept and not cache.deserialize(self._kept):
            # After an update of the driver, most often.
            _log.info("the runtime cache %s was written in another environment: kernels are compiled again", self._path)
        if not self._config.set_runtime_cache(cache):
            _log.warning("%s takes no runtime cache: every start compiles the kernels again", _TITLE)
            return None
        return cache


def _refuse_ignored(tuning: EngineTuning) -> None:
    """The library takes these options without an error: only the plan shows that they changed nothing."""
    ignored = {
        "level": (tuning.level is not None, "its builder has one level"),
        "version-compatible": (tuning.version_compatible, "a plan belongs to one version of it"),
        "hardware-compatible": (tuning.hardware_compatible, "--target says which GPUs a plan is for"),
    }
    for option, (asked, reason) in ignored.items():
        if asked:
            raise ConfigError(f"{_TITLE} has no option {option}: {reason}", hint=f"leave {option} out")


def _capability_here() -> str:
    """The compute capability of this machine's GPU; empty without one, and for one that the library does not run on."""
    try:
        gpu = first_gpu()
        refuse_gpu(gpu)
    except BackendError:
        return ""
    return gpu.compute_capability
