"""Opens artifacts, and derives the engine that this machine needs if the artifact does not hold it.

Does not know about options or a terminal. Loads no torch, and onnx only to derive an engine.
"""

from __future__ import annotations

from pathlib import Path

from edge_resnet.artifact.enginecache import EngineTuning, find_engine
from edge_resnet.artifact.folder import Artifact, newest_artifact, open_artifact
from edge_resnet.core.errors import EdgeResnetError, IncompatibleEngineError
from edge_resnet.core.records import Progress
from edge_resnet.runtime.backend import Variant, backend_info, load_backend, resolve_backend

__all__ = ["ARTIFACTS", "compile_written", "open_with_engine", "prepare_engine"]

#: The folder in which build writes artifacts, and in which other commands look for the newest.
ARTIFACTS = Path("artifacts")


def open_with_engine(
    folder: Path | None, backend: str = "auto", variant: Variant = "native", *, progress: Progress | None = None
) -> Artifact:
    """The artifact in ``folder``, or the newest one under ``artifacts``, compiled for this machine.

    Raises what ``open_artifact``, ``newest_artifact`` and ``prepare_engine`` raise.
    """
    artifact = open_artifact(folder or newest_artifact(ARTIFACTS))
    prepare_engine(artifact, backend, variant, progress=progress)
    return artifact


def prepare_engine(
    artifact: Artifact, backend: str = "auto", variant: Variant = "native", *, progress: Progress | None = None
) -> None:
    """Derive the engine that the backend needs on this machine, unless the artifact holds it already.

    Raises IncompatibleEngineError if the engine is missing and onnx is not installed to derive it, ConfigError for an unknown
    backend, BackendError if the backend cannot run networks on this machine, and what the derivation raises.
    """
    name = resolve_backend(backend, variant)
    loaded = load_backend(name)  # first, so that a missing package is told before a missing GPU
    backend_info(name).refuse_machine()
    request = loaded.engine_request(artifact, variant)
    if request is None or find_engine(artifact, request.key) is not None:
        return
    try:
        from edge_resnet.compiler.derive import compile_engine
    except ImportError as error:
        raise IncompatibleEngineError(
            f"{artifact.folder} holds no {request.form} engine for this machine, and onnx is not installed to derive it",
            hint=f"pip install 'edge-resnet[compile]' && edge-resnet compile {artifact.folder}",
        ) from error
    compile_engine(artifact, name, variant, progress=progress)


def compile_written(
    artifact: Artifact, backend: str, *, tuning: EngineTuning | None = None, progress: Progress | None = None
) -> None:
    """Derive the engine of an artifact that was just written.

    Raises what the derivation raises, with the command that retries it: the artifact stays, and with it minutes of calibration.
    """
    from edge_resnet.compiler.derive import compile_engine  # onnx

    if progress is not None:
        progress("compile", 0, 1)
    try:
        compile_engine(artifact, backend, tuning=tuning, progress=progress)
    except EdgeResnetError as error:
        raise error.with_hint(
            f"{artifact.folder} is written: edge-resnet compile {artifact.folder} retries the engine"
        ) from error
    if progress is not None:
        progress("compile", 1, 1)
