"""INT8 of an existing artifact: its network is calibrated again, and written as a new artifact. Trains nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_resnet.artifact.folder import LABELS, MODEL, Artifact, open_artifact, staging, write_manifest
from edge_resnet.core.errors import CalibrationError, ConfigError
from edge_resnet.core.records import Progress
from edge_resnet.network.training.distributed import resolve_device
from edge_resnet.pipelines.engines import compile_written
from edge_resnet.quantization.int8 import Int8Options, add_int8, open_budget, open_calibration, with_int8
from edge_resnet.runtime.backend import load_backend, resolve_backend

__all__ = ["check_source", "requantize", "staged_copy"]


def requantize(
    artifact: Artifact,
    options: Int8Options,
    output: Path,
    *,
    backend: str = "auto",
    force: bool = False,
    progress: Progress | None = None,
) -> Artifact:
    """Make an INT8 artifact from the FP32 graph of any artifact, without its torch weights; ``artifact`` is not changed.

    Raises any of edge_resnet.core.errors.
    """
    check_source(artifact, output, backend=backend, allow_random=options.allow_random)
    resolve_device(options.device)
    budget = open_budget(options, artifact.manifest.model, artifact.labels)
    with (
        staged_copy(artifact, output, force=force) as folder,
        open_calibration(options, artifact.manifest.preprocess, folder) as images,
    ):
        made = add_int8(folder, images, options.recipe, budget, device=options.device, progress=progress)
        write_manifest(folder, with_int8(artifact.manifest, made, images.name))
    written = open_artifact(output)
    compile_written(written, backend, progress=progress)
    return written


def check_source(artifact: Artifact, output: Path, *, backend: str, allow_random: bool) -> None:
    """Refuse, before any long work, what cannot be made from ``artifact``.

    Raises ConfigError for an unknown backend or an ``output`` that is the artifact itself, CalibrationError for random weights.
    """
    load_backend(resolve_backend(backend))
    if artifact.manifest.model.weights == "random" and not allow_random:
        raise CalibrationError(
            f"{artifact.folder} has random weights, which have no ranges worth calibrating", hint="--allow-random to try"
        )
    if output.resolve() == artifact.folder.resolve():
        raise ConfigError(f"{output} is the artifact that is read", hint="choose another folder with -o")


@contextmanager
def staged_copy(artifact: Artifact, output: Path, *, force: bool = False) -> Iterator[Path]:
    """A folder with the graph and labels of ``artifact``, which becomes ``output`` if the block succeeds (see ``staging``)."""
    with staging(output, force=force) as folder:
        for name in (MODEL, LABELS):
            shutil.copyfile(artifact.folder / name, folder / name)
        yield folder
