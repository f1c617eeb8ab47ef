"""Latency and throughput of an artifact on this machine, by MLPerf's scenarios, with the caveats of the measurement.

Does not know about accuracy: images may be noise, because a network of this family takes equally long for any image.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from datetime import datetime, timezone
from functools import partial
from itertools import cycle
from pathlib import Path

from edge_resnet.artifact.folder import Artifact
from edge_resnet.core import __version__
from edge_resnet.core.packages import installed_version
from edge_resnet.core.records import Progress
from edge_resnet.core.statistics import percentile, summarise
from edge_resnet.device.machine import describe
from edge_resnet.device.power import PowerMeter, PowerReading, search_meters
from edge_resnet.images.imageset import ImageSet
from edge_resnet.measurement.bench.caveats import caveats_of_heat, caveats_of_machine, caveats_of_run
from edge_resnet.measurement.bench.conditions import Conditions, ConditionsMonitor, gpu_memory_mib
from edge_resnet.measurement.bench.inputs import draw_queries, prepare_inputs
from edge_resnet.measurement.bench.intervals import percentile_interval, rate_interval
from edge_resnet.measurement.bench.result import KIND, SCHEMA, BenchResult, Metric, Scenario
from edge_resnet.measurement.bench.rules import BenchOptions, batch_of, limits_of
from edge_resnet.measurement.bench.stages import measure_stages
from edge_resnet.measurement.bench.startup import Startup, measure_startup
from edge_resnet.measurement.bench.timing import Clock, Tick, Timings, WarmUp, one_by_one, overlapped, warm_up
from edge_resnet.runtime.backend import (
    BACKENDS,
    Backend,
    PipelinedBackend,
    backend_info,
    load_backend,
    open_backend,
    resolve_backend,
)

__all__ = ["MAX_SAMPLES", "bench", "bench_scenarios"]

#: Fewest and most seconds of a warm-up.
_WARM_UP_MIN_S, _WARM_UP_MAX_S = 1.0, 15.0
#: Time for the stages, as a share of the measurement's time.
_STAGES_SHARE = 0.2
#: Samples that a result keeps; of more queries every n-th sample is kept.
MAX_SAMPLES = 20_000


def bench(
    artifact: Artifact,
    options: BenchOptions,
    *,
    images: ImageSet | None = None,
    network: Backend | None = None,
    progress: Progress | None = None,
    clock: Clock = time.perf_counter_ns,
) -> BenchResult:
    """Measure one scenario. Without ``images`` the images are noise; without ``network`` the artifact is opened.

    Ctrl-C ends the measurement with a partial result; before the first query it raises KeyboardInterrupt. Raises what opening and
    running the backend raises, and DataError if no image can be read.
    """
    before_mib = gpu_memory_mib() if _on_gpu(options, network) else None
    with ExitStack() as stack:
        if network is None:
            network = stack.enter_context(open_backend(artifact, options.backend))
        measurement = _Measurement(artifact, options, network, images, clock)
        measurement.run(_percent_tick(options.scenario, progress))
        after_mib = None if before_mib is None else gpu_memory_mib()
    used_mib = None if before_mib is None or after_mib is None else max(0, after_mib - before_mib)
    startup = measurement.measure_startup()
    return measurement.result(startup, used_mib)


def bench_scenarios(
    artifact: Artifact,
    options: Sequence[BenchOptions],
    *,
    images: ImageSet | None = None,
    progress: Progress | None = None,
) -> list[BenchResult]:
    """Measure one scenario after another. Ctrl-C ends it with the results so far, the last of which may be partial.

    Raises what ``bench`` raises; KeyboardInterrupt only if there is no result.
    """
    results: list[BenchResult] = []
    for scenario in options:
        try:
            results.append(bench(artifact, scenario, images=images, progress=progress))
        except KeyboardInterrupt:
            if not results:
                raise
            break
        if results[-1].interrupted:
            break
    return results


class _Measurement:
    """The measurement of one scenario, which collects the parts of its result."""

    def __init__(
        self, artifact: Artifact, options: BenchOptions, network: Backend, images: ImageSet | None, clock: Clock
    ) -> None:
        self._artifact, self._options, self._network, self._clock = artifact, options, network, clock
        self._pipelined = network if isinstance(network, PipelinedBackend) else None
        self._batch = batch_of(options, artifact.manifest.batch.max)
        self._limits = limits_of(options, self._batch)
        self._device = describe()
        self._inputs = prepare_inputs(artifact, options, images, max(options.images, self._batch))
        self._stages: dict[str, float] = {}
        self._timings = Timings()
        # Sensors are searched before the warm-up: it takes a while, in which a GPU would lower its clocks.
        self._meter = PowerMeter(search_meters(works=backend_info(network.name).processor)) if options.power else None
        self._power: PowerReading | None = None
        self._warm_up: WarmUp
        self._conditions: Conditions

    def run(self, tick: Tick) -> None:
        """Warm up, measure queries, then the stages. Raises KeyboardInterrupt while there is no sample."""
        query = partial(next, cycle(draw_queries(self._inputs.pool, self._batch, self._options.seed)))
        network, clock, limits = self._network, self._clock, self._limits
        min_s = min(_WARM_UP_MIN_S, limits.seconds / 2)
        self._warm_up = warm_up(lambda: network.infer(query()), min_s, _WARM_UP_MAX_S, clock)
        tick(0.0)
        with self._meter or nullcontext():
            monitor = ConditionsMonitor()

            def sample_and_tick(done: float) -> None:
                monitor.sample()
                tick(done)

            if self._pipelined is not None and self._options.scenario == "offline":
                submit, result = self._pipelined.submit, self._pipelined.result
                self._timings = overlapped(lambda: submit(query()), result, limits, sample_and_tick, clock)
            else:
                self._timings = one_by_one(lambda: network.infer(query()), limits, sample_and_tick, clock)
            self._conditions = monitor.finish()
        self._power = None if self._meter is None else self._meter.reading()
        if not self._timings.samples_ns:
            raise KeyboardInterrupt
        tick(1.0)
        if not self._timings.interrupted:
            seconds = min(limits.seconds, self._options.seconds) * _STAGES_SHARE
            try:
                self._stages = measure_stages(network, self._artifact, self._inputs.frame, self._batch, seconds, clock)
            except KeyboardInterrupt:
                self._timings.interrupted = True

    def measure_startup(self) -> Startup | None:
        """Measure cold starts, if they are requested and the measurement was not interrupted."""
        if self._timings.interrupted or not self._options.starts:
            return None
        try:
            return measure_startup(self._artifact.folder, self._network.name, self._batch, self._options.starts)
        except KeyboardInterrupt:
            self._timings.interrupted = True
            return None

    def result(self, startup: Startup | None, gpu_mib: int | None) -> BenchResult:
        """All parts as a record. ``gpu_mib``: memory that the network took on the GPU."""
        samples, manifest = self._timings.samples_ns, self._artifact.manifest
        stats = summarise([sample / 1e6 for sample in samples])
        metric, overhead = _metric(self._options.scenario, samples, self._batch), self._overhead()
        every = -(-len(samples) // MAX_SAMPLES)
        return BenchResult(
            schema_version=SCHEMA,
            kind=KIND,
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
            images=self._inputs.name,
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
            frame=(self._inputs.frame.shape[1], self._inputs.frame.shape[0]),
            stages_ms=self._stages,
            cold_start_ms=None if startup is None else startup.first_answer_ms,
            host_memory_mib=None if startup is None else startup.peak_mib,
            gpu_memory_mib=gpu_mib,
            engine_bytes=_engine_bytes(self._artifact, self._network.name),
            overhead_share=overhead,
            conditions=self._conditions,
            warnings=(*self._caveats(metric, overhead), *caveats_of_machine(self._conditions), *caveats_of_heat(self._power)),
            interrupted=self._timings.interrupted,
            samples_every=every,
            samples_us=tuple(round(sample / 1e3, 1) for sample in samples[::every]),
            power=self._power,
            mj_per_image=_mj_per_image(self._power, _rate(samples, self._batch)),
        )

    def _overhead(self) -> float:
        """Share of the time between queries, plus the sampler's processor time, as if all of it had delayed queries."""
        inside, outside = sum(self._timings.samples_ns), self._timings.outside_ns
        sampling = 0.0 if self._power is None else self._power.sampling_cpu_s / max(self._power.seconds, 1e-9)
        return outside / (inside + outside) + min(1.0, sampling)

    def _caveats(self, metric: Metric, overhead: float) -> list[str]:
        found = caveats_of_run(self._timings, metric, self._warm_up, self._limits, overhead)
        max_batch = self._artifact.manifest.batch.max
        if self._pipelined is not None and self._batch > max_batch:
            found.append(
                f"the engine's largest batch is {max_batch}, so queries of {self._batch} images ran in parts: "
                "build with --batch 1,8,8"
            )
        return found


def _on_gpu(options: BenchOptions, network: Backend | None) -> bool:
    return backend_info(resolve_backend(options.backend) if network is None else network.name).processor == "GPU"


def _percent_tick(scenario: Scenario, progress: Progress | None) -> Tick:
    """A tick that reports the share done in percent."""

    def tick(done: float) -> None:
        if progress is not None:
            progress(scenario, int(100 * done), 100)

    return tick


def _metric(scenario: Scenario, samples: list[int], batch: int) -> Metric:
    if scenario == "offline":
        interval = rate_interval([sample / 1e9 for sample in samples], batch)
        return Metric("throughput_per_s", _rate(samples, batch), interval, len(samples) > 2)
    milliseconds = [sample / 1e6 for sample in samples]
    is_single = scenario == "single-stream"
    share = 90 if is_single else 99
    low, high, certain = percentile_interval(milliseconds, share)
    return Metric("p90_ms" if is_single else "p99_ms", percentile(sorted(milliseconds), share), (low, high), certain)


def _mj_per_image(power: PowerReading | None, images_per_s: float) -> float | None:
    """Mean power times time per image. The measured energy also holds parts of images that are not counted."""
    if power is None or power.energy_mj is None or power.mean_w is None:
        return None
    return 1000 * power.mean_w / images_per_s


def _rate(samples: list[int], batch: int) -> float:
    """Images per second."""
    return batch * len(samples) / (sum(samples) / 1e9)


def _versions(tensorrt: str | None) -> dict[str, str]:
    requirements = [requirement for name in BACKENDS for requirement in backend_info(name).requirements]
    packages = [package for requirement in requirements for package in sorted(requirement.packages)]
    found = {package: installed_version(package) for package in packages}
    found["tensorrt"] = found["tensorrt"] or tensorrt
    return {"edge-resnet": __version__, **{name: version for name, version in found.items() if version}}


def _engine_bytes(artifact: Artifact, backend: str) -> int:
    """Size of what is loaded: the engine's files, or the graph if it runs as it is."""
    request = load_backend(backend).engine_request(artifact, "native")
    folder = None if request is None else artifact.engine_folder(request.key)
    files: list[Path] = [artifact.model_path] if folder is None else [path for path in folder.iterdir() if path.is_file()]
    return sum(path.stat().st_size for path in files)
