"""What a benchmark runs on: preprocessed images, the queries drawn from them, and a frame for the stages. Times nothing."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.errors import DataError
from edge_resnet.images.imageset import ImageSet, batches
from edge_resnet.images.preprocess import ImageArray
from edge_resnet.measurement.bench.rules import BenchOptions
from edge_resnet.runtime.backend import Images

__all__ = ["Inputs", "draw_queries", "prepare_inputs"]

#: Queries that are prepared before the measurement; a longer measurement repeats them.
_QUERIES = 4096
#: Images per call of preprocessing.
_BATCH = 32


@dataclass(frozen=True)
class Inputs:
    """``pool``: preprocessed images (N, size, size, 3) uint8 RGB. ``frame``: (H, W, 3) uint8 BGR. ``name``: of the images."""

    name: str
    pool: Images
    frame: ImageArray


def prepare_inputs(artifact: Artifact, options: BenchOptions, images: ImageSet | None, count: int) -> Inputs:
    """Preprocess ``count`` of ``images``, repeated if there are fewer; noise without ``images``.

    Raises DataError if no image can be read.
    """
    rng = np.random.default_rng(options.seed)
    size = artifact.manifest.model.input_size
    if images is None:
        width, height = options.frame
        pool = rng.integers(0, 256, (count, size, size, 3), np.uint8)
        return Inputs("random pixels", pool, rng.integers(0, 256, (height, width, 3), np.uint8))
    chosen = images.subset(sorted(rng.permutation(len(images))[:count].tolist()))
    ready = list(batches(chosen, artifact.manifest.preprocess, _BATCH))
    if not ready:
        raise DataError(f"no image of {images.name} can be read", hint="choose other images with --data")
    pool = np.concatenate([batch.images for batch in ready])
    frame = np.ascontiguousarray(chosen.load(ready[0].indices[0])[..., ::-1])
    return Inputs(images.name, np.resize(pool, (max(count, len(pool)), *pool.shape[1:])), frame)


def draw_queries(pool: Images, batch: int, seed: int) -> list[Images]:
    """Queries of ``batch`` images each, as views of adjacent images, so that none is copied."""
    draw = random.Random(seed)
    starts = [draw.randint(0, len(pool) - batch) for _ in range(_QUERIES)]
    return [pool[start : start + batch] for start in starts]
