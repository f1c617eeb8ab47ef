"""INT8 anew: another calibration of an artifact's network, as an artifact of its own. Trains nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

from edge_resnet.artifact.folder import LABELS, MODEL, Artifact, open_artifact, staging, write_manifest
from edge_resnet.core.errors import CalibrationError, ConfigError
from edge_resnet.core.records import Progress
from edge_resnet.pipelines.engines import compile_written
from edge_resnet.quantization.int8 import Int8Options, add_int8, draw_sample, open_validation, with_int8
from edge_resnet.runtime.backend import load_backend, resolve_backend

__all__ = ["requantize"]


def requantize(
    artifact: Artifact,
    options: Int8Options,
    output: Path,
    *,
    backend: str = "auto",
    force: bool = False,
    progress: Progress | None = None,
) -> Artifact:
    """Make an INT8 artifact from the FP32 graph of any artifact, without its torch weights; ``artifact`` is left as it is."""
    load_backend(resolve_backend(backend))
    if artifact.manifest.model.weights == "random" and not options.allow_random:
        raise CalibrationError("random weights have no ranges worth calibrating", hint="--allow-random to try")
    if output.resolve() == artifact.folder.resolve():
        raise ConfigError(f"{output} is the artifact that is read", hint="choose another folder with -o")
    validation = open_validation(options, artifact.manifest.model, artifact.labels)
    sample = draw_sample(options)
    with staging(output, force=force) as folder:
        for name in (MODEL, LABELS):
            shutil.copyfile(artifact.folder / name, folder / name)
        made = add_int8(folder, artifact.manifest.preprocess, options, (sample, validation), progress=progress)
        write_manifest(folder, with_int8(artifact.manifest, made, sample.name))
    written = open_artifact(output)
    compile_written(written, backend, progress=progress)
    return written
