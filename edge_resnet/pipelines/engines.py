"""Engines where they are needed: an artifact opened, its engine derived first where there is none. Knows no flags."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edge_resnet.artifact.enginecache import EngineTuning, find_engine
from edge_resnet.artifact.folder import Artifact
from edge_resnet.cli.progress import progress_bars
from edge_resnet.compiler.derive import compile_engine
from edge_resnet.core.errors import ConfigError, EdgeResnetError, IncompatibleEngineError
from edge_resnet.core.records import Progress
from edge_resnet.runtime.backend import load_backend

if TYPE_CHECKING:
    from edge_resnet.artifact.folder import Artifact
    from edge_resnet.runtime.backend import Variant

__all__ = ["ARTIFACTS", "first_engine", "open_with_engine", "ready"]


def first_engine(
    artifact: Artifact, backend: str, *, tuning: EngineTuning | None = None, progress: Progress | None = None
) -> None:
    """Derive the engine of an artifact that was just written, for this machine.

    Raises what the derivation raises, with the way to try again: the artifact stays, minutes of calibration with it.
    """
    if progress is not None:
        progress("compile", 0, 1)
    try:
        compile_engine(artifact, backend, tuning=tuning, progress=progress)
    except EdgeResnetError as error:
        again = f"{artifact.folder} is written: edge-resnet compile {artifact.folder} tries the engine again"
        error.hint = f"{error.hint}; {again}" if error.hint else again
        raise
    if progress is not None:
        progress("compile", 1, 1)


#: Where build puts artifacts and run looks for the newest.
ARTIFACTS = Path("artifacts")


def open_with_engine(folder: Path | None, backend: str, variant: Variant) -> Artifact:
    """The artifact in ``folder``, or the newest one; compiled for this machine if it is not and onnx is installed.

    A device without onnx gets the error that names the missing engine and the command that makes it.
    """
    from edge_resnet.artifact.enginecache import find_engine
    from edge_resnet.artifact.folder import newest_artifact, open_artifact
    from edge_resnet.runtime.backend import load_backend, resolve_backend

    artifact = open_artifact(folder or newest_artifact(ARTIFACTS))
    request = load_backend(resolve_backend(backend, variant)).engine_request(artifact, variant)
    if request is not None and find_engine(artifact, request.key) is None:
        try:
            from edge_resnet.compiler.derive import compile_engine
        except ImportError as error:
            raise IncompatibleEngineError(
                f"{artifact.folder} holds no {request.form} engine for this machine, and onnx is not here to derive it",
                hint=f"pip install 'edge-resnet[compile]' && edge-resnet compile {artifact.folder}",
            ) from error
        with progress_bars() as progress:
            compile_engine(artifact, backend, variant, progress=progress)
    return artifact


def ready(artifact: Artifact, backend: str, *, progress: Progress | None = None) -> None:
    """Derive the engine for this machine where there is none yet.

    Raises ConfigError where the backend does not compute the artifact's precision, IncompatibleEngineError where onnx is missing
    to derive an engine from, and what deriving raises.
    """
    if artifact.manifest.precision == "fp16" and backend == "onnxruntime":
        raise ConfigError("ONNX Runtime computes FP16 networks in FP32: there is nothing to measure", hint="--backends tensorrt")
    request = load_backend(backend).engine_request(artifact, "native")
    if request is None or find_engine(artifact, request.key) is not None:
        return
    try:
        from edge_resnet.compiler.derive import compile_engine
    except ImportError as error:
        raise IncompatibleEngineError(
            f"{artifact.folder} holds no {request.form} engine for this machine, and onnx is not here to derive it",
            hint="pip install 'edge-resnet[compile]'",
        ) from error
    compile_engine(artifact, backend, progress=progress)
