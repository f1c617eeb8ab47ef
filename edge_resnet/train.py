"""Training on images in memory: SGD with momentum, as He et al. 2015, with a one-cycle rate. Knows nothing of artifacts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from edge_resnet.datasets import augment
from edge_resnet.errors import ConfigError
from edge_resnet.spec import Preprocess, Progress

__all__ = ["TrainOptions", "fit"]


@dataclass(frozen=True)
class TrainOptions:
    """``rate``: the cycle's highest learning rate. ``flip``: mirror pictures, wrong for digits. ``seed``: of
    the order and the augmentation."""

    epochs: int = 8
    batch: int = 64
    rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    flip: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1 or self.rate <= 0:
            raise ConfigError("epochs, batch and rate must be positive", hint="for example epochs=8, batch=64, rate=0.1")


def fit(
    network: nn.Module,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    preprocess: Preprocess,
    options: TrainOptions,
    *,
    progress: Progress | None = None,
) -> float:
    """Train ``network`` in place on (N, H, W, 3) uint8 RGB and (N,) labels; returns the last epoch's mean loss.

    The augmentation is the paper's for CIFAR (section 4.2): pad by 4, crop at random, mirror. The same seed and machine give
    the same weights.
    """
    rng = np.random.default_rng(options.seed)
    mean = torch.tensor(preprocess.mean).view(1, 3, 1, 1) * 255
    std = torch.tensor(preprocess.std).view(1, 3, 1, 1) * 255
    steps = options.epochs * -(-len(images) // options.batch)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=options.rate, momentum=options.momentum, weight_decay=options.weight_decay, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=options.rate, total_steps=steps)
    network.train()
    done, total = 0, 0.0
    for _ in range(options.epochs):
        total = 0.0
        order = rng.permutation(len(images))
        for start in range(0, len(order), options.batch):
            chosen = order[start : start + options.batch]
            if progress is not None:
                progress("train", done, steps)
            pixels = torch.from_numpy(augment(images[chosen], rng, options.flip)).permute(0, 3, 1, 2).float()
            loss = F.cross_entropy(network((pixels - mean) / std), torch.from_numpy(labels[chosen]))
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(chosen)
            done += 1
    if progress is not None:
        progress("train", steps, steps)
    network.eval()
    return total / len(images)
