"""The TensorRT path on this machine's GPU: the engine alone, latency, throughput, and from a camera frame to logits.

    python benchmarks/gpu.py [--artifacts artifacts] [--networks resnet18,resnet50] [--batches 1,8,32,256] [--json FILE]

The folder of artifacts holds NETWORK-int8, as `edge-resnet build --depth 18 --int8` makes it; FP32 and FP16 are derived from the
same graph. Each precision has one engine for all batches, optimised for the middle one. The three take turns in every
measurement, round after round, so that drift cancels. Columns:

engine    milliseconds on the GPU of the network alone, between CUDA events (trtexec's GPU compute time), as a CUDA graph;
          ``plain``: each kernel launched by itself
host      milliseconds of ``infer`` on the CPU's clock: H2D, network, D2H; ``plain``: without graphs
alone/s   images per second of the engine alone, launched repeatedly on one stream
1, 2, 4   images per second of ``submit`` and ``result`` with that many batches at once
1080p     milliseconds from frames of 1920 x 1080 to logits, resized by the GPU and by the CPU; ``x``: the faster of the two,
          divided by the engine alone

At the end it prints PASS or FAIL for each requirement. The exit code is 0 if anything was measured. Ctrl-C ends it with the
results so far; --work keeps artifacts and engines.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, get_args

import numpy as np

from edge_resnet.artifact.folder import Artifact, open_artifact
from edge_resnet.artifact.precision import with_precision
from edge_resnet.compiler.derive import compile_engine
from edge_resnet.core.errors import BackendError, EdgeResnetError, MissingDependencyError
from edge_resnet.core.process import run_within
from edge_resnet.core.records import BatchProfile, Precision
from edge_resnet.core.statistics import measure, summarise
from edge_resnet.device.gpu import driver_cuda, first_gpu
from edge_resnet.device.machine import describe, gpu_clock
from edge_resnet.images.preprocess import preprocess_bgr
from edge_resnet.runtime.tensorrt.cuda import Stream, StreamTimer, require_cuda
from edge_resnet.runtime.tensorrt.cudagraph import Recorder

#: Measures for about that many seconds; returns milliseconds, or one rate if its name ends in ``_per_s``.
Measure: TypeAlias = Callable[[float], list[float]]
Row: TypeAlias = dict[str, Any]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
SLOTS = (1, 2, 4)
ROUNDS = 5
#: Frames of 1080p in one batch: each takes 3.5 MB of pinned memory and as much of the GPU's, in every slot.
FRAMES_MAX = 32
#: A slot captures a batch size at its second use, and slots take turns.
WARMUP = 3 * max(SLOTS)
#: Launches are synchronized about this often: rarely enough that waiting costs nothing.
QUEUED_MS = 30
HEAD = (
    f"{'':20}{'engine ms':>16} {'host ms':>32} {'alone/s':>9} {'batches under way, images/s':>29}  {'1080p ms':>22}\n"
    f"{'network':<9}{'':6}{'batch':>5}{'p50':>8}{'plain':>8} {'p50':>8}{'p90':>8}{'p99':>8}{'plain':>8} {'':9}"
    f" {'1':>9} {'2':>9} {'4':>9}  {'GPU':>8}{'CPU':>8}{'x':>6}"
)


def main() -> int:
    """Measure, print a line per network, batch and precision, and check the requirements."""
    arguments = _arguments()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report: dict[str, Any] = {"rows": [], "failed": {}}
    try:
        report = {"machine": machine(), **report}
        print(", ".join(f"{name} {value}" for name, value in report["machine"].items() if value), HEAD, sep="\n", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            for network in arguments.networks.split(","):
                _network(network, arguments, arguments.work or Path(folder), report)
    except KeyboardInterrupt:
        report["interrupted"] = True
        print("interrupted", file=sys.stderr)
    except EdgeResnetError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
    found = verdicts(report["rows"])
    _write(arguments.json, {**report, "requirements": [{"passed": passed, "what": what} for passed, what in found]})
    for passed, what in found:
        print("PASS" if passed else "FAIL", what)
    return 0 if report["rows"] else 1


def machine() -> dict[str, str | None]:
    """The machine that is measured. Raises BackendError if there is no GPU, MissingDependencyError if a package is missing."""
    gpu = first_gpu()
    require_cuda()  # its lack must be known before anything is built
    try:
        import tensorrt
    except ImportError as error:
        raise MissingDependencyError(f"{error.name} is missing", hint="pip install 'edge-resnet[tensorrt]'") from error
    cuda = driver_cuda()
    info = describe()
    return {
        "GPU": gpu.name,
        "compute capability": gpu.compute_capability,
        "TensorRT": str(tensorrt.__version__),
        "CUDA": ".".join(map(str, cuda)) if cuda else None,
        "driver": info.driver,
        "JetPack": info.jetpack,
        "power mode": info.power_mode,
        "CPU": f"{info.cpu} ({info.usable_cores} cores)",
        "state": _state(),
    }


class Contender:
    """One precision of a network, opened on the GPU for batches of ``count``: with graphs, and without."""

    def __init__(self, artifact: Artifact, count: int, stack: ExitStack) -> None:
        from edge_resnet.runtime.tensorrt.inference import TensorRtBackend
        from edge_resnet.runtime.tensorrt.plans import read_plan

        plan = read_plan(artifact, "native")
        self._spec = plan.preprocess
        self._gpu = stack.enter_context(TensorRtBackend(plan, slots=max(SLOTS)))
        self._plain = stack.enter_context(TensorRtBackend(plan, slots=1, graphs=False))
        random, side = np.random.default_rng(0), self._spec.crop
        self._images = random.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        distinct = random.integers(0, 256, (min(count, 8), 1080, 1920, 3), dtype=np.uint8)
        self._frames = [distinct[index % len(distinct)] for index in range(min(count, FRAMES_MAX))]

    def measures(self) -> dict[str, Measure]:
        """Its measurements by name; everything was run often enough before to be captured."""
        images, frames, gpu = self._images, self._frames, self._gpu
        for _ in range(WARMUP):
            gpu.infer(images)
            self._plain.infer(images)
        found: dict[str, Measure] = {
            "engine": partial(self._engine, graph=True),
            "engine_plain": partial(self._engine, graph=False),
            "alone_per_s": self._alone_per_s,
            "copies": self._copies,
            "host": partial(_wall, partial(gpu.infer, images)),
            "host_plain": partial(_wall, partial(self._plain.infer, images)),
        }
        for slots in SLOTS:
            found[f"{slots}_per_s"] = partial(self._piped, partial(gpu.submit, images), slots)
        if len(frames) == len(images):
            found["frames_cpu"] = partial(_wall, self._resized_here)
            if gpu.resizes:
                for _ in range(WARMUP):
                    gpu.infer_frames(frames)
                found["frames_gpu"] = partial(_wall, partial(gpu.infer_frames, frames))
                found["frames_2_per_s"] = partial(self._piped, partial(gpu.submit_frames, frames), 2)
        return found

    def _engine(self, seconds: float, *, graph: bool) -> list[float]:
        with self._alone(graph=graph) as (launch, stream):
            return _on_gpu(launch, stream, self._gpu._cuda.timer(), seconds)

    def _alone_per_s(self, seconds: float) -> list[float]:
        with self._alone(graph=True) as (launch, stream):
            once = statistics.median(_on_gpu(launch, stream, self._gpu._cuda.timer(), 0.0))
            queued = max(1, int(QUEUED_MS / max(once, 0.01)))
            launched, started = 0, time.perf_counter()
            while launched == 0 or time.perf_counter() - started < seconds:
                for _ in range(queued):
                    launch()
                stream.synchronize()
                launched += queued
            return [launched * len(self._images) / (time.perf_counter() - started)]

    def _copies(self, seconds: float) -> list[float]:
        """The copies for a batch; none if memory is mapped."""
        slot, count = self._gpu._slots[0], len(self._images)

        def copy() -> None:
            slot._images.to_device(slot._stream, count)
            slot._logits.to_host(slot._stream, count)

        with self._gpu._cuda.current("the GPU failed while copies were timed"):
            return _on_gpu(copy, slot._stream, self._gpu._cuda.timer(), seconds)

    def _piped(self, submit: Callable[[], Any], slots: int, seconds: float) -> list[float]:
        """Images per second with ``slots`` batches at once."""
        under_way = deque(submit() for _ in range(slots))
        done, started = 0, time.perf_counter()
        while done == 0 or time.perf_counter() - started < seconds:
            self._gpu.result(under_way.popleft())
            under_way.append(submit())
            done += 1
        rate = done * len(self._images) / (time.perf_counter() - started)
        while under_way:
            self._gpu.result(under_way.popleft())
        return [rate]

    def _resized_here(self) -> object:
        return self._gpu.infer(np.stack([preprocess_bgr(frame, self._spec) for frame in self._frames]))

    @contextmanager
    def _alone(self, *, graph: bool) -> Iterator[tuple[Callable[[], object], Any]]:
        """A function that launches the network on the first slot, with the images of the batch before, and the stream."""
        slot = self._gpu._slots[0]
        context, stream, bindings = slot._context, slot._stream, slot._bindings

        def run() -> None:
            if not context.execute_async_v3(stream.handle):
                raise BackendError("TensorRT did not run the network", hint="edge-resnet doctor checks the GPU")

        with self._gpu._cuda.current("the GPU failed while the engine was timed"):
            slot._shape = 0  # the shape that the slot remembers is not the context's afterwards
            if not context.set_input_shape(bindings.input, (len(self._images), *bindings.image)):
                raise BackendError(f"TensorRT does not take a batch of {len(self._images)}", hint="remove the folder of --work")
            for _ in range(3):
                run()
            stream.synchronize()
            recorded = Recorder().record(stream.handle, run) if graph else None
            try:
                yield (run if recorded is None else partial(recorded.launch, stream.handle)), stream
            finally:
                stream.synchronize()
                if recorded is not None:
                    recorded.free()


def race(
    measures: Mapping[tuple[str, str], Measure], samples: dict[tuple[str, str], list[float]], seconds: float, title: str
) -> None:
    """Measure all once, name by name, starting with another contender each round; extends ``samples``."""
    names = list(dict.fromkeys(name for _, name in measures))
    for name in names:
        _say(f"{title}, {name}", passing=True)
        whose = [key for key in measures if key[1] == name]
        turn = min(len(samples.get(key, ())) for key in whose) % len(whose)
        for key in whose[turn:] + whose[:turn]:
            samples.setdefault(key, []).extend(measures[key](seconds))


def row(network: str, precision: str, batch: int, samples: Mapping[str, Sequence[float]]) -> Row:
    """A record of the measurements: latencies summarised in ms, the median over rounds of rates."""
    found: Row = {"network": network, "precision": precision, "batch": batch}
    for name, values in samples.items():
        found[name] = statistics.median(values) if name.endswith("_per_s") else asdict(summarise(values))
    frames = [value for name in ("frames_gpu", "frames_cpu") if (value := _p50(found, name)) is not None]
    engine = _p50(found, "engine")
    if frames and engine:
        found["frames_over_engine"] = min(frames) / engine
    return found


def line(found: Row) -> str:
    """The record as a line of the table."""

    def text(value: float | None, width: int = 8, digits: int = 3) -> str:
        return f"{'-' if value is None else f'{value:.{digits}f}':>{width}}"

    host = found.get("host", {})
    return "".join(
        (
            f"{found['network']:<9}{found['precision']:<6}{found['batch']:>5}",
            *(text(_p50(found, name)) for name in ("engine", "engine_plain")),
            " ",
            *(text(host.get(key)) for key in ("p50_ms", "p90_ms", "p99_ms")),
            text(_p50(found, "host_plain")),
            *(text(found.get(name), 10, 0) for name in ("alone_per_s", *(f"{slots}_per_s" for slots in SLOTS))),
            "  ",
            *(text(_p50(found, name)) for name in ("frames_gpu", "frames_cpu")),
            text(found.get("frames_over_engine"), 6, 2),
        )
    )


def verdicts(rows: Sequence[Row]) -> list[tuple[bool, str]]:
    """The requirements of the GPU path, and whether each holds; what was not measured is left out."""
    found: list[tuple[bool, str]] = []
    for network, batch in dict.fromkeys((entry["network"], entry["batch"]) for entry in rows):
        group = {entry["precision"]: entry for entry in rows if (entry["network"], entry["batch"]) == (network, batch)}
        int8, fp16, fp32 = (_p50(group.get(precision, {}), "engine") for precision in ("int8", "fp16", "fp32"))
        if batch >= 8 and int8 is not None and fp16 is not None and fp32 is not None:
            words = f"INT8 {int8:.3f} < FP16 {fp16:.3f} < FP32 {fp32:.3f} ms"
            found.append((int8 < fp16 < fp32, f"{network}, batch {batch}: {words}"))
        for entry in group.values():
            title = f"{network} {entry['precision']}, batch {batch}"
            host, engine, copies = (_p50(entry, name) for name in ("host", "engine", "copies"))
            if batch == 1 and host is not None and engine is not None and copies is not None:
                limit = 1.10 * engine + copies
                words = f"host latency {host:.3f} <= {limit:.3f} ms (1.10 x engine {engine:.3f} + copies {copies:.3f})"
                found.append((host <= limit, f"{title}: {words}"))
            alone, piped = entry.get("alone_per_s"), max(entry.get(f"{slots}_per_s", 0.0) for slots in SLOTS[1:])
            if alone and piped:
                words = f"{piped:.0f} images/s with batches under way >= 0.95 x {alone:.0f} of the engine alone"
                found.append((piped >= 0.95 * alone, f"{title}: {words} (it is {piped / alone:.2f})"))
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--networks", default="resnet18,resnet50", help="default: %(default)s")
    parser.add_argument("--batches", default="1,8,32,256", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=1.0, help="per figure, over all rounds; default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="one round with a twentieth of the time")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep artifacts and engines here for the next run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="written after each batch")
    arguments = parser.parse_args()
    arguments.batches = sorted({int(count) for count in arguments.batches.split(",")})
    return arguments


def _network(network: str, arguments: argparse.Namespace, folder: Path, report: dict[str, Any]) -> None:
    """Add the rows of a network. A failure is printed, and the next network is measured."""
    batches = arguments.batches
    profile = BatchProfile(batches[0], batches[len(batches) // 2], batches[-1])
    try:
        source = open_artifact(arguments.artifacts / f"{network}-int8")
        artifacts = {}
        for precision in PRECISIONS:
            name = f"{network}-{precision}-{profile.min}-{profile.opt}-{profile.max}"
            artifacts[precision] = with_precision(source, precision, profile, folder / name)
            started = time.monotonic()
            _say(f"{network} {precision}: building the engine", passing=True)
            compile_engine(artifacts[precision], "tensorrt")
            _say(f"{network} {precision}: its engine was ready after {time.monotonic() - started:.1f} s")
        for count in batches:
            started = time.monotonic()
            _batch(artifacts, (network, count), arguments, report)
            _say(f"{network}, batch {count}: measured in {time.monotonic() - started:.1f} s")
            _write(arguments.json, report)
    except EdgeResnetError as error:
        _say(f"{network}: {error.message} ({error.hint})")
        report["failed"][network] = error.message


def _batch(
    artifacts: Mapping[Precision, Artifact], what: tuple[str, int], arguments: argparse.Namespace, report: dict[str, Any]
) -> None:
    """Measure one batch size of a network, all precisions in turn, and add a row for each, even if interrupted."""
    samples: dict[tuple[str, str], list[float]] = {}
    try:
        with ExitStack() as stack:
            measures: dict[tuple[str, str], Measure] = {}
            for precision, artifact in artifacts.items():
                _say(f"{what[0]}, batch {what[1]}: {precision} warms up", passing=True)
                contender = Contender(artifact, what[1], stack)
                measures |= {(precision, name): call for name, call in contender.measures().items()}
            rounds, seconds = (1, arguments.seconds / 20) if arguments.quick else (ROUNDS, arguments.seconds / ROUNDS)
            for number in range(1, rounds + 1):
                race(measures, samples, seconds, f"{what[0]}, batch {what[1]}: round {number} of {rounds}")
    finally:
        _say("", passing=True)
        found: dict[str, dict[str, list[float]]] = defaultdict(dict)
        for (whose, name), values in samples.items():
            found[whose][name] = values
        for whose, measured in found.items():
            report["rows"].append({**row(what[0], whose, what[1], measured), "state": _state()})
            print(line(report["rows"][-1]), flush=True)


def _state() -> str | None:
    """Clocks, power and temperature now, as far as they can be read."""
    if clock := gpu_clock():
        return f"{clock.now_mhz} MHz of {clock.min_mhz} to {clock.max_mhz}"
    fields = "clocks.sm,clocks.max.sm,clocks.mem,power.draw,power.limit,temperature.gpu"
    try:
        done = run_within(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"], 10.0)
    except OSError:
        return None
    if done is None or done.code:
        return None
    values = done.stdout.partition("\n")[0].split(",")
    return "; ".join(f"{name} {value.strip()}" for name, value in zip(fields.split(","), values, strict=False))


def _on_gpu(queue: Callable[[], object], stream: Stream, timer: StreamTimer, seconds: float) -> list[float]:
    """Milliseconds between two events around ``queue``, repeatedly, synchronizing each. The CUDA context must be current."""
    samples: list[float] = []
    end = time.monotonic() + seconds
    while len(samples) < 3 or time.monotonic() < end:
        timer.begin(stream)
        queue()
        timer.mark(stream)
        stream.synchronize()
        samples += timer.milliseconds()
    return samples


def _wall(call: Callable[[], object], seconds: float) -> list[float]:
    return measure(call, warmup=1, seconds=seconds)


def _p50(found: Row, name: str) -> float | None:
    return found[name]["p50_ms"] if name in found else None


def _say(text: str, *, passing: bool = False) -> None:
    """Print a line; a ``passing`` line only on a terminal, until the next one."""
    if not passing or sys.stderr.isatty():
        print(f"\r{text:<79}", end="\r" if passing else "\n", file=sys.stderr, flush=True)


def _write(path: Path | None, report: Mapping[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
