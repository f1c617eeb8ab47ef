"""The demonstration: all steps on scikit-learn's handwritten digits, offline, in about a minute. Knows only their order."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.records import Precision, Preprocess, Progress, QuantRecipe, default_spec
from edge_resnet.core.statistics import LatencyStats, measure, summarise
from edge_resnet.images.datasets import load_named
from edge_resnet.images.imageset import ImageSet
from edge_resnet.images.preprocess import preprocess
from edge_resnet.measurement.accuracy import Evaluation, evaluate
from edge_resnet.network import build_network
from edge_resnet.network.training import TrainData, TrainOptions, fit
from edge_resnet.pipelines.build import BuildOptions, build
from edge_resnet.runtime.backend import open_backend
from edge_resnet.runtime.postprocess import top_k

__all__ = ["DemoResult", "Outcome", "run_demo"]

_PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")

SPEC = default_spec("cifar", 20)
#: Digits are white on black and the three channels are equal, so they share one mean and deviation.
PREPROCESS = Preprocess(resize=32, crop=32, mean=(0.305, 0.305, 0.305), std=(0.376, 0.376, 0.376))
TRAINING = TrainOptions(epochs=6, batch=64, rate=0.1, augment="shift", seed=0)
RECIPE = QuantRecipe(method="percentile", percentile=99.999, images=256, seed=0)
#: How long each latency is measured.
MEASURE_S = 1.5


@dataclass(frozen=True)
class Outcome:
    """One precision: its artifact's folder, its accuracy on the held-out digits, its latency at batch 1."""

    folder: str
    accuracy: Evaluation
    latency: LatencyStats


@dataclass(frozen=True)
class DemoResult:
    """Result of the demonstration.

    ``outcomes``: by precision. ``stream``: (true digit, predicted digit, probability) of frames classified by INT8, in order.
    """

    train_images: int
    train_seconds: float
    train_loss: float
    outcomes: dict[str, Outcome]
    stream: tuple[tuple[int, int, float], ...]


def run_demo(output: Path, *, force: bool = False, progress: Progress | None = None) -> DemoResult:
    """Train, export, calibrate, build FP32 and INT8 under ``output``, measure both, and classify a stream of frames.

    Everything is seeded, and nothing is downloaded.
    """
    train, test = load_named("digits", "train"), load_named("digits", "test")
    started = time.monotonic()
    weights, loss = _train(train, output, progress)
    seconds = time.monotonic() - started
    try:
        artifacts = {precision: _build(precision, weights, output, force, progress) for precision in _PRECISIONS}
    finally:
        weights.unlink(missing_ok=True)
    outcomes: dict[str, Outcome] = {precision: _measure(artifact, test, progress) for precision, artifact in artifacts.items()}
    return DemoResult(len(train), seconds, loss, outcomes, _classify_stream(artifacts["int8"], test))


def _train(digits: ImageSet, output: Path, progress: Progress | None) -> tuple[Path, float]:
    """Train ResNet-20 and save its weights to a file, like a user's own. Returns the file and the last loss."""
    torch.manual_seed(TRAINING.seed)
    network = build_network(SPEC)
    result = fit(network, TrainData(digits, None, PREPROCESS), TRAINING, progress=progress)
    output.mkdir(parents=True, exist_ok=True)
    path = output / "digits-resnet20.safetensors"
    save_file(network.state_dict(), path)
    return path, result.records[-1].train_loss


def _build(precision: Precision, weights: Path, output: Path, force: bool, progress: Progress | None) -> Artifact:
    options = BuildOptions(
        model=SPEC,
        preprocess=PREPROCESS,
        precision=precision,
        weights=str(weights),
        output=output / f"digits-resnet20-{precision}",
        labels=tuple(str(digit) for digit in range(10)),
        force=force,
    )
    if precision == "int8":
        options = replace(options, calibration_data="digits", recipe=RECIPE)
    return build(options, progress=progress)


def _measure(artifact: Artifact, test: ImageSet, progress: Progress | None) -> Outcome:
    accuracy = evaluate(artifact, test, progress=progress)
    with open_backend(artifact) as backend:
        frame = preprocess(test.load(0), PREPROCESS)[None]
        latency = summarise(measure(lambda: backend.infer(frame), warmup=50, seconds=MEASURE_S))
    return Outcome(str(artifact.folder), accuracy, latency)


def _classify_stream(artifact: Artifact, test: ImageSet, frames: int = 10) -> tuple[tuple[int, int, float], ...]:
    """Classify frames one at a time, as from a camera."""
    rows = []
    labels = test.labels or ()
    with open_backend(artifact) as backend:
        for index in range(frames):
            logits = backend.infer(preprocess(test.load(index), PREPROCESS)[None])
            best = top_k(logits[0], artifact.labels, 1)[0]
            rows.append((labels[index], best.class_index, best.probability))
    return tuple(rows)
