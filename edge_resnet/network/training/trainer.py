"""Runs the epochs of a training, with tests, checkpoints, early stopping and resuming. Does not know how a step is computed."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn

from edge_resnet.core.errors import BuildError, ConfigError
from edge_resnet.core.records import Progress
from edge_resnet.network.training.checkpoint import CHECKPOINT, WEIGHTS, StateDict, TrainState, save_weights, write_checkpoint
from edge_resnet.network.training.epoch import Diverged, EpochLosses, Learner, total_steps, train_epoch
from edge_resnet.network.training.loader import TrainLoader
from edge_resnet.network.training.log import Events, write_log, write_result
from edge_resnet.network.training.options import EpochRecord, TrainData, TrainObserver, TrainResult
from edge_resnet.network.training.schedule import WarmUp
from edge_resnet.network.training.validation import score
from edge_resnet.network.weightfile import STATED

__all__ = ["Trainer"]

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Trainer:
    """A training in progress.

    ``latest``: the weights to deploy as of the last epoch. ``best``: those of the lowest test error, if they are to be kept.
    ``seconds``: duration of the finished epochs. ``warned``: a failure to write has been reported.
    """

    learner: Learner
    data: TrainData
    loader: TrainLoader
    folder: Path | None
    records: list[EpochRecord] = field(default_factory=list)
    latest: StateDict = field(default_factory=dict)
    best: StateDict = field(default_factory=dict)
    seconds: float = 0.0
    warned: bool = False

    def run(self, progress: Progress | None) -> TrainResult:
        """Train the remaining epochs."""
        options, steps = self.learner.options, total_steps(self.learner.options, self.loader)
        last = steps if options.max_steps is None else min(steps, options.max_steps)
        stopped, diverged = self._early_stop_reason(), False
        if progress is not None:
            progress("train", self.learner.step, steps)
        wanted = options.tensorboard and self.folder is not None and self.learner.world.writes
        with Events(self.folder or Path(), wanted=wanted, purge=self.learner.step) as events:
            while self.learner.step < last and stopped is None:
                started = time.monotonic()
                try:
                    losses = train_epoch(self.learner, self.loader, len(self.records), last, progress)
                except Diverged:
                    stopped, diverged = self._divergence_reason(), True
                    break
                self._end_epoch(losses, is_last=self.learner.step >= last)
                self.seconds += time.monotonic() - started
                self._save_progress()
                events.add(self.records[-1])
                if isinstance(progress, TrainObserver):
                    progress.epoch(self.records[-1])
                stopped = self._early_stop_reason()
        return TrainResult(tuple(self.records), _best(self.records), stopped, self.seconds, diverged)

    def finish(self, result: TrainResult) -> None:
        """Load the weights to deploy into the network, and write them beside the log."""
        network = self.learner.network
        network.load_state_dict(self.best or self.latest)
        network.to(memory_format=torch.contiguous_format).eval()
        if self.folder is None or not self.learner.world.writes:
            return
        preprocess = self.data.preprocess
        extra = {"data": self._data(), "preprocess": asdict(preprocess), "class_names": list(self.data.train.class_names)}
        try:
            save_weights(self.folder / WEIGHTS, network.state_dict(), {"format": "pt", STATED: json.dumps(asdict(preprocess))})
            write_result(self.folder, result, self.learner.options, extra)
        except OSError as error:
            hint = "free some disk space, then use --resume: it writes them without further training"
            raise BuildError(f"the trained weights cannot be written: {error}", hint=hint) from error

    def state(self) -> TrainState:
        """Everything that is needed to resume."""
        learner = self.learner
        names = {id(parameter): name for name, parameter in learner.network.named_parameters()}
        momentum = {names[id(p)]: s["momentum_buffer"] for p, s in learner.optimizer.state.items() if "momentum_buffer" in s}
        return TrainState(
            options=learner.options,
            records=tuple(self.records),
            network=dict(learner.network.state_dict()),
            momentum=momentum,
            average={} if learner.average is None else dict(learner.average.network.state_dict()),
            best=self.best,
            warm_up=learner.warm_up.errors if learner.warm_up.active else None,
            data=self._data(),
            seconds=self.seconds,
        )

    def restore(self, state: TrainState) -> None:
        """Continue from ``state``."""
        learner = self.learner
        learner.network.load_state_dict(state.network)
        for name, parameter in learner.network.named_parameters():
            if name in state.momentum:
                learner.optimizer.state[parameter] = {"momentum_buffer": state.momentum[name].to(parameter.device)}
        if learner.average is not None:
            learner.average.network.load_state_dict(state.average)
        learner.warm_up = WarmUp(None if state.warm_up is None else learner.options.warm_up, state.warm_up or ())
        learner.step = state.records[-1].step
        self.records, self.best, self.seconds = list(state.records), state.best, state.seconds
        self.latest = _copied(self._deployed())

    def _end_epoch(self, losses: EpochLosses, *, is_last: bool) -> None:
        """Test if it is time, and add the epoch's record."""
        learner, epoch = self.learner, len(self.records) + 1
        learner.world.average_statistics(learner.network)
        if learner.average is not None:
            learner.world.average_statistics(learner.average.network)
        test_loss, test_error = self._test() if is_last or epoch % learner.options.test_every == 0 else (None, None)
        record = EpochRecord(
            epoch=epoch,
            step=learner.step,
            rate=losses.rate,
            train_loss=losses.loss,
            train_error=losses.error,
            test_loss=test_loss,
            test_error=test_error,
            seconds=losses.seconds,
            images_per_s=losses.images / losses.seconds,
        )
        self.latest = _copied(self._deployed())
        self.records.append(record)
        if learner.options.keep == "best" and _best(self.records) is record:
            self.best = self.latest

    def _test(self) -> tuple[float | None, float | None]:
        """Loss and error in percent on the test images. One process tests and shares the result with the others."""
        if self.data.test is None:
            return None, None
        found = [0.0, 0.0]
        if self.learner.world.writes:
            tested = score(self._deployed(), self.data.test, self.data.preprocess)
            found = [tested.loss, tested.error]
        loss, error = self.learner.world.total(found)
        return loss, error

    def _save_progress(self) -> None:
        """Write log and checkpoint. If they cannot be written, warn once and continue training."""
        if self.folder is None or not self.learner.world.writes:
            return
        try:
            write_log(self.folder, self.records)
            if self.records[-1].step % self.loader.steps == 0:  # an incomplete epoch cannot be resumed
                write_checkpoint(self.folder / CHECKPOINT, self.state())
        except OSError as error:
            if not self.warned:
                logger.warning(
                    "epoch %d could not be saved (%s): the training continues, and the last checkpoint is unchanged",
                    self.records[-1].epoch,
                    error,
                )
            self.warned = True

    def _deployed(self) -> nn.Module:
        average = self.learner.average
        return self.learner.network if average is None else average.network

    def _divergence_reason(self) -> str:
        epoch = len(self.records) + 1
        if not self.records:
            message = f"the loss is not finite in epoch 1 at a learning rate of up to {self.learner.options.rate:g}"
            raise ConfigError(message, hint="a lower --rate, or --warm-up 0.01 for a deep network")
        return f"the loss is not finite in epoch {epoch}; the weights are those of epoch {epoch - 1}"

    def _early_stop_reason(self) -> str | None:
        """Why to stop now, None to continue: ``patience`` tests in a row were no better than an earlier one."""
        patience = self.learner.options.patience
        tested = [record.test_error for record in self.records if record.test_error is not None]
        if patience is None or len(tested) <= patience or min(tested[:-patience]) > min(tested[-patience:]):
            return None
        return f"no improvement in {patience} tests"

    def _data(self) -> str:
        return f"{self.data.train.name}, {len(self.data.train)} images"


def _best(records: Sequence[EpochRecord]) -> EpochRecord:
    """The first record with the lowest test error, or with the lowest training error if nothing was tested."""
    tested = [record for record in records if record.test_error is not None]
    return min(tested or records, key=lambda record: record.train_error if record.test_error is None else record.test_error)


def _copied(network: nn.Module) -> StateDict:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
