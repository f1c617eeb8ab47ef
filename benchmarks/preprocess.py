"""Time of preprocessing compared with torchvision's on PIL images and on tensors (transforms and transforms.v2).

One thread each, in one run. Does not know about networks, and never fails: timings differ between machines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from edge_resnet.core.records import Preprocess
from edge_resnet.images.preprocess import ImageArray, preprocess

SIZES = ((640, 480), (1280, 720), (1920, 1080), (3840, 2160))
ROUNDS = 21


def main() -> None:
    """Print one line per image size: medians in milliseconds and torchvision's time as a multiple of ours."""
    try:
        import torch
        from torchvision.transforms import CenterCrop, Compose, Resize, v2
    except ImportError:
        print("torchvision is not installed: pip install 'edge-resnet[build]'")
        return
    torch.set_num_threads(1)
    spec = Preprocess()
    reference = Compose([Resize(spec.resize, antialias=True), CenterCrop(spec.crop)])
    newer = v2.Compose([v2.Resize(spec.resize, antialias=True), v2.CenterCrop(spec.crop)])
    rng = np.random.default_rng(0)
    names = ("ours", "PIL", "tensor", "v2 tensor")
    print(
        f"{'size':>10}"
        + "".join(f"{name + ' ms':>14}" for name in names)
        + "".join(f"{n + '/ours':>16}" for n in names[1:])
        + "  max diff"
    )
    for width, height in SIZES:
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        theirs = (partial(_pil, reference, image), partial(_tensor, reference, image), partial(_tensor, newer, image))
        medians = _medians_ms((partial(preprocess, image, spec), *theirs))
        wanted = np.asarray(reference(Image.fromarray(image))).astype(int)
        worst = int(np.abs(preprocess(image, spec) - wanted).max())
        size = f"{width}x{height}"
        ratios = "".join(f"{median / medians[0]:>16.2f}" for median in medians[1:])
        print(f"{size:>10}" + "".join(f"{median:>14.2f}" for median in medians) + ratios + f"{worst:>10d}")


def _pil(reference: Callable[[Any], Any], image: ImageArray) -> object:
    return np.array(reference(Image.fromarray(image)))


def _tensor(reference: Callable[[Any], Any], image: ImageArray) -> object:
    import torch

    return reference(torch.from_numpy(image).permute(2, 0, 1)).contiguous()


def _medians_ms(functions: Sequence[Callable[[], object]]) -> list[float]:
    """Median time of each function; they take turns, so that a busy moment of the machine affects all of them."""
    taken: list[list[float]] = [[] for _ in functions]
    for _ in range(ROUNDS):
        for function, times in zip(functions, taken, strict=True):
            begin = time.perf_counter()
            function()
            times.append((time.perf_counter() - begin) * 1e3)
    return [float(np.median(times)) for times in taken]


if __name__ == "__main__":
    main()
