"""Opens an artifact with its engine for this machine, deriving that first where it can. Shared by run and eval."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edge_resnet.cli.progress import progress_bars
from edge_resnet.core.errors import IncompatibleEngineError

if TYPE_CHECKING:
    from edge_resnet.artifact.folder import Artifact
    from edge_resnet.runtime.backend import Variant

__all__ = ["ARTIFACTS", "open_with_engine"]

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
