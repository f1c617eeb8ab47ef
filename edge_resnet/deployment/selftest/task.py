"""What a child process of the self-test is asked to do. Knows no backend."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

__all__ = ["Task", "as_json", "from_json"]


@dataclass(frozen=True)
class Task:
    """The checks of one group, for one child process.

    ``group``: its title. ``backend``: the backend to check; empty for the machine itself. ``folder``: an empty folder for copies
    of the artifact and for engines. ``answers``: a folder that all backends of one artifact share, in which ONNX Runtime leaves
    its logits. ``artifact``: the folder of the artifact. ``golden``: it holds images and answers, as the one that ships does.
    ``calls``: inferences of the check of memory. ``bench_s``: seconds of each measurement of latency and throughput; 0 measures
    none.
    """

    group: str
    backend: str
    folder: str
    answers: str
    artifact: str
    golden: bool
    calls: int
    bench_s: float = 0.0


def as_json(task: Task) -> str:
    """The task as one line."""
    return json.dumps(asdict(task))


def from_json(text: str) -> Task:
    """The task that ``as_json`` wrote."""
    return Task(**json.loads(text))
