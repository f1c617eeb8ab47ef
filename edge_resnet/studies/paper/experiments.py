"""The table of experiments, and how to run one: claim a folder, run, write the results. Does not know the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import Progress
from edge_resnet.studies.paper.output import claim, publish, release
from edge_resnet.studies.paper.request import ExperimentRequest
from edge_resnet.studies.paper.result import ExperimentResult

__all__ = ["EXPERIMENTS", "TRAINING", "run_experiment"]

Experiment: TypeAlias = Callable[[ExperimentRequest, Progress | None], ExperimentResult]

#: Name → module:function.
EXPERIMENTS: Mapping[str, str] = MappingProxyType(
    {
        "degradation": "edge_resnet.studies.paper.depths:degradation",
        "shortcuts": "edge_resnet.studies.paper.depths:shortcuts",
        "depth": "edge_resnet.studies.paper.depths:depth",
        "responses": "edge_resnet.studies.paper.responses:responses",
        "complexity": "edge_resnet.studies.paper.complexity:complexity",
        "tencrop": "edge_resnet.studies.paper.crops:tencrop",
        "multiscale": "edge_resnet.studies.paper.crops:multiscale",
        "ensemble": "edge_resnet.studies.paper.ensemble:ensemble",
    }
)
#: The experiments that train.
TRAINING = ("degradation", "shortcuts", "depth")


def run_experiment(
    request: ExperimentRequest, *, resume: bool = False, force: bool = False, progress: Progress | None = None
) -> tuple[ExperimentResult, Path]:
    """Run one experiment and write its results. Returns them, and the path of the page.

    ``resume``: continue an interrupted experiment in the folder. ``force``: replace the one in the folder. On Ctrl-C the results
    so far are written and marked as interrupted; KeyboardInterrupt is raised only if there are none. Raises ConfigError for an
    unknown experiment, BuildError if the folder is in use, and what the experiment raises.
    """
    if request.experiment not in EXPERIMENTS:
        raise ConfigError(f"there is no experiment {request.experiment!r}", hint=f"choose one of {', '.join(EXPERIMENTS)}")
    if resume and request.experiment not in TRAINING:
        raise ConfigError(f"{request.experiment} trains nothing and cannot be resumed", hint="--force restarts it")
    module, _, function = EXPERIMENTS[request.experiment].partition(":")
    experiment: Experiment = getattr(import_module(module), function)
    claim(request.output, request.settings(), resume=resume, force=force)
    try:
        result = experiment(request, progress)
    except BaseException:
        release(request.output)
        raise
    return result, publish(result, request.output)
