"""Images that can be learned in a second, and small networks that learn them, for the tests of training."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edge_resnet.core.records import Preprocess
from edge_resnet.images.imageset import ImageSet, from_arrays
from edge_resnet.network.training import TrainData, TrainOptions

SIDE = 16
PREPROCESS = Preprocess(SIDE, SIDE)
#: Four epochs of six steps, on the schedule that most use.
QUICK = TrainOptions(epochs=4, batch=16, rate=0.1, augment="shift", seed=0)


class LittleNet(nn.Module):
    """Two convolutions with batch norms: (N, 3, H, W) → (N, classes)."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Convolve, normalise, average over the image, classify."""
        x = torch.relu(self.bn1(self.conv1(images)))
        x = torch.relu(self.bn2(self.conv2(x)))
        logits: torch.Tensor = self.fc(x.mean((2, 3)))
        return logits


def little_net(classes: int = 4) -> LittleNet:
    """A network with the same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LittleNet(classes)


def stripes(count: int = 96, seed: int = 0) -> ImageSet:
    """Noisy stripes in four directions, which are the classes; mirroring would swap the diagonals."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    labels = np.arange(count) % 4
    waves = np.stack([x, y, x + y, x - y])[labels]
    phase = rng.uniform(0, 2 * np.pi, (count, 1, 1))
    grey = 127 + 80 * np.sin(waves * 1.5 + phase) + rng.normal(0, 20, (count, SIDE, SIDE))
    images = np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=3)
    return from_arrays("stripes", images, labels, ("upright", "level", "falling", "rising"))


def stripes_data() -> TrainData:
    """96 images for training and 48 others for testing."""
    return TrainData(stripes(), stripes(48, seed=1), PREPROCESS)


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks are equal to the bit."""
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)
