"""The artifact that ships for the self-test, with its images and their logits. Does not run a network.

``benchmarks/selftest_artifact.py`` makes it from the shipped weights: a ResNet-20 for CIFAR-10 whose images are seeded noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_resnet.artifact.folder import Artifact, open_artifact
from edge_resnet.core.errors import ArtifactError
from edge_resnet.core.records import BatchProfile, Preprocess
from edge_resnet.images.preprocess import ImageArray, preprocess_bgr
from edge_resnet.runtime.backend import Images, Logits

__all__ = [
    "ARTIFACT",
    "CPU_FORMS",
    "GOLDEN",
    "PROFILE",
    "Golden",
    "frames",
    "preprocessed_frames",
    "read_golden",
    "smooth_images",
]

#: The folder of the artifact. Package data, and never written to: engines are derived in copies.
ARTIFACT = Path(__file__).resolve().parent / "resnet20-cifar-int8"
#: The file in the artifact that holds images and logits.
GOLDEN = "golden.npz"
#: The INT8 graphs for processors that ship with it, so that a device without onnx runs INT8 too.
CPU_FORMS = ("u8s8", "u8s7")
#: The batch sizes of its engines. A larger batch runs in pieces.
PROFILE = BatchProfile(1, 8, 16)
#: Height and width of the frames that are preprocessed: of a camera, odd, tiny, upright, and the network's input.
_SIZES = ((480, 640), (333, 777), (97, 101), (5, 3), (641, 479), (32, 32))


@dataclass(frozen=True)
class Golden:
    """``images``: (N, 32, 32, 3) uint8 RGB. ``frames``: what preprocessing makes of ``frames()``. ``logits``: form → (N, 10)
    float32, where a form is ``fp32``, ``tensorrt`` for its INT8, or one of ``CPU_FORMS``."""

    images: Images
    frames: Images
    logits: Mapping[str, Logits]


def read_golden(folder: Path = ARTIFACT) -> tuple[Artifact, Golden]:
    """The artifact, with every hash checked, and its images and logits. Raises ArtifactError if the installation is damaged."""
    artifact = open_artifact(folder)
    if GOLDEN not in artifact.manifest.files:
        raise ArtifactError(f"{folder} has no {GOLDEN}", hint="reinstall edge-resnet")
    with np.load(folder / GOLDEN, allow_pickle=False) as content:
        arrays = dict(content)
    return artifact, Golden(arrays.pop("images"), arrays.pop("frames"), arrays)


def frames() -> list[ImageArray]:
    """Frames (H, W, 3) uint8 BGR of odd and common sizes, whose neighbouring values differ; computed in whole numbers."""
    found = []
    for height, width in _SIZES:
        y, x, channel = np.ogrid[:height, :width, :3]
        found.append(((y * 31 + x * 17 + channel * 101 + (x * y) % 251) % 256).astype(np.uint8))
    return found


def preprocessed_frames(spec: Preprocess) -> Images:
    """The network's input for ``frames()``, (N, crop, crop, 3) uint8 RGB, computed by this processor."""
    return np.stack([preprocess_bgr(frame, spec) for frame in frames()])


def smooth_images(count: int, side: int, seed: int = 0) -> Images:
    """Seeded smooth images (N, side, side, 3) uint8, for networks that come without images of their own."""
    y, x = np.mgrid[0:side, 0:side] / side
    waves = np.random.default_rng(seed).uniform(1, 12, (count, 3, 2))
    phase = waves[..., 0, None, None] * x + waves[..., 1, None, None] * y
    return np.ascontiguousarray((127.5 + 127.5 * np.sin(2 * np.pi * phase)).astype(np.uint8).transpose(0, 2, 3, 1))
