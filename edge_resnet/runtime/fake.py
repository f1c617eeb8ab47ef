"""A backend without a network: its predictions depend on the image alone, so that a pipeline can be tried on any machine.

Does not read weights, and its predictions mean nothing.
"""

from __future__ import annotations

from types import TracebackType

import numpy as np

from edge_resnet.artifact.enginecache import EngineTuning
from edge_resnet.artifact.folder import Artifact
from edge_resnet.runtime.backend import (
    BackendInfo,
    EngineForm,
    EngineRequest,
    Images,
    Logits,
    Requirement,
    Variant,
    check_images,
    refuse_tuning,
)

__all__ = ["BACKEND", "FakeBackend"]

#: Each image is averaged over a grid of this side before it is projected onto the classes.
_GRID = 4


class FakeBackend:
    """Logits by a seeded projection of the image's coarse colours: deterministic, and the same in a batch as for one image."""

    name = "fake"

    def __init__(self, classes: int, input_size: int = 32) -> None:
        rng = np.random.default_rng(0)
        self._projection = rng.standard_normal((_GRID * _GRID * 3, classes)).astype(np.float32)
        self._edges = np.linspace(0, input_size, _GRID + 1).astype(int)[:-1]
        self._input_size = input_size
        self._closed = False
        self.classes = classes

    @classmethod
    def engine_request(cls, artifact: Artifact, variant: Variant, tuning: EngineTuning | None = None) -> EngineRequest | None:  # noqa: ARG003 - the protocol's signature
        """None: there is nothing to derive."""
        refuse_tuning(tuning)
        return None

    @classmethod
    def open(cls, artifact: Artifact, variant: Variant) -> FakeBackend:  # noqa: ARG003 - the protocol's signature
        """Take only the number of classes and the input size from the artifact."""
        return cls(artifact.manifest.model.classes, artifact.manifest.model.input_size)

    def infer(self, images: Images) -> Logits:
        """(N, H, W, 3) uint8 RGB → logits (N, classes) float32, which belong to the caller."""
        check_images(images, self._input_size, closed=self._closed)
        return np.stack([self._one(image) for image in images])

    def close(self) -> None:
        """Refuse further calls."""
        self._closed = True

    def __enter__(self) -> FakeBackend:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()

    def _one(self, image: Images) -> Logits:
        sums = np.add.reduceat(np.add.reduceat(image, self._edges, axis=0, dtype=np.int64), self._edges, axis=1)
        features = (sums.reshape(-1) / (self._input_size / _GRID) ** 2 / 255).astype(np.float32)
        logits: Logits = (features[:, None] * self._projection).sum(axis=0, dtype=np.float32)
        return logits


BACKEND = BackendInfo(load=lambda: FakeBackend, requirements=(Requirement("numpy", "numpy"),), form=EngineForm("graph"))
