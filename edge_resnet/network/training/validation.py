"""Loss and error of a torch network on labelled images. Does not know about training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from edge_resnet.core.errors import DataError
from edge_resnet.core.records import Preprocess
from edge_resnet.images.imageset import ImageSet, batches, require_labels

__all__ = ["Score", "normalise", "score"]


@dataclass(frozen=True, eq=False)
class Score:
    """``loss``: mean cross-entropy. ``error``: in percent. Both are of the ``images`` images that could be read.

    ``logits`` (N, classes) and ``labels`` (N,) are None unless they were asked for.
    """

    loss: float
    error: float
    images: int
    logits: npt.NDArray[np.float32] | None = None
    labels: npt.NDArray[np.int64] | None = None


def score(network: nn.Module, images: ImageSet, preprocess: Preprocess, *, batch: int = 500, keep_logits: bool = False) -> Score:
    """Test ``network`` in float32 on its own device; its training mode is unchanged. Raises DataError without labels."""
    require_labels(images)
    device = next(network.parameters()).device
    training = [(module, module.training) for module in network.modules()]
    network.eval()
    loss, wrong, count = 0.0, 0, 0
    kept: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]] = []
    try:
        with torch.inference_mode():
            for part in batches(images, preprocess, batch):
                assert part.labels is not None
                labels = torch.from_numpy(part.labels).to(device)
                logits = network(normalise(torch.from_numpy(part.images).to(device), preprocess)).float()
                check_width(logits, part.labels, images)
                loss += float(F.cross_entropy(logits, labels, reduction="sum"))
                wrong += int((logits.argmax(1) != labels).sum())
                count += len(labels)
                if keep_logits:
                    kept.append((logits.cpu().numpy(), part.labels))
    finally:
        for module, mode in training:
            module.training = mode
    arrays = [np.concatenate(column) for column in zip(*kept, strict=True)] if kept else [None, None]
    return Score(loss / count, 100 * wrong / count, count, *arrays)


def normalise(pixels: torch.Tensor, preprocess: Preprocess, *, channels_last: bool = True) -> torch.Tensor:
    """(N, H, W, 3) uint8 → (N, 3, H, W) float32, normalised, channels last if asked for."""
    mean = torch.tensor(preprocess.mean, device=pixels.device).view(1, 3, 1, 1) * 255
    std = torch.tensor(preprocess.std, device=pixels.device).view(1, 3, 1, 1) * 255
    planes = pixels.permute(0, 3, 1, 2).float()
    return (planes if channels_last else planes.contiguous()).sub_(mean).div_(std)


def check_width(logits: torch.Tensor, labels: npt.NDArray[np.int64], images: ImageSet) -> None:
    """Raise DataError if a label exceeds the classes of the network."""
    highest = int(labels.max(initial=0))
    if logits.ndim != 2 or highest >= logits.shape[1]:
        hint = f"use --classes {highest + 1} or more, or the images that the network was made for"
        raise DataError(f"{images.name} has class {highest}, the network knows 0..{logits.shape[-1] - 1}", hint=hint)
