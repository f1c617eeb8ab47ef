"""Compares the CPU backends on one artifact: latency, agreement, start.

    python benchmarks/backends.py ARTIFACT [--data val.csv] [--video clip.mp4] [--rounds 40] [--json FILE]

latency    milliseconds at batch 1 and 8, of the artifact and of its FP32 graph
run        frames per second of `run`'s loop on the first 60 frames of a video
agreement  images of --data for which both give the same best class, and top-1 if there are labels; also for the simulation of
           TensorRT's INT8
start      milliseconds from a new interpreter's first import to the first prediction, engine in the cache

For latency and run the backends take turns; ``ratio`` is the median over rounds of OpenVINO divided by ONNX Runtime. Rounds in
which other processes took more than 0.15 of a core are summarised separately, as ``loaded``.

It is not called openvino.py, because Python would then import this file instead of the library.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from edge_resnet.artifact.folder import Artifact, open_artifact
from edge_resnet.compiler.derive import compile_engine
from edge_resnet.images.imageset import batches, open_images
from edge_resnet.runtime.backend import Backend, Variant, open_backend
from edge_resnet.streaming.loop import RunOptions, run
from edge_resnet.streaming.sources import open_source

BACKENDS = ("onnxruntime", "openvino")
BURST = 5
#: Cores that other processes may take in a quiet round.
OTHERS = 0.15
START = """
import time
began = time.perf_counter()
import sys
from pathlib import Path
import numpy as np
from edge_resnet.artifact.folder import open_artifact
from edge_resnet.runtime.backend import open_backend
artifact = open_artifact(Path(sys.argv[1]))
size = artifact.manifest.model.input_size
with open_backend(artifact, sys.argv[2]) as backend:
    backend.infer(np.zeros((1, size, size, 3), np.uint8))
    print(1e3 * (time.perf_counter() - began))
"""


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--video", type=Path)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    artifact = open_artifact(arguments.artifact)
    for name in BACKENDS:
        compile_engine(artifact, name)
    report: dict[str, Any] = {"artifact": artifact.folder.name, "cores": len(os.sched_getaffinity(0)), "latency": []}
    variants: tuple[Variant, ...] = ("native", "reference") if artifact.manifest.precision == "int8" else ("native",)
    for variant in variants:
        for batch in (1, 8):
            report["latency"].append(latency(artifact, variant, batch, max(3, arguments.rounds // batch)))
            show(report["latency"][-1])
    if arguments.video is not None:
        report["run"] = on_a_video(artifact, arguments.video, arguments.rounds // 2)
        show(report["run"])
    if arguments.data is not None:
        report["agreement"] = agreement(artifact, arguments.data)
        show(report["agreement"])
    report["start_ms"] = {name: start(artifact, name) for name in BACKENDS}
    show(report["start_ms"])
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=1), encoding="utf-8")


def latency(artifact: Artifact, variant: Variant, batch: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of a batch of noise."""
    size = artifact.manifest.model.input_size
    images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)

    def burst(backend: Backend) -> float:
        backend.infer(images)
        return statistics.median(timed(backend, images) for _ in range(BURST))

    with ExitStack() as stack:
        opened = {name: stack.enter_context(open_backend(artifact, name, variant)) for name in BACKENDS}
        return {"what": f"{variant}, batch {batch}, ms", **in_turn(opened, burst, rounds)}


def on_a_video(artifact: Artifact, video: Path, rounds: int) -> dict[str, Any]:
    """Frames per second."""
    options = RunOptions(artifact.manifest.preprocess, artifact.labels, frames=60)

    def per_second(backend: Backend) -> float:
        began = time.perf_counter()
        with open_source(str(video)) as source:
            return run(backend, [source], [], options).frames / (time.perf_counter() - began)

    with ExitStack() as stack:
        opened = {name: stack.enter_context(open_backend(artifact, name)) for name in BACKENDS}
        return {"what": "run, frames per second", **in_turn(opened, per_second, rounds)}


def in_turn(opened: dict[str, Backend], measure: Callable[[Backend], float], rounds: int) -> dict[str, Any]:
    """Medians per backend and of the ratio, over quiet and over loaded rounds."""
    rows: dict[str, list[list[float]]] = {"quiet": [], "loaded": []}
    for backend in opened.values():
        measure(backend)
    for _ in range(rounds):
        began, others = time.perf_counter(), others_s()
        row = [measure(backend) for backend in opened.values()]
        share = (others_s() - others) / (time.perf_counter() - began)
        rows["quiet" if share < OTHERS else "loaded"].append(row)
    summary: dict[str, Any] = {}
    for kind, kept in rows.items():
        if kept:
            medians = np.median(kept, axis=0).round(2).tolist()
            ratio = statistics.median(new / old for old, new in kept)
            summary[kind] = {"rounds": len(kept), **dict(zip(opened, medians, strict=True)), "ratio": round(ratio, 3)}
    return summary


def others_s() -> float:
    """CPU time that other processes took since the machine started (proc_stat(5): all but idle and iowait)."""
    ticks = [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK") - time.process_time()


def timed(backend: Backend, images: Any) -> float:
    """Milliseconds of one call."""
    began = time.perf_counter()
    backend.infer(images)
    return 1e3 * (time.perf_counter() - began)


def agreement(artifact: Artifact, data: Path) -> dict[str, Any]:
    """Percent of images with the same best class, per pair; and per backend its top-1."""
    kinds: list[tuple[str, Variant]] = [(name, "native") for name in BACKENDS]
    if artifact.manifest.precision == "int8":
        compile_engine(artifact, "onnxruntime", "simulated")
        kinds += [("onnxruntime", "simulated"), ("onnxruntime", "reference")]
    best: dict[str, list[int]] = {f"{name} {variant}": [] for name, variant in kinds}
    labels: list[int] = []
    with ExitStack() as stack:
        opened = {f"{name} {variant}": stack.enter_context(open_backend(artifact, name, variant)) for name, variant in kinds}
        for batch in batches(open_images(data), artifact.manifest.preprocess, 8):
            labels += [] if batch.labels is None else list(batch.labels)
            for kind, backend in opened.items():
                best[kind] += backend.infer(batch.images).argmax(1).tolist()
    found = {kind: np.array(answers) for kind, answers in best.items()}
    names = list(found)
    same = {
        f"{left} = {right}": round(100 * float((found[left] == found[right]).mean()), 2)
        for index, left in enumerate(names)
        for right in names[index + 1 :]
    }
    top1 = {kind: round(100 * float((answers == np.array(labels)).mean()), 2) for kind, answers in found.items() if labels}
    return {"images": len(found[names[0]]), "top1": top1, "same": same}


def start(artifact: Artifact, name: str, times: int = 5) -> float:
    """The median over fresh interpreters, in milliseconds."""
    command = [sys.executable, "-c", START, str(artifact.folder), name]
    done = [subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(times)]
    return round(statistics.median(float(one.stdout) for one in done), 1)


def show(result: dict[str, Any]) -> None:
    """One line."""
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
