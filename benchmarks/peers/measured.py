"""What the scripts of all tools share: the task, and the measurement of time and memory. Knows no tool.

Runs in the interpreter of the measured tool: it needs numpy and onnx, and nothing from edge_resnet.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

__all__ = ["Task", "normalisation", "peak_mib", "processor_seconds", "run"]

Images: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Task:
    """Quantize the FP32 ``model`` with an .npz of calibration ``images`` to ``output``, a graph with Q/DQ.

    ``options`` are those of the tool.
    """

    model: Path
    images: Path
    output: Path
    options: dict[str, Any]

    def load_images(self) -> Images:
        """The calibration images (N, H, W, 3) uint8 RGB, as the network takes them."""
        with np.load(self.images) as archive:
            images: Images = archive["images"]
        return images


def run(quantize: Callable[[Task], dict[str, Any] | None], modules: Sequence[str]) -> None:
    """Run the task that the command line describes in JSON, and write its time and memory to the task's ``report``.

    ``modules`` are imported before the clocks start: the wall's, and the processor's of this process and its children, user and
    system. ``quantize`` may return more fields for the report. The peak memory is that of the whole process, imports included.
    ``load``: the machine's load of the last minute before the start, of which this process is no part. ``cores``: those it may
    run on.
    """
    arguments = json.loads(sys.argv[1])
    task = Task(Path(arguments["model"]), Path(arguments["images"]), Path(arguments["output"]), arguments["options"])
    for name in modules:
        importlib.import_module(name)
    load, started, processor = os.getloadavg()[0], time.monotonic(), processor_seconds()
    more = quantize(task) or {}
    report = {"seconds": time.monotonic() - started, "cpu_seconds": processor_seconds() - processor}
    report |= {"peak_mib": peak_mib(), "load": load, "cores": len(os.sched_getaffinity(0)), **more}
    Path(arguments["report"]).write_text(json.dumps(report), encoding="utf-8")


def processor_seconds() -> float:
    """Processor time of this process and of its children that have ended, user and system."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def peak_mib() -> float:
    """Peak resident memory of this process. ``getrusage`` would include what its parent held when it forked."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def normalisation(model: Path) -> list[str]:
    """Names of the nodes before the first convolution, which normalise the image: no tool may quantize them."""
    names: list[str] = []
    for node in onnx.load(model).graph.node:
        if node.op_type == "Conv":
            return names
        names.append(node.name)
    return names
