"""The checks that need no backend: the artifact that ships, preprocessing on the CPU, and the cameras."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from edge_resnet.deployment.selftest.check import Desk, Finding, NotHereError, WrongResultError
from edge_resnet.deployment.selftest.golden import preprocessed_frames, read_golden
from edge_resnet.device.cameras import list_cameras

__all__ = ["check_machine"]


def check_machine(desk: Desk, folder: Path) -> None:
    """Make them all. ``folder``: the artifact that ships."""
    desk.check("artifact", partial(_artifact, folder))
    desk.check("preprocessing", partial(_preprocessing, folder))
    desk.check("cameras", _cameras)


def _artifact(folder: Path) -> Finding:
    artifact, golden = read_golden(folder)
    files = len(artifact.manifest.files)
    return Finding(f"{artifact.manifest.model.name}, {files} files as built, {len(golden.images)} images with answers")


def _preprocessing(folder: Path) -> Finding:
    """Frames become the stored bytes within one step: the resizers round in different ways."""
    artifact, golden = read_golden(folder)
    found = preprocessed_frames(artifact.manifest.preprocess)
    worst = int(np.abs(found.astype(int) - golden.frames.astype(int)).max())
    if worst > 1:
        raise WrongResultError(f"{len(found)} frames differ from the stored ones by up to {worst} of 255", {"steps": worst})
    return Finding(f"{len(found)} frames of several sizes equal the stored ones (at most {worst} of 255 apart)", {"steps": worst})


def _cameras() -> Finding:
    """Cameras that this user may open. Their names are for the screen alone."""
    found = [camera for camera in list_cameras() if camera.captures]
    if not found:
        raise NotHereError("there is no /dev/video*")
    openable = [camera for camera in found if camera.openable]
    if not openable:
        raise NotHereError(f"{len(found)} found, none that this user may open: edge-resnet doctor has the fix")
    kinds = Counter(camera.kind for camera in openable)
    told = ", ".join(f"{count} {kind.upper()}" for kind, count in sorted(kinds.items()))
    names = ", ".join(f"{camera.path} {camera.name}".strip() for camera in openable)
    return Finding(told, {f"{kind}_cameras": count for kind, count in kinds.items()}, names)
