"""The checkpoints that ship with the package, and downloads of weights checked by sha256. Does not know about networks.

Each folder in ``calibration/checkpoints`` holds ``checkpoint.json`` and ``weights.safetensors``, ``calibration.json`` and
``corrections.npz`` as in an artifact, and ``log.csv`` and ``result.json`` of the training.
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
from edge_resnet.core.staging import sweep

if TYPE_CHECKING:
    from importlib.abc import Traversable  # its place in Python 3.10

__all__ = ["Checkpoint", "download", "shipped_checkpoint"]

TIMEOUT_S = 30.0
#: Bytes per read of a download.
BLOCK = 1 << 18

_RECORD, _WEIGHTS = "checkpoint.json", "weights.safetensors"


def download(url: str, target: Path, sha256_prefix: str, *, progress: Progress | None = None) -> Path:
    """Download ``url`` to ``target`` unless the file exists. In both cases its sha256 must start with ``sha256_prefix``.

    Progress counts bytes. Raises WeightsError that names the URL and the target if the download fails or is incomplete, or the
    hash differs; ``target`` is then unchanged.
    """

    def fetch(part: Path) -> None:
        digest = _stream(url, part, progress)
        if not digest.startswith(sha256_prefix):
            raise WeightsError(
                f"{url} has sha256 {digest[:12]}…, not {sha256_prefix}…",
                hint="try again, or use a file: edge-resnet build --weights PATH",
            )

    try:
        if target.exists():
            sweep(target.parent)
            if not sha256_of(target).startswith(sha256_prefix):
                raise WeightsError(f"{target} is damaged: its sha256 does not start with {sha256_prefix}", hint=f"rm {target}")
            return target
        replace_files({target: fetch})
    except (OSError, HTTPException, ValueError) as error:  # ValueError: a URL or a header that cannot be parsed
        reason = getattr(error, "reason", error)
        if isinstance(error, HTTPError):
            reason = error  # its text includes the status, which its reason does not
            error.close()  # it also holds the open response
        raise WeightsError(
            f"cannot download {url}: {reason}",
            hint=f"download it on another machine to {target}, or use a file: edge-resnet build --weights PATH",
        ) from error
    return target


def _stream(url: str, part: Path, progress: Progress | None) -> str:
    """Write the response to ``part`` and return its sha256. Raises OSError for an incomplete response."""
    digest = hashlib.sha256()
    with urlopen(url, timeout=TIMEOUT_S) as response, part.open("wb") as file:  # noqa: S310 - torchvision's own https addresses
        total, done = int(response.headers.get("Content-Length") or 0), 0
        if progress is not None:
            progress("download", 0, total)
        while block := response.read(BLOCK):
            file.write(block)
            digest.update(block)
            done += len(block)
            if progress is not None:
                progress("download", done, max(total, done))
    if total and done != total:
        raise OSError(f"the connection ended after {done} of {total} bytes")
    return digest.hexdigest()


@dataclass(frozen=True)
class Checkpoint:
    """A trained network with its calibration.

    ``model``: the network; its ``weights`` is the checkpoint's id. ``preprocess``: as in training. ``sha256``: of the weights
    file. ``top1``: accuracy on ``images`` in percent. ``calibrated_on``: the calibration set.
    """

    model: ModelSpec
    preprocess: Preprocess
    sha256: str
    top1: float
    images: str
    calibrated_on: str
    folder: Traversable

    def weights(self) -> bytes:
        """The content of the safetensors file. Raises WeightsError if its hash is not ``sha256``."""
        content = (self.folder / _WEIGHTS).read_bytes()
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise WeightsError(
                f"the checkpoint {self.model.weights} of this installation is damaged", hint="reinstall edge-resnet"
            )
        return content

    def fits(self, model: ModelSpec) -> bool:
        """Whether ``model`` is this network, ignoring the weights."""
        return replace(model, weights=self.model.weights) == self.model


def shipped_checkpoint(model: ModelSpec) -> Checkpoint | None:
    """The checkpoint that ships for this network, or None."""
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
