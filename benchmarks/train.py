"""Images per second of the training loop beside a bare torch loop on the same network and images, paired in one run.

The bare loop is what one would write by hand: images that are tensors already, no augmentation, no log, no schedule. Rounds
alternate, and each gives a ratio; the median and its range are printed, and the exit code is 3 below 0.9.

    python benchmarks/train.py --rounds 5 --steps 20
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import numpy as np
import torch
from torch.nn import functional as F

from edge_resnet.core.records import Preprocess, default_spec
from edge_resnet.images.imageset import from_arrays
from edge_resnet.network import build_network
from edge_resnet.network.training import TrainData, TrainOptions, fit
from edge_resnet.network.training.epoch import uses_bf16

SPEC = default_spec("cifar", 20)
PREPROCESS = Preprocess(32, 32)
WANTED = 0.9


def main() -> int:
    """Print a ratio per round, and their median."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--precision", choices=["fp32", "bf16", "auto"], default="auto")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (arguments.steps * arguments.batch, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, len(pixels))
    options = TrainOptions(epochs=1, batch=arguments.batch, precision=arguments.precision)
    ratios, work = [], []
    for number in range(arguments.rounds + 1):  # the first warms up
        speeds, seconds = [], []
        for loop in (bare, ours):
            before = time.process_time()
            speeds.append(loop(pixels, labels, options))
            seconds.append(time.process_time() - before)
        if number:
            ratios.append(speeds[1] / speeds[0])
            work.append(seconds[0] / seconds[1])
            print(f"round {number}: bare {speeds[0]:.0f} images/s, ours {speeds[1]:.0f}, ratio {ratios[-1]:.3f}", flush=True)
    median = statistics.median(ratios)
    threads = torch.get_num_threads()
    print(f"ratio {median:.3f} ({min(ratios):.3f} to {max(ratios):.3f}), {threads} threads, {arguments.precision}, {SPEC.name}")
    print(f"by processor time, set-up included, where others share the machine: {statistics.median(work):.3f}")
    return 0 if median >= WANTED else 3


def ours(pixels: np.ndarray, labels: np.ndarray, options: TrainOptions) -> float:
    """One epoch of fit: augmentation, schedule, running figures and all."""
    data = TrainData(from_arrays("noise", pixels, labels), None, PREPROCESS)
    return fit(network(), data, options).records[0].images_per_s


def bare(pixels: np.ndarray, labels: np.ndarray, options: TrainOptions) -> float:
    """Forward, loss, backward, step, in the same precision and memory format."""
    model = network().to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True)
    inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    targets = torch.from_numpy(labels)
    bf16 = uses_bf16(options.precision, torch.device("cpu"))
    started = time.monotonic()
    for start in range(0, len(inputs), options.batch):
        part = slice(start, start + options.batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(inputs[part])
        loss = F.cross_entropy(logits.float(), targets[part])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return len(pixels) / (time.monotonic() - started)


def network() -> torch.nn.Module:
    """The same weights each time."""
    torch.manual_seed(0)
    return build_network(SPEC)


if __name__ == "__main__":
    sys.exit(main())
