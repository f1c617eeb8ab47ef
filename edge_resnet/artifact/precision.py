"""An artifact of another precision from the same graph, without exporting or calibrating again. Loads neither onnx nor torch."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from edge_resnet.artifact.folder import (
    CALIBRATION,
    CORRECTIONS,
    LABELS,
    MANIFEST,
    MODEL,
    Artifact,
    open_artifact,
    staging,
    write_json,
)
from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import BatchProfile, Precision

__all__ = ["with_precision"]


def with_precision(artifact: Artifact, precision: Precision, batch: BatchProfile, folder: Path) -> Artifact:
    """The same graph as an artifact of another precision and batch profile, in ``folder``; kept if it exists already.

    Raises ConfigError for INT8 from an artifact without ranges, and what ``staging`` raises.
    """
    if precision == "int8" and artifact.manifest.precision != "int8":
        raise ConfigError(f"{artifact.folder} has no ranges to derive INT8 from", hint="give an INT8 artifact")
    ranges = {CALIBRATION, CORRECTIONS} if precision == "int8" else set()
    kept = {name: entry for name, entry in artifact.manifest.files.items() if name in {MODEL, LABELS} | ranges}
    if folder.exists():
        there = open_artifact(folder)
        if (there.manifest.files, there.manifest.precision, there.manifest.batch) == (kept, precision, batch):
            return there
    with staging(folder, force=True) as work:
        for name in kept:
            shutil.copyfile(artifact.folder / name, work / name)
        changed = replace(artifact.manifest, precision=precision, batch=batch, files=kept)
        if precision != "int8":
            changed = replace(changed, recipe=None, calibration=None, budget=None)
        write_json(work / MANIFEST, changed)
    return open_artifact(folder)
