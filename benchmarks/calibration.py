"""Calibration against plain FP32 inference of the same graph on the same images, in turn in one process so that drift cancels.

    python benchmarks/calibration.py [--depths 18,50] [--images 512] [--rounds 5]

Prints images per second of both, medians over the rounds, and the ratio calibration / inference with its spread. Both take the
same batches and ONNX Runtime with its defaults. Weights are random and the images smooth: neither changes the time.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from edge_resnet.compiler.graph.qdq import measured_tensors
from edge_resnet.core.records import ModelSpec, Preprocess
from edge_resnet.device.machine import describe
from edge_resnet.network import build_network
from edge_resnet.network.export import Deployable, export
from edge_resnet.quantization.calibrate import CALIBRATION_BATCH, collect


def main() -> None:
    """Export each network to a temporary folder and time both in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depths", default="18,50")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    info = describe()
    print(f"{info.cpu}, {info.usable_cores} cores, ONNX Runtime {onnxruntime.__version__}, batch {CALIBRATION_BATCH}")
    print(f"{'network':<10} {'FP32 img/s':>11} {'calib. img/s':>13} {'ratio':>7}   spread over {arguments.rounds} rounds")
    for depth in map(int, arguments.depths.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            plain, counted, ratios = _race(Path(folder), ModelSpec(depth=depth), arguments.images, arguments.rounds)
        ratio = statistics.median(ratios)
        print(f"resnet{depth:<4} {plain:>11.1f} {counted:>13.1f} {ratio:>7.3f}   {min(ratios):.3f} to {max(ratios):.3f}")


def _race(folder: Path, spec: ModelSpec, count: int, rounds: int) -> tuple[float, float, list[float]]:
    """Median images per second of inference and of calibration, and their ratio per round."""
    path = folder / "model.onnx"
    export(Deployable(build_network(spec), Preprocess()).eval(), spec.input_size, path)
    tensors = measured_tensors(onnx.load(path))
    images = _images(count, spec.input_size)
    batches = [images[start : start + CALIBRATION_BATCH] for start in range(0, count, CALIBRATION_BATCH)]

    def infer() -> None:
        # Opened anew each time, because a calibration opens its own graph too.
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        feed = session.get_inputs()[0].name
        for batch in batches:
            session.run(None, {feed: batch})

    plain, counted = [], []
    _per_second(infer, count)
    for _ in range(rounds):
        plain.append(_per_second(infer, count))
        counted.append(_per_second(lambda: collect(path, tensors, batches, count), count))
    ratios = [b / a for a, b in zip(plain, counted, strict=True)]
    return statistics.median(plain), statistics.median(counted), ratios


def _per_second(work: Callable[[], object], count: int) -> float:
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def _images(count: int, size: int) -> np.ndarray:
    y, x = np.mgrid[0:size, 0:size] / size
    waves = np.random.default_rng(0).uniform(1, 9, (count, 3, 2))
    phase = waves[..., 0, None, None] * x + waves[..., 1, None, None] * y
    return np.ascontiguousarray((127.5 + 127.5 * np.sin(2 * np.pi * phase)).transpose(0, 2, 3, 1).astype(np.uint8))


if __name__ == "__main__":
    main()
