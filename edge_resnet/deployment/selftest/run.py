"""The whole self-test: a child process for the machine, one for each backend, and the report of all checks. Does not print."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_resnet.artifact.folder import open_artifact
from edge_resnet.deployment.selftest.check import Check
from edge_resnet.deployment.selftest.child import Running, run_task
from edge_resnet.deployment.selftest.task import Task
from edge_resnet.runtime.backend import BACKENDS, backend_info

__all__ = ["MACHINE", "SelfTest", "run_selftest"]

MACHINE = "machine"
#: Runs first: it leaves the logits that the others are compared with.
_FIRST = "onnxruntime"
#: A check takes seconds; an engine for a GPU may take minutes, on a small board with a large network an hour.
_LIMIT_S, _FULL_LIMIT_S = 600.0, 7200.0


@dataclass(frozen=True)
class SelfTest:
    """What to check. ``artifacts``: folders of artifacts; without any, the one that ships. ``calls``: inferences of the check of
    memory. ``bench_s``: seconds of each measurement of speed, for ``artifacts`` alone."""

    artifacts: tuple[Path, ...] = ()
    backends: tuple[str, ...] = ()
    calls: int = 2000
    bench_s: float = 5.0


def run_selftest(asked: SelfTest, running: Running) -> Iterator[Check]:
    """The checks as they are made. Whatever happens in a backend is a check of it; Ctrl-C ends the children.

    Raises ArtifactError for a folder that is no artifact, before the first check.
    """
    models = [open_artifact(folder).manifest.model.name for folder in asked.artifacts]
    names = asked.backends or _usual_backends()
    with tempfile.TemporaryDirectory(prefix="edge-resnet-selftest-") as folder:
        work = Path(folder)
        yield from run_task(Task(MACHINE, "", str(work), str(work)), running, _LIMIT_S)
        for task, limit_s in _tasks(asked, models, names, work):
            yield from run_task(task, running, limit_s)


def _tasks(asked: SelfTest, models: Sequence[str], names: Sequence[str], work: Path) -> Iterator[tuple[Task, float]]:
    for number in range(max(1, len(asked.artifacts))):
        answers = work / f"answers-{number}"
        answers.mkdir()
        for name in names:
            own = work / f"{name}-{number}"
            own.mkdir()
            if not asked.artifacts:
                yield Task(name, name, str(own), str(answers), calls=asked.calls), _LIMIT_S
                continue
            # The report holds no name that the user has given: the network's is the artifact's own.
            same = models[:number].count(models[number])
            title = f"{name}, {models[number]}" + (f" ({same + 1})" if same else "")
            source = str(asked.artifacts[number].resolve())
            yield Task(title, name, str(own), str(answers), source, asked.calls, asked.bench_s), _FULL_LIMIT_S


def _usual_backends() -> list[str]:
    """The backends that run networks, the reference first."""
    found = [name for name in BACKENDS if backend_info(name).auto_rank is not None or name != "fake"]
    return sorted(found, key=lambda name: name != _FIRST)
