"""The checkpoints that come with the package, each with what its INT8 derives from. Knows nothing of networks and graphs.

A folder of ``calibration/checkpoints``: ``checkpoint.json``, ``weights.safetensors``, ``calibration.json`` and
``corrections.npz`` as an artifact has them, and of the training ``log.csv`` and ``result.json``.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from edge_resnet.core.errors import WeightsError
from edge_resnet.core.records import ModelSpec, Preprocess

if TYPE_CHECKING:
    from importlib.abc import Traversable  # where Python 3.10 has it

__all__ = ["Checkpoint", "shipped_checkpoint"]

_RECORD, _WEIGHTS = "checkpoint.json", "weights.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """``model``: the network, its ``weights`` the checkpoint's id. ``preprocess``: what it was trained with. ``sha256``: of the
    weights, which the ranges belong to. ``top1``: measured, in percent of ``images``. ``calibrated_on``: the pictures."""

    model: ModelSpec
    preprocess: Preprocess
    sha256: str
    top1: float
    images: str
    calibrated_on: str
    folder: Traversable

    def weights(self) -> bytes:
        """The safetensors file. Raises WeightsError where it is not the one that was measured."""
        content = (self.folder / _WEIGHTS).read_bytes()
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise WeightsError(f"the checkpoint {self.model.weights} of this installation is damaged", hint="install it again")
        return content

    def fits(self, model: ModelSpec) -> bool:
        """Whether it is this network, whatever its weights."""
        return replace(model, weights=self.model.weights) == self.model


def shipped_checkpoint(model: ModelSpec) -> Checkpoint | None:
    """The checkpoint for a network of these shapes; None where none ships."""
    root = resources.files("edge_resnet.calibration") / "checkpoints"
    folders = sorted((entry for entry in root.iterdir() if (entry / _RECORD).is_file()), key=lambda entry: entry.name)
    return next((found for found in map(_read, folders) if found.fits(model)), None)


def _read(folder: Traversable) -> Checkpoint:
    record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    return Checkpoint(
        model=TypeAdapter(ModelSpec).validate_python(record["model"]),
        preprocess=TypeAdapter(Preprocess).validate_python(record["preprocess"]),
        sha256=record["sha256"],
        top1=record["top1"],
        images=record["images"],
        calibrated_on=record["calibrated_on"],
        folder=folder,
    )
