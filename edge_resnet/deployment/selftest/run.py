"""The whole self-test: a child process for the machine, one for each backend, and the report of all checks. Does not print."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from edge_resnet.artifact.folder import open_artifact
from edge_resnet.deployment.selftest.check import Check
from edge_resnet.deployment.selftest.child import Running, run_task
from edge_resnet.deployment.selftest.golden import ARTIFACT
from edge_resnet.deployment.selftest.task import Task
from edge_resnet.runtime.backend import BACKENDS

__all__ = ["MACHINE", "run_selftest"]

MACHINE = "machine"
#: Runs first: it leaves the logits that the others are compared with.
_FIRST = "onnxruntime"
#: A check takes seconds; an engine for a GPU may take minutes, on a small board with a large network an hour.
_LIMIT_S, _FULL_LIMIT_S = 600.0, 7200.0
#: Inferences of the check of memory, and seconds of each measurement of speed.
_CALLS, _BENCH_S = 2000, 5.0
_SHIPPED = ARTIFACT


def run_selftest(artifacts: Sequence[Path], running: Running) -> Iterator[Check]:
    """The checks as they are made, of ``artifacts``, or without any of the network that ships.

    Whatever happens in a backend is a check of it; Ctrl-C ends the children. Raises ArtifactError for a folder that is no
    artifact, before the first check.
    """
    models = [open_artifact(folder).manifest.model.name for folder in artifacts]
    with tempfile.TemporaryDirectory(prefix="edge-resnet-selftest-") as folder:
        work, shipped = Path(folder), str(_SHIPPED)
        yield from run_task(Task(MACHINE, "", folder, folder, shipped, golden=True, calls=_CALLS), running, _LIMIT_S)
        if not artifacts:
            for name in _backends():
                own, answers = _folders(work, name, 0)
                yield from run_task(Task(name, name, own, answers, shipped, golden=True, calls=_CALLS), running, _LIMIT_S)
        for number, artifact in enumerate(artifacts):
            # The report holds no name that the user has given: the network's is the artifact's own.
            same = models[:number].count(models[number])
            title = f"{models[number]} ({same + 1})" if same else models[number]
            for name in _backends():
                own, answers = _folders(work, name, number)
                source = str(artifact.resolve())
                task = Task(f"{name}, {title}", name, own, answers, source, golden=False, calls=_CALLS, bench_s=_BENCH_S)
                yield from run_task(task, running, _FULL_LIMIT_S)


def _folders(work: Path, name: str, number: int) -> tuple[str, str]:
    """A folder for a backend, and the one that all backends of one artifact share."""
    own, answers = work / f"{name}-{number}", work / f"answers-{number}"
    own.mkdir()
    answers.mkdir(exist_ok=True)
    return str(own), str(answers)


def _backends() -> list[str]:
    """The backends that run networks, the reference first."""
    return sorted((name for name in BACKENDS if name != "fake"), key=lambda name: name != _FIRST)
