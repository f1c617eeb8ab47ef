"""A scenario from artifact to record: scripted latencies give known figures, real backends give complete records."""

from __future__ import annotations

import importlib.util
import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import HandClock, Scripted, TwoSlots

from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.core.records import BatchProfile
from edge_resnet.images.imageset import from_arrays, open_images
from edge_resnet.images.preprocess import preprocess
from edge_resnet.measurement.bench.bench import bench
from edge_resnet.measurement.bench.conditions import ConditionsMonitor
from edge_resnet.measurement.bench.result import BenchResult
from edge_resnet.measurement.bench.rules import BenchOptions, batch_of, limits_of

QUICK = BenchOptions(seconds=0.2, min_queries=20, starts=0, frame=(64, 48), power=False)


def scripted(artifact: Artifact, options: BenchOptions, latencies: Iterator[float]) -> BenchResult:
    clock = HandClock()
    return bench(artifact, options, network=Scripted(clock, latencies), clock=clock)


def test_scripted_latencies_give_known_figures(tiny_artifacts: dict[str, Artifact]) -> None:
    """Latencies of 1 to 100 ms, each ten times: nearest-rank percentiles, rate and mean as by hand; the metric is p90."""
    pattern = [float(value) for value in random.Random(0).sample(range(1, 101), 100)]
    warm = repeat(50.0, 5 * 3)
    result = scripted(tiny_artifacts["int8"], replace(QUICK, min_queries=1000), chain(warm, *repeat(pattern, 11)))
    assert (result.count, result.batch, result.scenario) == (1000, 1, "single-stream")
    assert (result.p50_ms, result.p90_ms, result.p99_ms, result.max_ms) == (50, 90, 99, 100)
    assert result.p999_ms == 100
    assert result.mean_ms == pytest.approx(50.5)
    assert result.throughput_per_s == pytest.approx(1000 / 50.5)
    assert (result.metric.name, result.metric.value, result.metric.certain) == ("p90_ms", 90, True)
    assert 85 <= result.metric.ci95[0] <= 90 <= result.metric.ci95[1] <= 95
    assert result.samples_us == tuple(1000 * value for value in pattern) * 10
    assert result.warm_up.queries == 15
    assert result.warm_up.settled
    assert result.overhead_share == 0


def test_multi_stream_is_eight_at_a_time(tiny_artifacts: dict[str, Artifact]) -> None:
    """A query holds 8 images, is judged by its p99, and the rate counts images."""
    clock = HandClock()
    network = Scripted(clock, repeat(20.0))
    result = bench(tiny_artifacts["int8"], replace(QUICK, scenario="multi-stream"), network=network, clock=clock)
    assert {len(images) for images in network.seen} == {8}
    assert (result.batch, result.metric.name, result.p99_ms) == (8, "p99_ms", 20)
    assert result.throughput_per_s == pytest.approx(400)
    assert not result.metric.certain
    assert any("too few for the interval of p99_ms" in warning for warning in result.warnings)


def test_offline_keeps_two_batches_running(tiny_artifacts: dict[str, Artifact]) -> None:
    """On a pipelined backend the rate is the device's with two batches running; stages are those of one batch."""
    clock = HandClock()
    network = TwoSlots(clock, repeat(40.0))
    options = replace(QUICK, scenario="offline", batch=16, min_queries=30)
    result = bench(tiny_artifacts["int8"], options, network=network, clock=clock)
    assert network.max_running == 2
    assert (result.count, result.batch) == (30, 16)
    assert result.throughput_per_s == pytest.approx(400)
    assert result.metric.ci95 == pytest.approx((400, 400))
    assert any("the engine's largest batch is 1," in warning for warning in result.warnings)


def test_offline_takes_the_engines_largest_batch(tiny_artifacts: dict[str, Artifact]) -> None:
    """Without --batch the batch size is the profile's largest, and as many images are kept."""
    artifact = tiny_artifacts["fp32"]
    artifact = replace(artifact, manifest=replace(artifact.manifest, batch=BatchProfile(1, 8, 96)))
    clock = HandClock()
    network = Scripted(clock, repeat(40.0))
    bench(artifact, replace(QUICK, scenario="offline"), network=network, clock=clock)
    assert {len(images) for images in network.seen} == {96}


def test_the_seed_decides_the_images(tiny_artifacts: dict[str, Artifact]) -> None:
    """The same seed gives the same queries in the same order, another seed other ones; they are views, not copies."""

    def seen(seed: int) -> list[bytes]:
        clock = HandClock()
        network = Scripted(clock, repeat(10.0))
        bench(tiny_artifacts["int8"], replace(QUICK, seed=seed), network=network, clock=clock)
        assert all(images.base is not None for images in network.seen[:30])
        return [images.tobytes() for images in network.seen[:30]]

    assert seen(1) == seen(1)
    assert seen(1) != seen(2)
    assert len(set(seen(1))) > 15


def test_own_images(tiny_artifacts: dict[str, Artifact], smooth_images: Path) -> None:
    """Given images are classified, preprocessed as the artifact says, and the frame is one of them."""
    artifact, images = tiny_artifacts["int8"], open_images(smooth_images)
    clock = HandClock()
    network = Scripted(clock, repeat(10.0))
    result = bench(artifact, QUICK, images=images, network=network, clock=clock)
    known = {preprocess(images.load(index), artifact.manifest.preprocess).tobytes() for index in range(len(images))}
    assert {image.tobytes() for image in network.seen[0]} <= known
    assert (result.images, result.frame) == (images.name, (48, 40))


def test_few_own_images_are_repeated(tiny_artifacts: dict[str, Artifact]) -> None:
    """Three images fill a query of eight; a set of none is refused."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    clock = HandClock()
    network = Scripted(clock, repeat(10.0))
    bench(tiny_artifacts["int8"], replace(QUICK, scenario="multi-stream"), images=from_arrays("three", pixels),
          network=network, clock=clock)  # fmt: skip
    assert {len(images) for images in network.seen[:30]} == {8}
    with pytest.raises(DataError, match="no image"):
        bench(tiny_artifacts["int8"], QUICK, images=from_arrays("none", pixels).subset([]), network=network, clock=clock)


def test_ctrl_c_keeps_what_was_measured(tiny_artifacts: dict[str, Artifact]) -> None:
    """Interrupted in a query: the result holds the queries before, is marked as partial, and nothing more is measured."""
    latencies: Iterator[float | BaseException] = chain(repeat(10.0, 30), repeat(12.0, 9), [KeyboardInterrupt()])
    clock = HandClock()
    result = bench(tiny_artifacts["int8"], replace(QUICK, starts=1), network=Scripted(clock, latencies), clock=clock)
    assert result.interrupted
    assert result.count == 9
    assert (result.stages_ms, result.cold_start_ms, result.host_memory_mib) == ({}, None, None)
    assert result.warnings[0] == "interrupted after 9 queries: the result is partial"


def test_ctrl_c_in_the_stages_keeps_the_queries(tiny_artifacts: dict[str, Artifact]) -> None:
    """Interrupted after the measurement: all queries are in the result, the stages are not."""
    latencies: Iterator[float | BaseException] = chain(repeat(10.0, 30), repeat(10.0, 20), [10.0, KeyboardInterrupt()])
    clock = HandClock()
    result = bench(tiny_artifacts["int8"], replace(QUICK, starts=1), network=Scripted(clock, latencies), clock=clock)
    assert (result.count, result.interrupted, result.stages_ms) == (20, True, {})


@pytest.mark.parametrize("before", [3, 30], ids=["in the warm-up", "in the first query"])
def test_ctrl_c_before_the_first_query(tiny_artifacts: dict[str, Artifact], before: int) -> None:
    """There is no result yet."""
    latencies: Iterator[float | BaseException] = chain(repeat(10.0, before), [KeyboardInterrupt()])
    clock = HandClock()
    with pytest.raises(KeyboardInterrupt):
        bench(tiny_artifacts["int8"], QUICK, network=Scripted(clock, latencies), clock=clock)


@pytest.mark.usefixtures("uncollected")
def test_a_real_signal(tiny_artifacts: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGINT half a second into a measurement of minutes ends it soon, with a partial result."""

    class Signalling(ConditionsMonitor):
        def __init__(self) -> None:
            super().__init__()
            threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()

    monkeypatch.setattr("edge_resnet.measurement.bench.bench.ConditionsMonitor", Signalling)
    result = bench(tiny_artifacts["int8"], replace(QUICK, seconds=100.0))
    assert result.interrupted
    assert 0 < result.seconds < 60


def test_samples_are_thinned_evenly(tiny_artifacts: dict[str, Artifact]) -> None:
    """Of 50,000 queries every third is kept; percentiles use all of them, so an outlier that is not kept is still the maximum."""
    latencies = chain(repeat(0.1, 3001), [7.0], repeat(0.1))
    options = replace(QUICK, min_queries=50_000, seconds=0.4)
    result = scripted(tiny_artifacts["int8"], options, latencies)
    assert (result.samples_every, len(result.samples_us)) == (3, 16_667)
    assert result.count == 50_000
    assert set(result.samples_us) == {100.0}
    assert result.max_ms == 7


@pytest.mark.parametrize("backend", ["onnxruntime", "fake"])
def test_a_real_backend(tiny_artifacts: dict[str, Artifact], backend: str) -> None:
    """The record is complete: device, versions, digest, sizes, stages, and cold start and memory of a new process."""
    artifact = tiny_artifacts["int8"]
    result = bench(artifact, replace(QUICK, backend=backend, starts=1))
    assert (result.backend, result.precision, result.model) == (backend, "int8", "resnet8-cifar")
    assert result.artifact_digest == artifact.source_digest()
    # All installed backends, not only the measured one.
    installed = {name for name in ("onnxruntime", "openvino") if importlib.util.find_spec(name)}
    assert {"edge-resnet", "numpy", *installed} <= result.versions.keys()
    assert result.device.usable_cores >= 1
    assert result.count >= 20
    assert result.seconds == pytest.approx(result.mean_ms * result.count / 1000)
    assert result.engine_bytes > 1000
    assert set(result.stages_ms) == {"preprocess", "inference", "postprocess", "total"}
    assert result.cold_start_ms is not None
    assert result.cold_start_ms > 50
    assert result.host_memory_mib is not None
    assert 20 < result.host_memory_mib < 2000
    assert result.gpu_memory_mib is None
    assert not result.interrupted


@pytest.mark.alone
def test_measuring_a_query_costs_little(tiny_artifacts: dict[str, Artifact]) -> None:
    """The median of the time between two queries is less than it takes to make 20 small arrays."""
    spans: list[int] = []
    last = [0]

    class Timed(Scripted):
        def infer(self, images: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
            spans.append(time.perf_counter_ns() - last[0])
            answer = np.zeros((len(images), self.classes), np.float32)
            last[0] = time.perf_counter_ns()
            return answer

    bench(tiny_artifacts["int8"], QUICK, network=Timed(HandClock(), ()))
    calls = []
    for _ in range(1000):
        began = time.perf_counter_ns()
        for _ in range(20):
            np.zeros(10, np.float32)
        calls.append(time.perf_counter_ns() - began)
    assert np.median(spans) < np.median(calls)


def test_progress_is_in_percent(tiny_artifacts: dict[str, Artifact]) -> None:
    """It starts at 0, rises, and ends with 100 of 100."""
    calls: list[tuple[str, int, int]] = []
    clock = HandClock()
    network = Scripted(clock, repeat(100.0))
    bench(tiny_artifacts["int8"], replace(QUICK, seconds=5.0), network=network, progress=lambda *c: calls.append(c), clock=clock)
    done = [call[1] for call in calls]
    assert done == sorted(done)
    assert (calls[0], calls[-1]) == (("single-stream", 0, 100), ("single-stream", 100, 100))
    assert len(calls) > 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"scenario": "server"}, {"seconds": 0.0}, {"seconds": float("nan")}, {"seconds": float("inf")}, {"max_seconds": -1.0},
        {"min_queries": 0}, {"batch": 0}, {"pool": 0}, {"seed": -1}, {"starts": -1}, {"frame": (0, 5)}, {"frame": (10**5, 10**5)},
    ],
    ids=str,
)  # fmt: skip
def test_nonsense_is_refused(wrong: dict[str, object]) -> None:
    """Impossible options are a ConfigError when they are created."""
    with pytest.raises(ConfigError):
        BenchOptions(**wrong)  # type: ignore[arg-type]


def test_a_batch_size_is_for_offline_only() -> None:
    """The other scenarios have a fixed batch size."""
    with pytest.raises(ConfigError, match="--batch applies to the offline scenario only"):
        batch_of(BenchOptions(batch=4), 8)
    assert batch_of(BenchOptions(scenario="offline", batch=4), 8) == 4


@given(
    scenario=st.sampled_from(["single-stream", "multi-stream", "offline"]),
    seconds=st.floats(0.1, 2000),
    queries=st.none() | st.integers(1, 100_000),
    batch=st.integers(1, 256),
)
def test_mlperfs_minimums(scenario: str, seconds: float, queries: int | None, batch: int) -> None:
    """--mlperf takes at least 600 s and 1024 queries, 662 queries or 24576 images, and max_seconds does not apply."""
    options = BenchOptions(scenario=scenario, seconds=seconds, min_queries=queries, mlperf=True)  # type: ignore[arg-type]
    limits = limits_of(options, batch)
    minimum = {"single-stream": 1024, "multi-stream": 662, "offline": 24576 / batch}[scenario]
    assert limits.seconds >= max(600, seconds)
    assert limits.queries >= max(minimum, queries or 0)
    assert limits.max_seconds == float("inf")
    assert options.images >= 1024
