"""Predictions, frames and a full disk, for the tests of sinks."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from edge_resnet.runtime.postprocess import ClassScore
from edge_resnet.streaming.records import Answer, Frame, Prediction

#: 2026-11-25T14:15:02.123Z
WALL_NS = 1_795_616_102_123_000_000


@dataclass(frozen=True)
class Seen:
    """The content of a prediction."""

    label: str = "tabby"
    probability: float = 0.75
    source: str = "camera:0"
    changed: bool = True


def predicted(frame: int = 0, seen: Seen = Seen(), *, per_second: float = 30.0) -> Prediction:
    """A prediction of a source with a given frame rate."""
    captured_ns = round(frame * 1e9 / per_second)
    top = tuple(ClassScore(281 + place, f"{seen.label}{place or ''}", seen.probability / (place + 1)) for place in range(5))
    answer = Answer(281, seen.label, seen.probability, seen.changed)
    return Prediction(
        seen.source, frame, captured_ns, 4.5, top, {"preprocess": 1.0, "inference": 3.0}, WALL_NS + captured_ns, answer
    )


def with_image(frame: int = 0, *, height: int = 48, width: int = 64, source: str = "camera:0") -> Frame:
    """A smooth frame that becomes brighter with its number."""
    y, x = np.mgrid[0:height, 0:width]
    image = np.stack([x * 200 // width, y * 200 // height, np.full_like(x, 100 + frame % 100)], axis=-1).astype(np.uint8)
    return Frame(image, frame, 0, source)


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Inside the block no file of this process grows beyond ``size`` bytes: a write is cut off there, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
