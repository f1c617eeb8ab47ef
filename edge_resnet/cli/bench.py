"""``edge-resnet bench``: parses the options and prints the results. Measuring is done in measurement.bench."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from edge_resnet.cli.opened import open_announced
from edge_resnet.cli.progress import progress_bars
from edge_resnet.cli.tables import table_lines
from edge_resnet.core.errors import INTERRUPTED, ConfigError

if TYPE_CHECKING:
    from edge_resnet.device.power import PowerReading
    from edge_resnet.measurement.bench.result import BenchResult, Scenario

__all__ = ["bench"]

_MIB = 1 << 20
_HEADS = ("", "queries", "p50 ms", "p90 ms", "p99 ms", "max ms", "images/s", "")
_NUMERIC = range(1, 7)


def bench(
    artifact: Annotated[Path | None, typer.Argument(help="Artifact folder (default: the newest one under artifacts/).")] = None,
    scenario: Annotated[
        Literal["single-stream", "multi-stream", "offline", "all"],
        typer.Option(help="One image at a time (p90), 8 at a time (p99), images per second, or all three."),
    ] = "single-stream",
    backend: Annotated[str, typer.Option(help="auto, tensorrt, tensorrt-rtx, openvino, onnxruntime, or fake.")] = "auto",
    seconds: Annotated[float, typer.Option(help="Shortest measurement, after the warm-up.")] = 10.0,
    min_queries: Annotated[
        int | None, typer.Option(help="Fewest queries (default: 1024, multi-stream 662, offline 24 batches).")
    ] = None,
    max_seconds: Annotated[float, typer.Option(help="Longest measurement, even with fewer queries.")] = 120.0,
    mlperf: Annotated[
        bool, typer.Option("--mlperf", help="MLPerf's minimums: 600 s and 1024 queries, 662 queries or 24576 images.")
    ] = False,
    batch: Annotated[int | None, typer.Option(help="Batch size of offline (default: the engine's largest).")] = None,
    data: Annotated[str, typer.Option(help="Images: folder, CSV, .npz, or a name (default: random pixels).")] = "",
    frame: Annotated[str, typer.Option(metavar="WxH", help="Size of the frames that the stages start with.")] = "1920x1080",
    seed: Annotated[int, typer.Option(help="Seed of the random pixels and of the order of images.")] = 0,
    power: Annotated[bool, typer.Option(help="Also measure power, temperatures and throttling, if sensors can be read.")] = True,
    cold_start: Annotated[bool, typer.Option(help="Also start processes: time to the first prediction, memory.")] = True,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the result as JSON, with all samples.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.")] = False,
) -> None:
    """Measure latency and throughput by MLPerf's scenarios, each with its 95 % interval and caveats.

    MLPerf measures 600 seconds per scenario, as --mlperf does; the default of 10 gives a first impression. Ctrl-C ends the
    measurement with a partial result.

    edge-resnet bench artifacts/resnet50-int8

    edge-resnet bench --scenario all --save bench.json

    edge-resnet bench --scenario offline --batch 32 --seconds 60 --json
    """
    from edge_resnet.core.files import check_free
    from edge_resnet.measurement.bench.bench import bench_scenarios
    from edge_resnet.measurement.bench.result import Scenario, to_json, write_results
    from edge_resnet.measurement.bench.rules import BenchOptions

    if save is not None:
        check_free(save, force=force)
    chosen: list[Scenario] = list(get_args(Scenario)) if scenario == "all" else [scenario]
    options = BenchOptions(
        scenario=chosen[0], backend=backend, seconds=seconds, min_queries=min_queries, max_seconds=max_seconds,
        seed=seed, frame=_frame_size(frame), starts=3 if cold_start else 0, mlperf=mlperf, power=power,
    )  # fmt: skip
    if batch is not None and "offline" not in chosen:
        raise ConfigError("--batch applies to the offline scenario only", hint="--scenario offline --batch 32")
    requested = [replace(options, scenario=name, batch=batch if name == "offline" else None) for name in chosen]
    from edge_resnet.pipelines.engines import prepare_engine

    opened = open_announced(artifact, backend)
    with progress_bars() as progress:
        prepare_engine(opened, backend, progress=progress)
    images = None
    if data:
        from edge_resnet.images.datasets import open_data

        images = open_data(data, split="test")  # their classes do not matter
    with progress_bars() as progress:
        results = bench_scenarios(opened, requested, images=images, progress=progress)
    if json_output:
        typer.echo(to_json(results, samples=False))
    else:
        for line in _lines(results):
            typer.echo(line)
    if save is not None:  # last: a file that cannot be written must not take the results with it
        write_results(save, results, force=force)
    if len(results) < len(requested) or results[-1].interrupted:
        raise typer.Exit(INTERRUPTED)


def _frame_size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError as error:
        raise ConfigError(f"--frame takes a width and a height, not {text}", hint="--frame 1920x1080") from error
    return width, height


def _lines(results: list[BenchResult]) -> list[str]:
    """What was measured, a table with a row per scenario, and the details of each."""
    from edge_resnet.runtime.backend import backend_info

    first = results[0]
    on_gpu = backend_info(first.backend).processor == "GPU"
    where = first.device.gpu if on_gpu else f"{first.device.usable_cores} cores of {first.device.cpu}"
    title = f"{first.model} {first.precision} on {first.backend}, {where}; {first.images}, {first.rules}"
    table = table_lines([_row(result) for result in results], heads=_HEADS, numeric=_NUMERIC)
    return [title, *table, *(line for result in results for line in _details(result))]


def _row(result: BenchResult) -> list[str]:
    latencies = [f"{value:.3f}" for value in (result.p50_ms, result.p90_ms, result.p99_ms, result.max_ms)]
    note = "(partial: interrupted)" if result.interrupted else ""
    return [result.scenario, str(result.count), *latencies, f"{result.throughput_per_s:.1f}", note]


def _details(result: BenchResult) -> list[str]:
    metric, unit = result.metric, "images/s" if result.scenario == "offline" else "ms"
    name = metric.name.partition("_")[0]
    low, high = metric.ci95
    interval = f"95 % interval {low:.4g} to {high:.4g}{'' if metric.certain else ', from too few queries'}"
    images = "1 image" if result.batch == 1 else f"{result.batch} images"
    lines = [f"{result.scenario}: {name} {metric.value:.4g} {unit} ({interval}), {images} per query, {result.seconds:.1f} s"]
    if result.stages_ms:
        stages = ", ".join(f"{stage} {milliseconds:.3f}" for stage, milliseconds in result.stages_ms.items())
        lines.append(f"  from a frame of {result.frame[0]}x{result.frame[1]}, ms: {stages}")
    costs = []
    if result.cold_start_ms is not None:
        costs.append(f"first prediction {result.cold_start_ms:.0f} ms after the start of a process")
    if result.host_memory_mib is not None:
        costs.append(f"{result.host_memory_mib} MiB of memory")
    if result.gpu_memory_mib is not None:
        costs.append(f"{result.gpu_memory_mib} MiB of GPU memory")
    costs += [f"engine {result.engine_bytes / _MIB:.1f} MiB on disk", f"measuring took {100 * result.overhead_share:.2f} %"]
    lines.append(f"  {', '.join(costs)}")
    if result.power is not None:
        lines += _power(result.power, result.mj_per_image)
    return lines + [f"  warning: {warning}" for warning in result.warnings]


def _power(power: PowerReading, mj_per_image: float | None) -> list[str]:
    """A line for power, and one for temperatures and clocks. What no sensor reports is left out, never zero."""
    if power.mean_w is None:
        drawn = "absent (no power meter can be read)"
    else:
        energy = "energy absent" if mj_per_image is None else f"{mj_per_image:.1f} mJ per image"
        drawn = f"{power.mean_w:.2f} W, {energy} ({power.source}: {power.covers})"
    heat = []
    if power.temperatures:
        zone, reading = max(power.temperatures.items(), key=lambda item: item[1].max_c)
        heat.append(f"{reading.before_c:.0f} °C before, {reading.after_c:.0f} after, maximum {reading.max_c:.0f} ({zone})")
    for name, clock in (("GPU", power.gpu_clock), ("CPU", power.cpu_clock)):
        if clock is not None:
            heat.append(f"{name} at {clock.min_mhz:.0f} to {clock.max_mhz:.0f} MHz")
    if power.power_mode is not None:
        heat.append(f"power mode {power.power_mode}")
    return [f"  power: {drawn}", *([f"  heat: {', '.join(heat)}"] if heat else [])]
