"""The checks of one opened network: its answers, batches, threads, frames, memory and speed. Does not open or compile it."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np

from edge_resnet.artifact.folder import Artifact
from edge_resnet.deployment.selftest.check import Finding, NotHereError, WrongResultError, warnings_heard
from edge_resnet.deployment.selftest.compare import Comparison, Limit, compare, spread
from edge_resnet.deployment.selftest.golden import frames
from edge_resnet.images.preprocess import preprocess_bgr
from edge_resnet.measurement.bench.conditions import gpu_memory_mib
from edge_resnet.measurement.bench.stages import StageTimingBackend
from edge_resnet.runtime.backend import Backend, Images, Logits, PipelinedBackend

__all__ = ["BATCH", "batches", "graphs", "judged", "memory", "on_gpu_frames", "percent", "split", "threads", "time_batch"]

#: The batch whose time is told, and how often it is measured.
BATCH, ROUNDS = 8, 15
#: What half of the inferences may add to the memory of the process and of the GPU, in MiB: allocators round, and others use the
#: GPU too.
_GROWTH_MIB = {"memory": 8, "GPU memory": 16}
_WARM_UP = 100


def judged(found: Logits, references: Mapping[str, Logits], limit: Limit) -> Finding:
    """Compare logits with each of several references by name. Raises WrongResultError for the first that they do not equal."""
    if not np.isfinite(found).all():
        raise WrongResultError(f"{np.count_nonzero(~np.isfinite(found))} of {found.size} logits are not finite numbers")
    told = []
    for name, wanted in references.items():
        result = compare(found, wanted)
        if not result.holds(limit):
            raise WrongResultError(_difference(result, len(found), name, limit), _figures(result))
        told.append(f"{percent(result.off)} off the {name}" if result.off else f"equal to the {name}")
    labels = f"{len(found)} labels equal" if limit.agreement == 1 else f"{len(found)} images"
    return Finding(f"{labels}; logits {', '.join(told)} (limit {percent(limit.off)})", _figures(result))


def percent(share: float) -> str:
    """A share as text; one that is tiny and not zero is not written as zero."""
    return "< 0.001 %" if 0 < share < 1e-5 else f"{100 * share:.3g} %"


def batches(network: Backend, images: Images, limit: Limit) -> Finding:
    """Batches of 1, 8, odd sizes, all and again: each row is that of its image alone; other sizes may sum in another order."""
    alone = np.concatenate([network.infer(image[None]) for image in images])
    worst, counts = 0.0, (8, 5, len(images), 1, 7, 8)
    for count in counts:
        found = network.infer(images[:count])
        if found.dtype != np.float32 or found.shape != (count, network.classes):
            raise WrongResultError(f"a batch of {count} gives {found.shape} {found.dtype}")
        row = float(np.sqrt(np.mean((found - alone[:count]) ** 2, axis=1)).max()) / spread(alone)
        if not row <= limit.off:
            raise WrongResultError(
                f"a row of a batch of {count} is {percent(row)} off its image alone (limit {percent(limit.off)})"
            )
        worst = max(worst, row)
    sizes = ", ".join(map(str, sorted(set(counts))))
    apart = f", {percent(worst)} off" if worst else ""
    return Finding(f"of {sizes}: the logits of each image alone{apart}", {"off_percent": 100 * worst})


def threads(network: Backend, images: Images) -> Finding:
    """Two threads with batches of their own, of several sizes, get the bits that one thread gets."""
    counts = (1, 8, 3, 5, 8, 1)
    pieces = [images[seed : seed + count] for seed, count in enumerate(counts)]
    wanted = [network.infer(piece) for piece in pieces]

    def work(start: int) -> int:
        order = [(start + turn) % len(pieces) for turn in range(5 * len(pieces))]
        return sum(not np.array_equal(network.infer(pieces[index]), wanted[index]) for index in order)

    with ThreadPoolExecutor(2) as pool:
        wrong = sum(pool.map(work, (0, 3)))
    if wrong:
        raise WrongResultError(f"{wrong} of {2 * 5 * len(pieces)} batches differ from those of one thread")
    return Finding(f"two threads, {2 * 5 * len(pieces)} batches: the logits of one thread")


def graphs(network: Backend, plain: Backend, images: Images) -> Finding:
    """``network`` with CUDA graphs gives the bits of ``plain`` without, in alternating batch sizes, each captured on the way."""
    with warnings_heard() as heard:
        for turn in range(8):
            for count in (1, 8, 5, 1):
                rolled = np.roll(images, turn, axis=0)[:count]
                if not np.array_equal(network.infer(rolled), plain.infer(rolled)):
                    raise WrongResultError(f"a batch of {count} differs with CUDA graphs")
    if heard:
        raise NotHereError(heard[-1])
    return Finding("on and off: the same bits in batches of 1, 5 and 8")


def on_gpu_frames(network: PipelinedBackend, artifact: Artifact) -> Finding:
    """Frames of several sizes that the GPU preprocesses get the bits of those that the processor preprocesses.

    Raises NotHereError with the backend's own reason if it preprocesses on the processor.
    """
    with warnings_heard() as heard:
        resizes = network.resizes
    if not resizes:
        raise NotHereError(heard[-1] if heard else "this backend preprocesses frames on the CPU")
    captured = frames()
    images = np.stack([preprocess_bgr(frame, artifact.manifest.preprocess) for frame in captured])
    for _ in range(3):
        if not np.array_equal(network.infer_frames(captured), network.infer(images)):
            raise WrongResultError("frames that the GPU preprocesses have other logits than those of the CPU")
    return Finding(f"{len(captured)} sizes preprocessed on the GPU: the same bits as on the CPU")


def split(network: StageTimingBackend, images: Images) -> Finding:
    """Medians of the copies and the computation on the GPU's clock; together they are less than the caller waits.

    Raises WrongResultError if a part takes no time, or all take longer than the call.
    """
    parts: dict[str, list[float]] = {}
    waits = []
    network.infer_timed(images)
    for _ in range(ROUNDS):
        began = time.perf_counter()
        _, found = network.infer_timed(images)
        waits.append(1e3 * (time.perf_counter() - began))
        for name, milliseconds in found.items():
            parts.setdefault(name, []).append(milliseconds)
    figures = {f"{name}_ms": median(values) for name, values in parts.items()}
    text = ", ".join(f"{name.upper() if '2' in name else name} {median(values):.3f}" for name, values in parts.items())
    if "compute" not in parts or min(map(min, parts.values())) <= 0 or sum(figures.values()) > median(waits):
        raise WrongResultError(f"{text} ms of {median(waits):.3f} ms: the GPU's clock is wrong", figures)
    return Finding(f"batch {len(images)}: {text} of {median(waits):.3f} ms", {**figures, "call_ms": median(waits)})


def memory(network: Backend, images: Images, calls: int) -> Finding:
    """Memory of process and GPU, threads and open files after ``calls`` inferences.

    Raises WrongResultError if both halves of the calls added threads, files, or more memory than allocators explain.
    """

    def work(count: int) -> dict[str, int]:
        for turn in range(count):
            network.infer(images[: (1, 1, 5, 1)[turn % 4]])
        gc.collect()
        return _state()

    start, half, end = work(_WARM_UP), work(calls // 2), work(calls - calls // 2)
    grown = {name: [half[name] - start[name], end[name] - half[name]] for name in start}
    told = ", ".join(f"{name} {start[name]} → {end[name]}{_unit(name)}" for name in grown)
    figures = {f"{name.replace(' ', '_').lower()}_grown": sum(values) for name, values in grown.items()}
    leaking = [name for name, values in grown.items() if min(values) > _GROWTH_MIB.get(name, 0)]
    if leaking:
        raise WrongResultError(f"{calls} inferences: {told}: {' and '.join(leaking)} grew in both halves", figures)
    return Finding(f"{calls} inferences: {told}", figures)


def time_batch(network: Backend, images: Images) -> float:
    """Median milliseconds of a batch of eight, or of all images if there are fewer."""
    piece = images[:BATCH]
    for _ in range(3):
        network.infer(piece)
    samples = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        network.infer(piece)
        samples.append(1e3 * (time.perf_counter() - began))
    return median(samples)


def _difference(result: Comparison, images: int, name: str, limit: Limit) -> str:
    labels = round(result.agreement * images)
    return (
        f"not the {name}: {labels} of {images} labels, logits {percent(result.off)} off "
        f"(limit {percent(limit.off)}), at most {percent(result.peak)}"
    )


def _figures(result: Comparison) -> dict[str, float]:
    return {"agreement": result.agreement, "off_percent": 100 * result.off, "peak_percent": 100 * result.peak}


def _state() -> dict[str, int]:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    gpu = gpu_memory_mib()
    return {
        "memory": int(status["VmRSS"].split()[0]) >> 10,
        **({} if gpu is None else {"GPU memory": gpu}),
        "threads": int(status["Threads"]),
        "files": len(list(Path("/proc/self/fd").iterdir())),
    }


def _unit(name: str) -> str:
    return " MiB" if name in _GROWTH_MIB else ""
