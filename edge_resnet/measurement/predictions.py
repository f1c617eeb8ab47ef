"""What one or several networks predict for every image of a set; each image is decoded once for all of them.

Does not know about artifacts, engines or accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_resnet.core.records import Preprocess, Progress
from edge_resnet.images.imageset import ImageSet, batches
from edge_resnet.runtime.backend import Backend, Logits
from edge_resnet.runtime.postprocess import check_finite, softmax

__all__ = ["Predictions", "Tap", "predict_images"]

#: Takes each batch of the first network: indices into the set (n,), and logits (n, classes).
Tap: TypeAlias = Callable[[npt.NDArray[np.int64], Logits], object]

#: Images per call: enough to keep all cores busy, and few enough for the memory of any device.
BATCH = 8


@dataclass(frozen=True)
class Predictions:
    """What one network predicts for the images of a set, in the set's order.

    ``best`` is a class per image, -1 where the image cannot be read, and ``probability`` its probability in [0, 1]. ``in_top5``
    holds a ``1`` per image whose label is among the five best classes and a ``0`` for any other; it is empty without labels.
    """

    best: tuple[int, ...]
    probability: tuple[float, ...]
    in_top5: str


def predict_images(
    networks: Sequence[Backend],
    images: ImageSet,
    spec: Preprocess,
    *,
    progress: Progress | None = None,
    skipped: list[str] | None = None,
    tap: Tap | None = None,
) -> tuple[Predictions, ...]:
    """Classify every image with every network. The names of images that cannot be read are appended to ``skipped``.
    ``tap`` takes the logits of the first network, batch by batch.

    Raises DataError where too many images cannot be read, and BackendError where a logit is not a finite number.
    """
    collectors = [_Collector(images) for _ in networks]
    done = 0
    for batch in batches(images, spec, BATCH, skipped=skipped):
        if progress is not None:
            progress("evaluate", done, len(images))
        for place, (network, collector) in enumerate(zip(networks, collectors, strict=True)):
            logits = network.infer(batch.images)
            collector.add(batch.indices, logits, batch.labels)
            if tap is not None and place == 0:
                tap(batch.indices, logits)
        done += len(batch.images)
    if progress is not None:
        progress("evaluate", len(images), len(images))
    return tuple(collector.predictions() for collector in collectors)


class _Collector:
    """The predictions of one network so far."""

    def __init__(self, images: ImageSet) -> None:
        self._labelled = images.labels is not None
        self._best = np.full(len(images), -1)
        self._probability = np.zeros(len(images))
        self._in_top5 = np.zeros(len(images), bool)

    def add(self, indices: npt.NDArray[np.int64], logits: Logits, labels: npt.NDArray[np.int64] | None) -> None:
        """Add a batch: indices into the set (n,), logits (n, classes), labels (n,)."""
        check_finite(logits)
        top5 = np.argsort(-logits, axis=1, kind="stable")[:, :5]
        best = top5[:, :1]
        self._best[indices] = best[:, 0]
        self._probability[indices] = np.take_along_axis(softmax(logits), best, axis=1)[:, 0]
        if labels is not None:
            self._in_top5[indices] = (top5 == labels[:, None]).any(axis=1)

    def predictions(self) -> Predictions:
        """All of them."""
        in_top5 = "".join("01"[hit] for hit in self._in_top5.tolist()) if self._labelled else ""
        return Predictions(tuple(self._best.tolist()), tuple(self._probability.round(4).tolist()), in_top5)
