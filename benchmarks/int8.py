"""INT8 against FP32 of the same networks in ONNX Runtime at batch 1, alternating in one process so that drift cancels.

    python benchmarks/int8.py [--depths 18,50] [--seconds 10] [--calib-data SET] [--weights PATH for one depth]

Prints medians and the ratio INT8 / FP32 with its spread over rounds. By default the weights are random, which does not change the
latency.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.records import ModelSpec, Preprocess, QuantRecipe
from edge_resnet.device.machine import describe
from edge_resnet.pipelines.build import BuildOptions, build
from edge_resnet.runtime.backend import Backend, open_backend

ROUNDS = 20


def main() -> None:
    """Build each network in a temporary folder and time both precisions alternately."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depths", default="18,50")
    parser.add_argument("--seconds", type=float, default=10.0, help="per network, both precisions together")
    parser.add_argument("--calib-data", help="a path or a name (default: smooth seeded images)")
    parser.add_argument("--weights", default="random")
    arguments = parser.parse_args()
    info = describe()
    print(f"{info.cpu}, {info.usable_cores} cores, int8 dot product: {info.has_int8_dot_product}")
    print(f"{'network':<10} {'FP32 ms':>9} {'INT8 ms':>9} {'INT8/FP32':>10}   spread over {ROUNDS} rounds")
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.calib_data or _images(Path(folder))
        for depth in map(int, arguments.depths.split(",")):
            artifact = _build(depth, arguments.weights, data, Path(folder))
            fp32, int8, ratios = _race(artifact, arguments.seconds)
            ratio = statistics.median(ratios)
            print(f"resnet{depth:<4} {fp32:>9.2f} {int8:>9.2f} {ratio:>10.3f}   {min(ratios):.3f} to {max(ratios):.3f}")


def _build(depth: int, weights: str, data: str, folder: Path) -> Artifact:
    options = BuildOptions(
        model=ModelSpec(depth=depth),
        preprocess=Preprocess(),
        precision="int8",
        weights=weights,
        output=folder / f"r{depth}",
        calibration_data=data,
        recipe=QuantRecipe(images=16),
        allow_random=True,
    )
    return build(options)


def _race(artifact: Artifact, seconds: float) -> tuple[float, float, list[float]]:
    """Median milliseconds of FP32 and INT8, and their ratio per round."""
    size = artifact.manifest.model.input_size
    image = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    samples: dict[str, list[float]] = {"reference": [], "native": []}
    with open_backend(artifact, variant="reference") as fp32, open_backend(artifact) as int8:
        for _ in range(ROUNDS):
            samples["reference"].append(_median_ms(fp32, image, seconds / ROUNDS / 2))
            samples["native"].append(_median_ms(int8, image, seconds / ROUNDS / 2))
    ratios = [b / a for a, b in zip(samples["reference"], samples["native"], strict=True)]
    return statistics.median(samples["reference"]), statistics.median(samples["native"]), ratios


def _median_ms(backend: Backend, image: np.ndarray, seconds: float) -> float:
    for _ in range(3):
        backend.infer(image)
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        backend.infer(image)
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)


def _images(folder: Path) -> str:
    """Smooth images: the latency of INT8 does not depend on their content."""
    y, x = np.mgrid[0:256, 0:256] / 256
    waves = np.random.default_rng(0).uniform(1, 9, (16, 3, 2))
    phase = waves[..., 0, None, None] * x + waves[..., 1, None, None] * y
    images = (127.5 + 127.5 * np.sin(2 * np.pi * phase)).transpose(0, 2, 3, 1).astype(np.uint8)
    path = folder / "images.npz"
    np.savez(path, images=images)
    return str(path)


if __name__ == "__main__":
    main()
