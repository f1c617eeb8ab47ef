"""Trains a network on images: checks the arguments, resumes if asked to, and runs the trainer."""

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
from edge_resnet.network.training.distributed import World, process_group
from edge_resnet.network.training.epoch import Learner
from edge_resnet.network.training.loader import MemoryLoader, TrainLoader, check_classes, effective_batch, mapped_worker_errors
from edge_resnet.network.training.options import TrainData, TrainOptions, TrainResult
from edge_resnet.network.training.trainer import Trainer

__all__ = ["fit"]

#: Decoded images stay in memory up to this number of bytes.
_MAX_MEMORY = 2 << 30


def fit(
    network: nn.Module,
    data: TrainData,
    options: TrainOptions,
    *,
    folder: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> TrainResult:
    """Train ``network``, (N, 3, H, W) float32 normalised → logits, in place. It ends in eval mode with the weights to deploy.

    ``folder`` gets log.csv and the checkpoint for ``resume`` after each epoch, and result.json and weights.safetensors at the
    end. On a CPU the same seed, machine and number of threads give the same weights, resumed or not. Under torchrun every
    process calls this function, and the first writes. ``progress`` may be a TrainObserver. Raises DataError for images that
    cannot be used, ConfigError if ``folder`` contains a training and ``resume`` is not set, or one with other options, and
    WeightsError if its checkpoint is damaged or of another network.
    """
    check_classes(data.train)
    with process_group(options.device) as world, _torch_settings(options):
        effective_batch(len(data.train), options, world)
        started = folder is not None and world.all_see(folder / CHECKPOINT)
        if started and not resume:
            raise ConfigError(f"{folder} already contains a training", hint="--resume continues it, --force replaces it")
        network.to(world.device)
        network.to(memory_format=torch.channels_last if options.channels_last else torch.contiguous_format)
        _check_fit(network, data)
        learner = Learner.of(_with_sync_bn(network, options, world), options, data.preprocess, world)
        loader = _open_loader(data, options, world)
        trainer = Trainer(learner, data, loader, folder)
        if started and folder is not None:
            trainer.restore(read_checkpoint(folder / CHECKPOINT, trainer.state()))
        with mapped_worker_errors(), closing(loader):
            result = trainer.run(progress if world.writes else None)
        trainer.finish(result)
    return result


def _check_fit(network: nn.Module, data: TrainData) -> None:
    """Run the network on one black image to check that the input size is large enough and that all labels fit its head."""
    size = data.preprocess.crop
    image = torch.zeros(1, 3, size, size, device=next(network.parameters()).device)
    try:
        with torch.no_grad():
            classes = network.eval()(image).shape[-1]
    except RuntimeError as error:
        message = f"the network cannot process images of {size} pixels ({str(error).splitlines()[0]})"
        raise ConfigError(message, hint="a larger --input-size") from error
    for part in (data.train, data.test):
        if part is not None:
            check_labels(part, classes)


def _with_sync_bn(network: nn.Module, options: TrainOptions, world: World) -> nn.Module:
    """With ``sync_bn``, make batch norms use the images of all processes, which torch supports on GPUs only."""
    if not options.sync_bn or world.size == 1:
        return network
    if world.device.type != "cuda":
        raise ConfigError("torch synchronises batch norms on GPUs only", hint="leave out --sync-bn on a CPU")
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return converted


def _open_loader(data: TrainData, options: TrainOptions, world: World) -> TrainLoader:
    """Keep images in memory if they fit and are always resized in the same way; otherwise decode them in every epoch."""
    resized_at_random = options.augment in ("imagenet", "scales")
    if resized_at_random or len(data.train) * data.preprocess.crop**2 * 3 > _MAX_MEMORY:
        from edge_resnet.network.training.fileloader import FileLoader

        return FileLoader(data.train, data.preprocess, options, world)
    return MemoryLoader.load(data.train, data.preprocess, options, world)


@contextmanager
def _torch_settings(options: TrainOptions) -> Iterator[None]:
    """Set torch's determinism for the training; restore it and the random generator afterwards."""
    strict, tuned = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    with torch.random.fork_rng():
        torch.use_deterministic_algorithms(options.deterministic or strict)
        torch.backends.cudnn.benchmark = not options.deterministic
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict)
            torch.backends.cudnn.benchmark = tuned
