"""The table of experiments, and the one way to run them: claim a folder, run, write. Knows no options of the command line."""

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
#: Those that train.
TRAINING = ("degradation", "shortcuts", "depth")


def run_experiment(
    request: ExperimentRequest, *, resume: bool = False, force: bool = False, progress: Progress | None = None
) -> tuple[ExperimentResult, Path]:
    """Run one experiment and write what it found; returns that, and the page.

    ``resume``: go on in a folder that holds a part of it. ``force``: begin anew there. Ctrl-C ends the work: what is done is
    written and the finding says so; KeyboardInterrupt is raised only where nothing is done yet. Raises ConfigError for an unknown
    experiment, BuildError for a folder that is taken, and what the experiment raises.
    """
    if request.experiment not in EXPERIMENTS:
        raise ConfigError(f"no experiment is called {request.experiment!r}", hint=f"choose one of {', '.join(EXPERIMENTS)}")
    if resume and request.experiment not in TRAINING:
        raise ConfigError(f"{request.experiment} trains nothing that could be resumed", hint="--force begins anew")
    module, _, function = EXPERIMENTS[request.experiment].partition(":")
    experiment: Experiment = getattr(import_module(module), function)
    claim(request.output, request.settings(), resume=resume, force=force)
    try:
        finding = experiment(request, progress)
    except BaseException:
        release(request.output)
        raise
    return finding, publish(finding, request.output)
