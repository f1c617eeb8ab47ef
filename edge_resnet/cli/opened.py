"""Opens the artifact of a command and says on stderr which it is: the newest one is taken where none is named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edge_resnet.core.text import printable

if TYPE_CHECKING:
    from edge_resnet.artifact.folder import Artifact
    from edge_resnet.runtime.backend import Variant

__all__ = ["open_announced"]


def open_announced(folder: Path | None, backend: str, variant: Variant = "native") -> Artifact:
    """The artifact in ``folder``, by default the newest one under ``artifacts``, which the first line on stderr describes.

    The line names the artifact, its network, its precision, the backend that will run it, and its classes. Raises what
    ``open_artifact``, ``newest_artifact`` and ``resolve_backend`` raise.
    """
    from edge_resnet.artifact.folder import newest_artifact, open_artifact
    from edge_resnet.pipelines.engines import ARTIFACTS
    from edge_resnet.runtime.backend import resolve_backend

    artifact = open_artifact(folder or newest_artifact(ARTIFACTS))
    model, labels = artifact.manifest.model, artifact.labels
    which = f"{artifact.folder}{'' if folder else ' (the newest)'}"
    precision = f"{artifact.manifest.precision}{' simulated' if variant == 'simulated' else ''}"
    classes = ", ".join(labels[:3]) + (", …" if len(labels) > 3 else "")
    name = resolve_backend(backend, variant)
    typer.echo(printable(f"{which}: {model.name} {precision} on {name}, {model.classes} classes ({classes})"), err=True)
    return artifact
