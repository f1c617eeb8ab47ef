"""Trains a network on images: checks what it is given, then one session. Knows nothing of steps and epochs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import torch
from torch import nn

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import Progress
from edge_resnet.images.imageset import check_labels
from edge_resnet.network.training.checkpoint import CHECKPOINT, read_checkpoint
from edge_resnet.network.training.distributed import World, joined
from edge_resnet.network.training.epoch import Learner
from edge_resnet.network.training.loader import MemoryLoader, TrainLoader, batch_of, check_classes, telling_deaths
from edge_resnet.network.training.options import TrainData, TrainOptions, TrainResult
from edge_resnet.network.training.trainer import Trainer

__all__ = ["fit"]

#: Bytes of decoded images up to which they stay in memory.
_MEMORY = 2 << 30


def fit(
    network: nn.Module,
    data: TrainData,
    options: TrainOptions,
    *,
    folder: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> TrainResult:
    """Train ``network``, (N, 3, H, W) float32 normalised → logits, in place; it ends in eval mode with the weights to deploy.

    ``folder`` gets log.csv after each epoch, with the checkpoint that ``resume`` goes on from, and at the end result.json and
    weights.safetensors. The same seed, machine and number of threads give the same weights on a CPU, in one go or resumed.
    Under torchrun every process calls it; the first writes. ``progress`` may be a Watcher. Raises DataError for images that
    cannot be learned from, ConfigError where ``folder`` holds another training, WeightsError where its checkpoint does.
    """
    check_classes(data.train)
    with joined(options.device) as world, _settings(options):
        batch_of(len(data.train), options, world)
        here = folder is not None and world.all_see(folder / CHECKPOINT)
        if here and not resume:
            raise ConfigError(f"{folder} holds a training already", hint="--resume goes on with it, --force starts anew")
        network.to(world.device)
        network.to(memory_format=torch.channels_last if options.channels_last else torch.contiguous_format)
        _check_fit(network, data)
        learner = Learner.of(_shared(network, options, world), options, data.preprocess, world)
        feed = _feed(data, options, world)
        session = Trainer(learner, data, feed, folder)
        if here and folder is not None:
            session.recall(read_checkpoint(folder / CHECKPOINT, session.memory()))
        with telling_deaths(), closing(feed):
            result = session.run(progress if world.writes else None)
        session.finish(result)
    return result


def _check_fit(network: nn.Module, data: TrainData) -> None:
    """Show the network one black image: is the size enough for it, does it answer as many classes as there are?"""
    size = data.preprocess.crop
    image = torch.zeros(1, 3, size, size, device=next(network.parameters()).device)
    try:
        with torch.no_grad():
            classes = network.eval()(image).shape[-1]
    except RuntimeError as error:
        message = f"the network cannot take images of {size} pixels ({str(error).splitlines()[0]})"
        raise ConfigError(message, hint="a larger --input-size") from error
    for part in (data.train, data.test):
        if part is not None:
            check_labels(part, classes)


def _shared(network: nn.Module, options: TrainOptions, world: World) -> nn.Module:
    """With ``sync_bn``, let batch norms see the images of all processes, which torch offers on GPUs alone."""
    if not options.sync_bn or world.size == 1:
        return network
    if world.device.type != "cuda":
        raise ConfigError("torch synchronises batch norms on GPUs only", hint="leave --sync-bn out on a CPU")
    shared: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return shared


def _feed(data: TrainData, options: TrainOptions, world: World) -> TrainLoader:
    """Images that are always cut alike stay in memory where they fit; others are decoded anew each time."""
    whole = options.augment in ("imagenet", "scales")
    if whole or len(data.train) * data.preprocess.crop**2 * 3 > _MEMORY:
        from edge_resnet.network.training.fileloader import FileLoader

        return FileLoader(data.train, data.preprocess, options, world)
    return MemoryLoader.load(data.train, data.preprocess, options, world)


@contextmanager
def _settings(options: TrainOptions) -> Iterator[None]:
    """Torch's generator and its strictness are the caller's again afterwards."""
    strict, tuned = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    with torch.random.fork_rng():
        torch.use_deterministic_algorithms(options.deterministic or strict)
        torch.backends.cudnn.benchmark = not options.deterministic
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict)
            torch.backends.cudnn.benchmark = tuned
