"""The checkpoints that come with the package, each with what its INT8 derives from. Knows nothing of networks and graphs.

A folder of ``calibration/checkpoints``: ``checkpoint.json``, ``weights.safetensors``, ``calibration.json`` and
``corrections.npz`` as an artifact has them, and of the training ``log.csv`` and ``result.json``.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from http.client import HTTPException
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import urlopen

from pydantic import TypeAdapter

from edge_resnet.core.errors import WeightsError
from edge_resnet.core.files import replace_files, sha256_of
from edge_resnet.core.records import ModelSpec, Preprocess, Progress

if TYPE_CHECKING:
    from importlib.abc import Traversable  # where Python 3.10 has it

__all__ = ["Checkpoint", "download", "shipped_checkpoint"]


TIMEOUT_S = 30.0


BLOCK = 1 << 18


def download(url: str, target: Path, sha256_prefix: str, *, progress: Progress | None = None) -> Path:
    """Fetch ``url`` to ``target`` unless it is there; either way its sha256 must begin with ``sha256_prefix``.

    Progress counts bytes. Raises WeightsError that names the URL and the target where there is no network, the answer is cut
    short, or the hash differs; then nothing is left at ``target`` that was not there before.
    """

    def fetch(part: Path) -> None:
        digest = _stream(url, part, progress)
        if not digest.startswith(sha256_prefix):
            raise WeightsError(
                f"{url} has sha256 {digest[:12]}…, not {sha256_prefix}…", hint="try again; --weights PATH takes a file"
            )

    try:
        if target.exists():
            if not sha256_of(target).startswith(sha256_prefix):
                raise WeightsError(f"{target} is damaged: its sha256 does not begin with {sha256_prefix}", hint=f"rm {target}")
            return target
        replace_files({target: fetch})
    except (OSError, HTTPException, ValueError) as error:  # ValueError: an address or a header that cannot be parsed
        reason = getattr(error, "reason", error)
        if isinstance(error, HTTPError):
            reason = error  # with the status, which its reason lacks
            error.close()  # it is the open answer as well
        raise WeightsError(
            f"cannot download {url}: {reason}",
            hint=f"fetch it elsewhere and put it at {target}, or name a file with --weights PATH",
        ) from error
    return target


def _stream(url: str, part: Path, progress: Progress | None) -> str:
    """Write the answer to ``part`` and return its sha256; a cut answer is an OSError."""
    digest = hashlib.sha256()
    with urlopen(url, timeout=TIMEOUT_S) as answer, part.open("wb") as file:  # noqa: S310 - torchvision's own https addresses
        total, done = int(answer.headers.get("Content-Length") or 0), 0
        if progress is not None:
            progress("download", 0, total)
        while block := answer.read(BLOCK):
            file.write(block)
            digest.update(block)
            done += len(block)
            if progress is not None:
                progress("download", done, max(total, done))
    if total and done != total:
        raise OSError(f"the connection ended after {done} of {total} bytes")
    return digest.hexdigest()


_RECORD, _WEIGHTS = "checkpoint.json", "weights.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """``model``: the network, its ``weights`` the checkpoint's id. ``preprocess``: what it was trained with. ``sha256``: of the
    weights, which the ranges belong to. ``top1``: measured, in percent of ``images``. ``calibrated_on``: the images."""

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
