"""The training loop: SGD with momentum (He et al. 2015, sections 3.4 and 4.2). Knows nothing of where images come from."""

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
from edge_resnet.network.training.options import TrainOptions, TrainPrecision, Watcher
from edge_resnet.network.training.schedule import WarmUp, rate_at
from edge_resnet.network.training.validation import normalise

__all__ = ["Diverged", "EpochLosses", "Learner", "WeightAverage", "one_pass", "steps_of", "uses_bf16"]


class WeightAverage:
    """``network`` is the average, in eval mode; it begins as a copy of the one that is trained.

    The decay grows as (1 + step) / (10 + step) up to ``decay``: a young average would otherwise remember its random start.
    Statistics are averaged as weights are: those of one step belong to that step's weights.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards ``network`` after its ``step``-th step, counted from 0."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        mine, theirs = self.network.state_dict(), network.state_dict()
        floats = [name for name, value in mine.items() if value.is_floating_point()]
        torch._foreach_lerp_([mine[name] for name in floats], [theirs[name] for name in floats], share)
        for name in mine.keys() - set(floats):
            mine[name].copy_(theirs[name])


#: Steps between two looks at the loss on a GPU: each look waits for it.
_LOOK = 20


class Diverged(Exception):  # noqa: N818 - a way to stop, told in the result
    """The loss is not finite."""


@dataclass(eq=False)
class Learner:
    """A network in training, with all that changes at a step. ``wrapped``: what computes it, shared with other processes."""

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
        """A fresh one for ``network``, which lies on the world's device."""
        wrapped: nn.Module = network
        if world.size > 1:
            # Statistics are averaged at the end of an epoch; sent from rank 0 at each step they would lose the others' part.
            # torch 2.13 renamed the switch.
            known = inspect.signature(DistributedDataParallel).parameters
            switch = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
            quiet: dict[str, Any] = {switch: False}
            wrapped = DistributedDataParallel(network, **quiet)
        average = None if options.ema is None else WeightAverage(network, options.ema)
        return cls(network, wrapped, _optimizer(network, options), average, WarmUp(options.warm_up), options, preprocess, world)


@dataclass(frozen=True)
class EpochLosses:
    """One pass: the last rate, mean loss, share of errors in percent, images learned over all processes."""

    rate: float
    loss: float
    error: float
    images: int
    seconds: float


def steps_of(options: TrainOptions, feed: TrainLoader) -> int:
    """Steps of the whole training, one at least."""
    return max(1, round(options.epochs * feed.steps))


def one_pass(learner: Learner, feed: TrainLoader, epoch: int, last: int, progress: Progress | None) -> EpochLosses:
    """Train through epoch ``epoch``, counted from 0, or to step ``last``. Raises Diverged where the loss is not finite."""
    steps = steps_of(learner.options, feed)
    started = time.monotonic()
    # Whatever a network draws by itself (dropout) depends on the epoch too, so that nothing has to be remembered.
    sequence = np.random.SeedSequence([learner.options.seed, epoch, learner.world.rank])
    torch.manual_seed(int(sequence.generate_state(1)[0]))
    tally = _Tally(learner.world)
    rate = 0.0
    with _learning(learner.network):
        for batch in feed.epoch(epoch):
            if learner.step >= last:
                break
            rate = learner.warm_up.rate(rate_at(learner.options, learner.step, steps))
            loss, wrong = _step(learner, batch, rate)
            tally.add(loss, wrong, len(batch[1]))
            if learner.warm_up.active:
                error, images = learner.world.total([float(wrong), float(len(batch[1]))])
                learner.warm_up.saw(100 * error / images)
            learner.step += 1
            if learner.world.device.type == "cpu" or learner.step % _LOOK == 0:
                tally.look(progress, epoch)
                if progress is not None:
                    progress("train", learner.step, steps)
    mean, error, images = tally.means()
    if not all(bool(torch.isfinite(parameter).all()) for parameter in learner.network.parameters()):
        raise Diverged
    return EpochLosses(rate, mean, error, images, time.monotonic() - started)


def _step(learner: Learner, batch: TrainBatch, rate: float) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of SGD: the summed loss and the number of wrong answers, both still on the device."""
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


class _Tally:
    """Sums over a pass, kept on the device."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._loss = torch.zeros((), device=world.device, dtype=torch.float64)
        self._wrong = torch.zeros((), device=world.device, dtype=torch.int64)
        self._images = 0

    def add(self, loss: torch.Tensor, wrong: torch.Tensor, images: int) -> None:
        self._loss += loss
        self._wrong += wrong
        self._images += images

    def look(self, progress: Progress | None, epoch: int) -> None:
        """Tell a watcher the means so far of this process's images. Raises Diverged."""
        loss = float(self._loss) / self._images
        # Processes must stop together: where there are several they find out at the end of the epoch.
        if not math.isfinite(loss) and self._world.size == 1:
            raise Diverged
        if isinstance(progress, Watcher):
            progress.running(epoch + 1, loss, 100 * float(self._wrong) / self._images)

    def means(self) -> tuple[float, float, int]:
        """Mean loss, error in percent and number of images, over all processes."""
        loss, wrong, images = self._world.total([float(self._loss), float(self._wrong), float(self._images)])
        if not math.isfinite(loss):
            raise Diverged
        return loss / images, 100 * wrong / images, int(images)


@contextmanager
def _learning(network: nn.Module) -> Iterator[None]:
    """Train mode, but for batch norms that are frozen: their statistics belong to weights that stay."""
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
    """Biases and batch norms, the vectors, decay as all else does in the paper; ``decay_norms`` False spares them."""
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    vectors = [] if options.decay_norms else [parameter for parameter in learned if parameter.ndim <= 1]
    spared = {id(parameter) for parameter in vectors}
    groups = [{"params": [p for p in learned if id(p) not in spared], "weight_decay": options.weight_decay}]
    if vectors:
        groups.append({"params": vectors, "weight_decay": 0.0})
    return torch.optim.SGD(groups, lr=options.rate, momentum=options.momentum, nesterov=options.nesterov)


#: What Linux calls instructions that multiply bfloat16: AMX and AVX512 on x86, ARM's from v8.6 on.
_FLAGS = frozenset({"amx_bf16", "avx512_bf16", "bf16"})


_CPUINFO = Path("/proc/cpuinfo")


def uses_bf16(precision: TrainPrecision, device: torch.device) -> bool:
    """Whether to compute in bfloat16 under autocast; ``auto`` does where the device has instructions for it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(_FLAGS & _cpu_flags())


def _cpu_flags() -> set[str]:
    """The first processor's features; none where the system does not list them."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return set(next((line.partition(":")[2] for line in lines if line.lower().startswith(("flags", "features"))), "").split())
