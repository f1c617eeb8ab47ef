"""Prints how long preprocessing takes beside torchvision's PIL and tensor paths, one thread each, in one run.

Knows nothing of networks, and judges nothing: timings differ between machines, so it never fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from edge_resnet.preprocess import Picture, preprocess
from edge_resnet.spec import Preprocess

SIZES = ((640, 480), (1280, 720), (1920, 1080), (3840, 2160))
ROUNDS = 21


def main() -> None:
    """Print one line per picture size: medians in milliseconds and torchvision's time as a multiple of ours."""
    try:
        import torch
        from torchvision.transforms import v2
    except ImportError:
        print("torchvision is not installed: pip install 'edge-resnet[build]'")
        return
    torch.set_num_threads(1)
    spec = Preprocess()
    reference = v2.Compose([v2.Resize(spec.resize, antialias=True), v2.CenterCrop(spec.crop)])
    rng = np.random.default_rng(0)
    print(f"{'size':>10} {'ours_ms':>8} {'pil_ms':>8} {'tensor_ms':>10} {'pil/ours':>9} {'tensor/ours':>12} {'max diff':>9}")
    for width, height in SIZES:
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        ways = (partial(preprocess, image, spec), partial(_pil, reference, image), partial(_tensor, reference, image))
        ours, pil, tensor = _medians_ms(ways)
        wanted = np.asarray(reference(Image.fromarray(image))).astype(int)
        worst = int(np.abs(preprocess(image, spec) - wanted).max())
        size = f"{width}x{height}"
        print(f"{size:>10} {ours:8.2f} {pil:8.2f} {tensor:10.2f} {pil / ours:9.2f} {tensor / ours:12.2f} {worst:9d}")


def _pil(reference: Callable[[Any], Any], image: Picture) -> object:
    return np.array(reference(Image.fromarray(image)))


def _tensor(reference: Callable[[Any], Any], image: Picture) -> object:
    import torch

    return reference(torch.from_numpy(image).permute(2, 0, 1)).contiguous()


def _medians_ms(ways: Sequence[Callable[[], object]]) -> list[float]:
    """Median of each way; they take turns, so that a busy moment of the machine meets all of them."""
    taken: list[list[float]] = [[] for _ in ways]
    for _ in range(ROUNDS):
        for way, times in zip(ways, taken, strict=True):
            begin = time.perf_counter()
            way()
            times.append((time.perf_counter() - begin) * 1e3)
    return [float(np.median(times)) for times in taken]


if __name__ == "__main__":
    main()
