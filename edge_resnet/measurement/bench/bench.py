"""Latency and throughput of an artifact on this machine, by MLPerf's scenarios, with what speaks against the numbers.

Knows no accuracy: the images may be noise, since a network of this family takes as long for any image.
"""

from __future__ import annotations

import random
import time
from contextlib import ExitStack, nullcontext
from datetime import datetime, timezone
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np

from edge_resnet import __version__
from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.errors import DataError
from edge_resnet.core.packages import installed_version
from edge_resnet.core.records import Progress
from edge_resnet.core.statistics import summarise
from edge_resnet.device.machine import describe
from edge_resnet.device.power import PowerMeter, PowerReading, search_meters
from edge_resnet.images.imageset import ImageSet, batches
from edge_resnet.images.preprocess import ImageArray
from edge_resnet.measurement.bench.caveats import caveats_of_heat, caveats_of_machine, caveats_of_run
from edge_resnet.measurement.bench.conditions import Conditions, ConditionsMonitor, gpu_memory_mib
from edge_resnet.measurement.bench.intervals import percentile_interval, rate_interval
from edge_resnet.measurement.bench.result import SCHEMA, BenchResult, Metric, Scenario, read_result, read_results, write_results
from edge_resnet.measurement.bench.rules import BenchOptions, batch_of, limits_of
from edge_resnet.measurement.bench.stages import measure_stages
from edge_resnet.measurement.bench.startup import Startup, measure_startup
from edge_resnet.measurement.bench.timing import Clock, Tick, Timings, WarmUp, one_by_one, overlapped, warm_up
from edge_resnet.runtime.backend import BACKENDS, Backend, Images, PipelinedBackend, load_backend, open_backend, resolve_backend

__all__ = ["BenchOptions", "BenchResult", "Scenario", "bench", "read_result", "read_results", "write_results"]

#: Of a warm-up, in seconds.
_WARM_MIN_S, _WARM_MAX_S = 1.0, 15.0
#: Of a measurement, the part that the stages take beside it.
_STAGES_SHARE = 0.2
#: Picks of images, prepared before the measurement; then they come again.
_PICKS = 4096
_MAX_SAMPLES = 20_000
_LIBRARIES = (*(entry.module for entry in BACKENDS.values()), "pycuda")


def bench(
    artifact: Artifact,
    options: BenchOptions,
    *,
    images: ImageSet | None = None,
    network: Backend | None = None,
    progress: Progress | None = None,
    clock: Clock = time.perf_counter_ns,
) -> BenchResult:
    """Measure one scenario. ``images``: noise where there are none. ``network``: measured as it is, where none is to be opened.

    Ctrl-C gives the part that was measured; before there is any, KeyboardInterrupt. Raises what opening and running the backend
    raises, and DataError where no image can be read.
    """
    before_mib = gpu_memory_mib() if _on_gpu(options, network) else None
    with ExitStack() as stack:
        if network is None:
            network = stack.enter_context(open_backend(artifact, options.backend))
        session = _Session(artifact, options, network, images, clock)
        session.measure(_teller(options.scenario, progress))
        after_mib = None if before_mib is None else gpu_memory_mib()
    grown = None if before_mib is None or after_mib is None else max(0, after_mib - before_mib)
    startup = session.start_again()
    return session.result(startup, grown)


class _Session:
    """One scenario on its way to a result: what is measured is kept until all of it is there."""

    def __init__(
        self, artifact: Artifact, options: BenchOptions, network: Backend, images: ImageSet | None, clock: Clock
    ) -> None:
        self._artifact, self._options, self._network, self._clock = artifact, options, network, clock
        self._pipelined = network if isinstance(network, PipelinedBackend) else None
        self._batch = batch_of(options, artifact.manifest.batch.max)
        self._limits = limits_of(options, self._batch)
        self._device = describe()
        self._what, self._pool, self._frame = _images(artifact, options, images, max(options.images, self._batch))
        self._stages: dict[str, float] = {}
        self._timings = Timings()
        #: Looked for before anything is timed: finding sensors takes a while in which a GPU would cool down and slow down.
        self._meter = PowerMeter(search_meters(works="GPU" if network.name == "tensorrt" else "CPU")) if options.power else None
        self._power: PowerReading | None = None
        self._warm_up: WarmUp
        self._conditions: Conditions

    def measure(self, tick: Tick) -> None:
        """Warm up, measure queries, and after them the stages. Raises KeyboardInterrupt while there is no sample."""
        pick = partial(next, cycle(_picks(self._pool, self._batch, self._options.seed)))
        network, clock, limits = self._network, self._clock, self._limits
        least = min(_WARM_MIN_S, limits.seconds / 2)
        self._warm_up = warm_up(lambda: network.infer(pick()), least, _WARM_MAX_S, clock)
        tick(0.0)
        with self._meter or nullcontext():
            watch = ConditionsMonitor()

            def told(done: float) -> None:
                watch.look()
                tick(done)

            if self._pipelined is not None and self._options.scenario == "offline":
                submit, result = self._pipelined.submit, self._pipelined.result
                self._timings = overlapped(lambda: submit(pick()), result, limits, told, clock)
            else:
                self._timings = one_by_one(lambda: network.infer(pick()), limits, told, clock)
            self._conditions = watch.finish()
        self._power = None if self._meter is None else self._meter.reading()
        if not self._timings.samples_ns:
            raise KeyboardInterrupt
        tick(1.0)
        if not self._timings.interrupted:
            seconds = min(limits.seconds, self._options.seconds) * _STAGES_SHARE
            try:
                self._stages = measure_stages(network, self._artifact, self._frame, self._batch, seconds, clock)
            except KeyboardInterrupt:
                self._timings.interrupted = True

    def start_again(self) -> Startup | None:
        """Cold starts, where they are wanted and nobody is in a hurry."""
        if self._timings.interrupted or not self._options.starts:
            return None
        try:
            return measure_startup(self._artifact.folder, self._network.name, self._batch, self._options.starts)
        except KeyboardInterrupt:
            self._timings.interrupted = True
            return None

    def result(self, startup: Startup | None, gpu_mib: int | None) -> BenchResult:
        """All of it as a record."""
        samples, manifest = self._timings.samples_ns, self._artifact.manifest
        stats = summarise([sample / 1e6 for sample in samples])
        metric, overhead = _metric(self._options.scenario, samples, self._batch), self._overhead()
        every = -(-len(samples) // _MAX_SAMPLES)
        return BenchResult(
            schema_version=SCHEMA,
            kind="edge-resnet bench",
            created=datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
            scenario=self._options.scenario,
            rules="MLPerf's minima" if self._options.mlperf else "shorter than MLPerf's",
            backend=self._network.name,
            precision=manifest.precision,
            model=manifest.model.name,
            artifact=str(self._artifact.folder),
            artifact_digest=self._artifact.source_digest(),
            versions=_versions(self._device.tensorrt),
            device=self._device,
            images=self._what,
            seed=self._options.seed,
            batch=self._batch,
            count=stats.count,
            seconds=sum(samples) / 1e9,
            mean_ms=stats.mean_ms,
            p50_ms=stats.p50_ms,
            p90_ms=stats.p90_ms,
            p99_ms=stats.p99_ms,
            p999_ms=stats.p999_ms,
            max_ms=stats.max_ms,
            throughput_per_s=_rate(samples, self._batch),
            metric=metric,
            warm_up=self._warm_up,
            frame=(self._frame.shape[1], self._frame.shape[0]),
            stages_ms=self._stages,
            cold_start_ms=None if startup is None else startup.first_answer_ms,
            host_memory_mib=None if startup is None else startup.peak_mib,
            gpu_memory_mib=gpu_mib,
            engine_bytes=_engine_bytes(self._artifact, self._network.name),
            overhead_share=overhead,
            conditions=self._conditions,
            warnings=(*self._doubts(metric, overhead), *caveats_of_machine(self._conditions), *caveats_of_heat(self._power)),
            interrupted=self._timings.interrupted,
            samples_every=every,
            samples_us=tuple(round(sample / 1e3, 1) for sample in samples[::every]),
            power=self._power,
            mj_per_image=_mj_per_image(self._power, _rate(samples, self._batch)),
        )

    def _overhead(self) -> float:
        """Of the time, spent between queries; and the sampler's processor time, as if it had held all queries up."""
        inside, outside = sum(self._timings.samples_ns), self._timings.outside_ns
        sampling = 0.0 if self._power is None else self._power.sampling_cpu_s / max(self._power.seconds, 1e-9)
        return outside / (inside + outside) + min(1.0, sampling)

    def _doubts(self, metric: Metric, overhead: float) -> list[str]:
        found = caveats_of_run(self._timings, metric, self._warm_up, self._limits, overhead)
        largest = self._artifact.manifest.batch.max
        if self._pipelined is not None and self._batch > largest:
            found.append(
                f"the engine takes {largest} at once, so queries of {self._batch} ran in pieces: build with --batch 1,8,8"
            )
        return found


def _on_gpu(options: BenchOptions, network: Backend | None) -> bool:
    return (resolve_backend(options.backend) if network is None else network.name) == "tensorrt"


def _teller(scenario: Scenario, progress: Progress | None) -> Tick:
    """Progress in percent."""

    def tell(done: float) -> None:
        if progress is not None:
            progress(scenario, int(100 * done), 100)

    return tell


def _images(artifact: Artifact, options: BenchOptions, images: ImageSet | None, count: int) -> tuple[str, Images, ImageArray]:
    """What they are called, ``count`` of them (N, size, size, 3) RGB preprocessed, and a frame (H, W, 3) BGR."""
    rng = np.random.default_rng(options.seed)
    size = artifact.manifest.model.input_size
    if images is None:
        width, height = options.frame
        pool = rng.integers(0, 256, (count, size, size, 3), np.uint8)
        return "random pixels", pool, rng.integers(0, 256, (height, width, 3), np.uint8)
    chosen = images.subset(sorted(rng.permutation(len(images))[:count].tolist()))
    ready = list(batches(chosen, artifact.manifest.preprocess, 32))
    if not ready:
        raise DataError(f"no image of {images.name} can be read", hint="give other images with --data")
    pool = np.concatenate([batch.images for batch in ready])
    frame = np.ascontiguousarray(chosen.load(ready[0].indices[0])[..., ::-1])
    return images.name, np.resize(pool, (max(count, len(pool)), *pool.shape[1:])), frame


def _picks(pool: Images, batch: int, seed: int) -> list[Images]:
    """Queries as views of neighbours in memory, so that taking one costs no copy."""
    draw = random.Random(seed)
    starts = [draw.randint(0, len(pool) - batch) for _ in range(_PICKS)]
    return [pool[start : start + batch] for start in starts]


def _metric(scenario: Scenario, samples: list[int], batch: int) -> Metric:
    if scenario == "offline":
        interval = rate_interval([sample / 1e9 for sample in samples], batch)
        return Metric("throughput_per_s", _rate(samples, batch), interval, len(samples) > 2)
    milliseconds = [sample / 1e6 for sample in samples]
    share = 90 if scenario == "single-stream" else 99
    low, high, certain = percentile_interval(milliseconds, share)
    stats = summarise(milliseconds)
    name, value = ("p90_ms", stats.p90_ms) if share == 90 else ("p99_ms", stats.p99_ms)
    return Metric(name, value, (low, high), certain)  # type: ignore[arg-type]  # one of the two names


def _mj_per_image(power: PowerReading | None, images_per_s: float) -> float | None:
    """By the mean power, since in the time that was measured some images are begun or ended that are not counted."""
    if power is None or power.energy_mj is None or power.mean_w is None:
        return None
    return 1000 * power.mean_w / images_per_s


def _rate(samples: list[int], batch: int) -> float:
    """Images per second."""
    return batch * len(samples) / (sum(samples) / 1e9)


def _versions(tensorrt: str | None) -> dict[str, str]:
    found = {name: installed_version(name) for name in _LIBRARIES}
    found["tensorrt"] = found["tensorrt"] or tensorrt
    return {"edge-resnet": __version__, **{name: version for name, version in found.items() if version}}


def _engine_bytes(artifact: Artifact, backend: str) -> int:
    """What is loaded: the files of the engine, or the graph where that is run as it is."""
    request = load_backend(backend).engine_request(artifact, "native")
    folder = None if request is None else artifact.engine_folder(request.key)
    files: list[Path] = [artifact.model_path] if folder is None else [path for path in folder.iterdir() if path.is_file()]
    return sum(path.stat().st_size for path in files)
