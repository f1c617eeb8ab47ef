"""Training with the preprocessing of the weights that it starts from. Does not know how a network is trained."""

from __future__ import annotations

from dataclasses import replace

from edge_resnet.core.records import Progress
from edge_resnet.network.published import TORCHVISIONS
from edge_resnet.network.training.job import JobResult, NetworkChoice, TrainJob, run_job
from edge_resnet.pipelines.selection import PreprocessChoice, Request, select, tell_preprocessing

__all__ = ["train"]


def train(job: TrainJob, *, progress: Progress | None = None) -> JobResult:
    """Run a training with the preprocessing of the weights that it starts from, but for what ``job.network`` says itself.

    Preprocessing other than the family's is logged. Raises what ``select`` and ``run_job`` raise.
    """
    chosen = select(_request(job.network), progress=progress)
    tell_preprocessing(chosen)
    return run_job(replace(job, preprocess=chosen.preprocess), progress=progress)


def _request(choice: NetworkChoice) -> Request:
    """The number of classes is left to the weights: a new head does not change how images are prepared."""
    images = PreprocessChoice(choice.input_size, mean=choice.mean, std=choice.std)
    if choice.weights == "random" or choice.weights in TORCHVISIONS:
        return Request(
            choice.weights, family=choice.family, depth=choice.depth, shortcut=choice.shortcut, plain=choice.plain, images=images
        )
    return Request(choice.weights, plain=choice.plain, images=images)
