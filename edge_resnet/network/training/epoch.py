"""One epoch of SGD with momentum (He et al. 2015, sections 3.4 and 4.2), with weight averaging and bfloat16 if asked for.

Does not know where images come from, nor about tests and checkpoints.
"""

from __future__ import annotations

import copy
import inspect
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from edge_resnet.core.records import Preprocess, Progress
from edge_resnet.network.training.distributed import World
from edge_resnet.network.training.loader import TrainBatch, TrainLoader
from edge_resnet.network.training.options import TrainObserver, TrainOptions, TrainPrecision
from edge_resnet.network.training.schedule import WarmUp, rate_at
from edge_resnet.network.training.validation import normalise

__all__ = ["Diverged", "EpochLosses", "Learner", "WeightAverage", "total_steps", "train_epoch", "uses_bf16"]

#: Steps between two checks of the loss on a GPU: reading it waits for the GPU.
_CHECK_EVERY = 20
#: Linux's names for instructions that multiply bfloat16: AMX and AVX512 on x86, Armv8.6 and later on ARM.
_BF16_FLAGS = frozenset({"amx_bf16", "avx512_bf16", "bf16"})
_CPUINFO = Path("/proc/cpuinfo")


class Diverged(Exception):  # noqa: N818 - not an error: a reason to stop, reported in the result
    """The loss is not finite."""


class WeightAverage:
    """An exponential moving average of a network's weights. ``network`` is the average, in eval mode.

    The decay grows as (1 + step) / (10 + step) up to ``decay``, so that the initial random weights are soon forgotten. Batch
    norm statistics are averaged like weights, because the statistics of one step belong to the weights of that step.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move the average towards ``network`` after its ``step``-th step, counted from 0."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        averaged, current = self.network.state_dict(), network.state_dict()
        floats = [name for name, value in averaged.items() if value.is_floating_point()]
        torch._foreach_lerp_([averaged[name] for name in floats], [current[name] for name in floats], share)
        for name in averaged.keys() - set(floats):
            averaged[name].copy_(current[name])


@dataclass(eq=False)
class Learner:
    """A network in training, with everything that changes at a step.

    ``wrapped`` computes the network: DistributedDataParallel under torchrun, else the network itself. ``step``: steps done.
    """

    network: nn.Module
    wrapped: nn.Module
    optimizer: torch.optim.SGD
    average: WeightAverage | None
    warm_up: WarmUp
    options: TrainOptions
    preprocess: Preprocess
    world: World
    step: int = 0

    @classmethod
    def of(cls, network: nn.Module, options: TrainOptions, preprocess: Preprocess, world: World) -> Learner:
        """A new learner for ``network``, which is on the world's device."""
        wrapped: nn.Module = network
        if world.size > 1:
            # Statistics are averaged at the end of an epoch. Broadcast from rank 0 at every step, those of the others would be
            # lost. torch 2.13 renamed the parameter.
            known = inspect.signature(DistributedDataParallel).parameters
            parameter = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
            no_broadcast: dict[str, Any] = {parameter: False}
            wrapped = DistributedDataParallel(network, **no_broadcast)
        average = None if options.ema is None else WeightAverage(network, options.ema)
        return cls(network, wrapped, _optimizer(network, options), average, WarmUp(options.warm_up), options, preprocess, world)


@dataclass(frozen=True)
class EpochLosses:
    """One epoch: the last learning rate, mean training loss, training error in percent, images over all processes."""

    rate: float
    loss: float
    error: float
    images: int
    seconds: float


def total_steps(options: TrainOptions, loader: TrainLoader) -> int:
    """Steps of the whole training, at least one."""
    return max(1, round(options.epochs * loader.steps))


def train_epoch(learner: Learner, loader: TrainLoader, epoch: int, last: int, progress: Progress | None) -> EpochLosses:
    """Train epoch ``epoch``, counted from 0, at most up to step ``last``. Raises Diverged if the loss is not finite."""
    steps = total_steps(learner.options, loader)
    started = time.monotonic()
    # What the network itself draws (dropout) depends on the epoch, so that a checkpoint needs no generator state.
    sequence = np.random.SeedSequence([learner.options.seed, epoch, learner.world.rank])
    torch.manual_seed(int(sequence.generate_state(1)[0]))
    totals = _EpochTotals(learner.world)
    rate = 0.0
    with _learning(learner.network):
        for batch in loader.epoch(epoch):
            if learner.step >= last:
                break
            rate = learner.warm_up.rate(rate_at(learner.options, learner.step, steps))
            loss, wrong = _step(learner, batch, rate)
            totals.add(loss, wrong, len(batch[1]))
            if learner.warm_up.active:
                error, images = learner.world.total([float(wrong), float(len(batch[1]))])
                learner.warm_up.add(100 * error / images)
            learner.step += 1
            if learner.world.device.type == "cpu" or learner.step % _CHECK_EVERY == 0:
                totals.check(progress, epoch)
                if progress is not None:
                    progress("train", learner.step, steps)
    mean_loss, mean_error, count = totals.means()
    if not all(bool(torch.isfinite(parameter).all()) for parameter in learner.network.parameters()):
        raise Diverged
    return EpochLosses(rate, mean_loss, mean_error, count, time.monotonic() - started)


def _step(learner: Learner, batch: TrainBatch, rate: float) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of SGD. Returns the summed loss and the number of wrong predictions, both on the device."""
    device, options = learner.world.device, learner.options
    pixels, labels = (tensor.to(device, non_blocking=True) for tensor in batch)
    inputs = normalise(pixels, learner.preprocess, channels_last=options.channels_last)
    for group in learner.optimizer.param_groups:
        group["lr"] = rate
    with torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(options.precision, device)):
        logits = learner.wrapped(inputs)
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=options.label_smoothing)
    learner.optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    learner.optimizer.step()
    if learner.average is not None:
        learner.average.update(learner.network, learner.step)
    with torch.no_grad():
        return loss.detach() * len(labels), (logits.argmax(1) != labels).sum()


class _EpochTotals:
    """Sums over an epoch, kept on the device."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._loss = torch.zeros((), device=world.device, dtype=torch.float64)
        self._wrong = torch.zeros((), device=world.device, dtype=torch.int64)
        self._images = 0

    def add(self, loss: torch.Tensor, wrong: torch.Tensor, images: int) -> None:
        self._loss += loss
        self._wrong += wrong
        self._images += images

    def check(self, progress: Progress | None, epoch: int) -> None:
        """Give an observer the means of this process's images so far. Raises Diverged if the loss is not finite."""
        loss = float(self._loss) / self._images
        # Several processes must stop together: they check at the end of the epoch.
        if not math.isfinite(loss) and self._world.size == 1:
            raise Diverged
        if isinstance(progress, TrainObserver):
            progress.running(epoch + 1, loss, 100 * float(self._wrong) / self._images)

    def means(self) -> tuple[float, float, int]:
        """Mean loss, error in percent and number of images, over all processes. Raises Diverged if the loss is not finite."""
        loss, wrong, images = self._world.total([float(self._loss), float(self._wrong), float(self._images)])
        if not math.isfinite(loss):
            raise Diverged
        return loss / images, 100 * wrong / images, int(images)


@contextmanager
def _learning(network: nn.Module) -> Iterator[None]:
    """Train mode, except for frozen batch norms: their statistics belong to weights that do not change."""
    network.train()
    for module in network.modules():
        own = list(module.parameters(recurse=False))
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and own and not any(p.requires_grad for p in own):
            module.eval()
    try:
        yield
    finally:
        network.eval()


def _optimizer(network: nn.Module, options: TrainOptions) -> torch.optim.SGD:
    """SGD on the parameters that are not frozen; without ``decay_norms``, biases and batch norms have no weight decay."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    undecayed = [] if options.decay_norms else [parameter for parameter in trainable if parameter.ndim <= 1]
    excluded = {id(parameter) for parameter in undecayed}
    groups = [{"params": [p for p in trainable if id(p) not in excluded], "weight_decay": options.weight_decay}]
    if undecayed:
        groups.append({"params": undecayed, "weight_decay": 0.0})
    return torch.optim.SGD(groups, lr=options.rate, momentum=options.momentum, nesterov=options.nesterov)


def uses_bf16(precision: TrainPrecision, device: torch.device) -> bool:
    """Whether to compute in bfloat16 under autocast; ``auto`` does if the device has instructions for it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(_BF16_FLAGS & _cpu_flags())


def _cpu_flags() -> set[str]:
    """The features of the first processor; empty if the system does not list them."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return set(next((line.partition(":")[2] for line in lines if line.lower().startswith(("flags", "features"))), "").split())
