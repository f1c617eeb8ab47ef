"""What every tool's script shares: the task it is given, and how seconds and memory are taken. Knows no tool.

Runs in the interpreter of whichever tool it measures: it needs numpy and onnx, and nothing of edge_resnet.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

__all__ = ["Task", "normalisation", "peak_mib", "run"]

Images: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Task:
    """FP32 ``model`` and an .npz of calibration ``images`` → ``output``, a graph with Q/DQ. ``options`` are the tool's own."""

    model: Path
    images: Path
    output: Path
    options: dict[str, Any]

    def images(self) -> Images:
        """(N, H, W, 3) uint8 RGB, as the network takes them."""
        with np.load(self.images) as archive:
            images: Images = archive["images"]
        return images


def run(quantize: Callable[[Task], dict[str, Any] | None], modules: Sequence[str]) -> None:
    """Do the task of the command line's JSON and write what it took to its ``report``.

    ``modules``: what is imported before the clock starts. ``quantize`` may return what else the report should say. The peak is
    that of the whole process, imports included.
    """
    words = json.loads(sys.argv[1])
    task = Task(Path(words["model"]), Path(words["images"]), Path(words["output"]), words["options"])
    for name in modules:
        importlib.import_module(name)
    started = time.monotonic()
    more = quantize(task) or {}
    report = {"seconds": time.monotonic() - started, "peak_mib": peak_mib(), **more}
    Path(words["report"]).write_text(json.dumps(report), encoding="utf-8")


def peak_mib() -> float:
    """Largest resident memory of this process. ``getrusage`` would count what its parent held when it forked."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def normalisation(model: Path) -> list[str]:
    """Names of the nodes before the first convolution, which make the image the network's input: no tool may quantize them."""
    names: list[str] = []
    for node in onnx.load(model).graph.node:
        if node.op_type == "Conv":
            return names
        names.append(node.name)
    return names
