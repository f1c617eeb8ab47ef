"""What the pipeline costs besides the network: frames per second on a video, latency added to a camera's, a soak test, the start.

    python benchmarks/pipeline.py ARTIFACT --video clip.mp4 [--rounds 7] [--soak 200000] [--json FILE]

video     frames per second of the loop of `run --headless` on the file, divided by those of the backend alone on the same
          frames, preprocessed beforehand; the two alternate. ``bound``: the highest ratio that the cores allow, computed from
          the processor time of network, decoding and preprocessing in the same round, including the time that the network's
          threads spin; ``of_bound``: the share of it that is reached
live      a synthetic camera at a rate that the network can follow: age at the prediction minus the network's time, percentiles.
          ``floor``: the part of preprocessing alone, one call after each such pause, with nothing else running
soak      a camera that is far too fast, with a fake network, until so many frames were read: memory, threads and open files
          before and after, whether every frame is accounted for, and whether enough frames were predicted
start     seconds from the command to its first line of JSON, with the engine in the cache
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_resnet.artifact.folder import Artifact, open_artifact
from edge_resnet.compiler.derive import compile_engine
from edge_resnet.core.records import Preprocess
from edge_resnet.core.statistics import percentile
from edge_resnet.images.preprocess import preprocess_bgr
from edge_resnet.runtime.backend import Backend, open_backend
from edge_resnet.runtime.fake import FakeBackend
from edge_resnet.streaming.camerareader import CameraSpec
from edge_resnet.streaming.counters import RunSummary
from edge_resnet.streaming.loop import RunHooks, RunOptions, run
from edge_resnet.streaming.records import Frame, Prediction
from edge_resnet.streaming.sources import open_source

RATIO, ADDED_MS, START_S = 0.95, 3.0, 1.0
#: For the percentiles the last 100,000 latencies are kept, 3 MiB; the rest is due to the allocator.
GROWN_MIB = 8.0
#: The minimum share of frames predicted with a camera that is far too fast: its reader must not starve the other threads.
MIN_SHARE = 0.05


def main() -> None:
    """Measure, print and judge each part in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--video", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--soak", type=int, default=200_000)
    parser.add_argument("--live-fps", type=float, default=30.0)
    parser.add_argument("--live-size", default="640x480", metavar="WxH[,WxH...]", help="of the synthetic camera's frames")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    artifact = open_artifact(arguments.artifact)
    compile_engine(artifact)
    report: dict[str, Any] = {"cores": len(os.sched_getaffinity(0))}
    with open_backend(artifact) as backend:
        report["backend"] = backend.name
        if arguments.video is not None:
            report["video"] = on_a_video(artifact, backend, arguments.video, arguments.rounds)
            say("video", report["video"], report["video"]["of_bound"] >= RATIO)
        report["live"] = []
        for size in arguments.live_size.split(","):
            report["live"].append(on_a_camera(artifact, backend, size, arguments.live_fps, seconds=10.0))
            say("live", report["live"][-1], report["live"][-1]["added_p99_ms"] <= ADDED_MS)
    if arguments.soak:
        report["soak"] = soak(arguments.soak)
        say("soak", report["soak"], report["soak"]["good"])
    report["start"] = start(artifact.folder)
    say("start", report["start"], report["start"]["median_s"] <= START_S)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def options_of(artifact: Artifact) -> RunOptions:
    """The options of `run`."""
    return RunOptions(artifact.manifest.preprocess, artifact.labels, batch=artifact.manifest.batch.max)


def on_a_video(artifact: Artifact, backend: Backend, path: Path, rounds: int) -> dict[str, float]:
    """Ratios of frames per second, round by round, and the bound given by processor time."""
    spec = artifact.manifest.preprocess
    with open_source(str(path)) as source:
        images = [preprocess_bgr(frame.image, spec)[None] for frame in source]
    backend.infer(images[0])
    count, cores = len(images), len(os.sched_getaffinity(0))
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        bare_s, network_s = timed(lambda: [backend.infer(image) for image in images])
        with open_source(str(path)) as source:
            whole = run(backend, [source], [], options_of(artifact)).frames_per_s
        _, rest_s = timed(lambda: prepare(path, spec))
        # If the network alone keeps every core busy, decoding and preprocessing cannot run in parallel to it.
        bound = min(1.0, cores * bare_s / (network_s + rest_s))
        ratio = whole * bare_s / count
        row = {
            "bare_per_s": count / bare_s,
            "run_per_s": whole,
            "ratio": ratio,
            "bound": bound,
            "of_bound": ratio / bound,
            "network_cpu_ms": 1e3 * network_s / count,
            "decode_and_preprocess_cpu_ms": 1e3 * rest_s / count,
        }
        for name, value in row.items():
            found.setdefault(name, []).append(value)
    spread = {
        f"{name}_{how}": choose(found[name]) for name in ("ratio", "of_bound") for how, choose in (("least", min), ("most", max))
    }
    return {"frames": count, **{name: statistics.median(values) for name, values in found.items()}, **spread}


def prepare(path: Path, spec: Any) -> None:
    """Decode and preprocess every frame."""
    with open_source(str(path)) as source:
        for frame in source:
            preprocess_bgr(frame.image, spec)


def timed(call: Any) -> tuple[float, float]:
    """Seconds, and seconds of processor time of all threads, while ``call`` runs."""
    began, used = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - began, time.process_time() - used


class Ages:
    """A sink that keeps the ages and inference times."""

    name, wants_frames = "ages", False

    def __init__(self) -> None:
        self.added_ms: list[float] = []
        self.inference_ms: list[float] = []

    def write(self, prediction: Prediction, frame: Frame) -> None:  # noqa: ARG002 - the protocol's signature
        """Keep one."""
        self.inference_ms.append(prediction.stages_ms["inference"])
        self.added_ms.append(prediction.age_ms - prediction.stages_ms["inference"])

    def close(self) -> None:
        """Nothing."""

    def __enter__(self) -> Ages:
        return self

    def __exit__(self, *_: object) -> None:
        return


def on_a_camera(artifact: Artifact, backend: Backend, size: str, fps: float, seconds: float) -> dict[str, Any]:
    """Milliseconds between capture and prediction besides the network's."""
    ages = Ages()
    width, _, height = size.partition("x")
    uri = f"synthetic://?fps={fps:g}&width={width}&height={height}"
    run(backend, [CameraSpec(f"{uri}&frames=0", again=False)], [ages], replace(options_of(artifact), duration_s=seconds))
    floor = []
    with open_source(f"{uri}&frames={round(fps * seconds / 2)}") as source:
        for frame in source:
            began = time.perf_counter()
            preprocess_bgr(frame.image, artifact.manifest.preprocess)
            floor.append(1e3 * (time.perf_counter() - began))
    # The first frames meet cold caches and sleeping threads.
    added, inference, floor = sorted(ages.added_ms[10:]), sorted(ages.inference_ms[10:]), sorted(floor[10:])
    found = {f"added_p{share:g}_ms": percentile(added, share) for share in (50, 90, 99, 100)}
    alone = {f"floor_p{share:g}_ms": percentile(floor, share) for share in (50, 99)}
    return {"size": size, "fps": fps, "frames": len(added), **found, **alone, "inference_p50_ms": percentile(inference, 50)}


def soak(frames: int) -> dict[str, Any]:
    """How memory, threads and open files grow over so many frames of a fast camera."""
    options = RunOptions(preprocess=Preprocess(resize=32, crop=32), labels=tuple("abcdefghij"))

    def through(count: int) -> RunSummary:
        def enough() -> None:
            if sum(source.frames for source in hooks.counters.status().sources) >= count:
                hooks.stop.set()

        hooks = RunHooks(alive=enough)
        camera = CameraSpec("synthetic://?frames=0&width=64&height=48", again=False)
        with FakeBackend(10, 32) as backend:
            return run(backend, [camera], [], options, hooks)

    through(frames // 20)
    before, began = resources(), time.monotonic()
    summary = through(frames)
    after = resources()
    grown = {name: after[name] - before[name] for name in before}
    accounted = summary.read == summary.frames + summary.dropped
    flat = grown["threads"] <= 0 and grown["files"] <= 0 and grown["rss_mib"] < GROWN_MIB
    starved = summary.frames < MIN_SHARE * summary.read
    return {
        "read": summary.read,
        "predicted": summary.frames,
        "dropped": summary.dropped,
        "seconds": time.monotonic() - began,
        **{f"grown_{name}": value for name, value in grown.items()},
        "good": accounted and flat and not starved,
    }


def resources() -> dict[str, float]:
    """Those of this process, after garbage collection and the end of other threads."""
    gc.collect()
    deadline = time.monotonic() + 5
    while threading.active_count() > 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return {
        "rss_mib": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "threads": threading.active_count(),
        "files": len(list(Path("/proc/self/fd").iterdir())),
    }


def start(folder: Path, times: int = 7) -> dict[str, float]:
    """Seconds to the first prediction of a new process."""
    command = [
        sys.executable,
        "-m",
        "edge_resnet",
        "run",
        str(folder),
        "--source",
        "synthetic://?frames=1",
        "--jsonl",
        "-",
        "--headless",
    ]
    taken = []
    for _ in range(times + 1):
        began = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            assert process.stdout.readline()
            taken.append(time.monotonic() - began)
    return {"median_s": statistics.median(taken[1:]), "min_s": min(taken[1:]), "max_s": max(taken[1:])}


def say(name: str, found: dict[str, Any], passed: bool) -> None:
    """One line per figure group."""
    figures = ", ".join(f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}" for key, value in found.items())
    print(f"{name:6}{'PASS' if passed else 'FAIL'}  {figures}", flush=True)


if __name__ == "__main__":
    np.seterr(all="raise")
    main()
