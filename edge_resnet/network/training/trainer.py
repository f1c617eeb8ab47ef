"""A training under way: epochs, tests, checkpoints, when to stop. Knows the order of things; each is another module's."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn

from edge_resnet.core.errors import BuildError, ConfigError
from edge_resnet.core.records import Progress
from edge_resnet.network.training.checkpoint import CHECKPOINT, WEIGHTS, Memory, save_weights, write_checkpoint
from edge_resnet.network.training.epoch import Diverged, EpochLosses, Learner, one_pass, steps_of
from edge_resnet.network.training.loader import TrainLoader
from edge_resnet.network.training.log import Events, write_log, write_result
from edge_resnet.network.training.options import EpochRecord, TrainData, TrainResult, Watcher
from edge_resnet.network.training.schedule import WarmUp
from edge_resnet.network.training.validation import score

__all__ = ["Trainer"]

logger = logging.getLogger(__name__)

State = dict[str, torch.Tensor]


@dataclass(eq=False)
class Trainer:
    """What is remembered from one epoch to the next. ``good``: the weights to deploy if it ended now; ``best``: those of the
    lowest test error, where they are to be kept; ``spent``: seconds of the epochs before."""

    learner: Learner
    data: TrainData
    feed: TrainLoader
    folder: Path | None
    records: list[EpochRecord] = field(default_factory=list)
    good: State = field(default_factory=dict)
    best: State = field(default_factory=dict)
    spent: float = 0.0
    warned: bool = False

    def run(self, progress: Progress | None) -> TrainResult:
        """Every epoch that is left."""
        options, steps = self.learner.options, steps_of(self.learner.options, self.feed)
        last = steps if options.max_steps is None else min(steps, options.max_steps)
        stopped, diverged = self._why_enough(), False
        if progress is not None:
            progress("train", self.learner.step, steps)
        wanted = options.tensorboard and self.folder is not None and self.learner.world.writes
        with Events(self.folder or Path(), wanted=wanted, purge=self.learner.step) as events:
            while self.learner.step < last and stopped is None:
                started = time.monotonic()
                try:
                    passed = one_pass(self.learner, self.feed, len(self.records), last, progress)
                except Diverged:
                    stopped, diverged = self._diverged(), True
                    break
                self._note(passed, is_last=self.learner.step >= last)
                self.spent += time.monotonic() - started
                self._keep()
                events.add(self.records[-1])
                if isinstance(progress, Watcher):
                    progress.epoch(self.records[-1])
                stopped = self._why_enough()
        return TrainResult(tuple(self.records), _best(self.records), stopped, self.spent, diverged)

    def finish(self, result: TrainResult) -> None:
        """Leave the weights to deploy in the network, and beside the log."""
        network = self.learner.network
        network.load_state_dict(self.best or self.good)
        network.to(memory_format=torch.contiguous_format).eval()
        if self.folder is None or not self.learner.world.writes:
            return
        preprocess = self.data.preprocess
        extra = {"data": self._data(), "preprocess": asdict(preprocess), "class_names": list(self.data.train.class_names)}
        try:
            save_weights(self.folder / WEIGHTS, network.state_dict(), {"format": "pt"})
            write_result(self.folder, result, self.learner.options, extra)
        except OSError as error:
            hint = "free some space, then --resume writes them without training again"
            raise BuildError(f"the trained weights cannot be written: {error}", hint=hint) from error

    def memory(self) -> Memory:
        """All that goes on needs."""
        learner = self.learner
        names = {id(parameter): name for name, parameter in learner.network.named_parameters()}
        momentum = {names[id(p)]: s["momentum_buffer"] for p, s in learner.optimizer.state.items() if "momentum_buffer" in s}
        return Memory(
            options=learner.options,
            records=tuple(self.records),
            network=dict(learner.network.state_dict()),
            momentum=momentum,
            average={} if learner.average is None else dict(learner.average.network.state_dict()),
            best=self.best,
            warm_up=learner.warm_up.errors if learner.warm_up.active else None,
            data=self._data(),
            seconds=self.spent,
        )

    def recall(self, memory: Memory) -> None:
        """Stand where ``memory`` stood."""
        learner = self.learner
        learner.network.load_state_dict(memory.network)
        for name, parameter in learner.network.named_parameters():
            if name in memory.momentum:
                learner.optimizer.state[parameter] = {"momentum_buffer": memory.momentum[name].to(parameter.device)}
        if learner.average is not None:
            learner.average.network.load_state_dict(memory.average)
        learner.warm_up = WarmUp(None if memory.warm_up is None else learner.options.warm_up, memory.warm_up or ())
        learner.step = memory.records[-1].step
        self.records, self.best, self.spent = list(memory.records), memory.best, memory.seconds
        self.good = _copied(self._deployed())

    def _note(self, passed: EpochLosses, *, is_last: bool) -> None:
        """Test where it is time, and add the epoch's record."""
        learner, epoch = self.learner, len(self.records) + 1
        learner.world.mean_statistics(learner.network)
        if learner.average is not None:
            learner.world.mean_statistics(learner.average.network)
        loss, error = self._test() if is_last or epoch % learner.options.test_every == 0 else (None, None)
        speed = passed.images / passed.seconds
        record = EpochRecord(
            epoch, learner.step, passed.rate, passed.loss, passed.error, loss, error, passed.seconds, speed
        )  # fmt: skip
        self.good = _copied(self._deployed())
        self.records.append(record)
        if learner.options.keep == "best" and _best(self.records) is record:
            self.best = self.good

    def _test(self) -> tuple[float | None, float | None]:
        """Loss and error in percent on the images held out: one process tests, all are told."""
        if self.data.test is None:
            return None, None
        found = [0.0, 0.0]
        if self.learner.world.writes:
            tested = score(self._deployed(), self.data.test, self.data.preprocess)
            found = [tested.loss, tested.error]
        loss, error = self.learner.world.total(found)
        return loss, error

    def _keep(self) -> None:
        """Write log and checkpoint; where the disk does not take them say so once and train on."""
        if self.folder is None or not self.learner.world.writes:
            return
        try:
            write_log(self.folder, self.records)
            if self.records[-1].step % self.feed.steps == 0:  # an epoch that was cut short cannot be gone on with
                write_checkpoint(self.folder / CHECKPOINT, self.memory())
        except OSError as error:
            if not self.warned:
                logger.warning(
                    "epoch %d could not be kept (%s): the training goes on, and what was kept before stays",
                    self.records[-1].epoch,
                    error,
                )
            self.warned = True

    def _deployed(self) -> nn.Module:
        average = self.learner.average
        return self.learner.network if average is None else average.network

    def _diverged(self) -> str:
        epoch = len(self.records) + 1
        if not self.records:
            message = f"the loss is not finite in epoch 1 at a rate of up to {self.learner.options.rate:g}"
            raise ConfigError(message, hint="a lower --rate, or --warm-up 0.01 for a deep network")
        return f"the loss is not finite in epoch {epoch}; the weights are those of epoch {epoch - 1}"

    def _why_enough(self) -> str | None:
        """Whether the last tests were no better than one before them."""
        patience = self.learner.options.patience
        tested = [record.test_error for record in self.records if record.test_error is not None]
        if patience is None or len(tested) <= patience or min(tested[:-patience]) > min(tested[-patience:]):
            return None
        return f"no better test in {patience} of them"

    def _data(self) -> str:
        return f"{self.data.train.name}, {len(self.data.train)} images"


def _best(records: Sequence[EpochRecord]) -> EpochRecord:
    """The first with the lowest test error; without any test, the lowest training error."""
    tested = [record for record in records if record.test_error is not None]
    return min(tested or records, key=lambda record: record.train_error if record.test_error is None else record.test_error)


def _copied(network: nn.Module) -> State:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
