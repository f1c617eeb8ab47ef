"""``edge-resnet bench``. Knows the options and how a result is printed; the measuring is edge_resnet.measurement.bench.bench's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from edge_resnet.cli.progress import progress_bars
from edge_resnet.core.errors import INTERRUPTED, ConfigError

if TYPE_CHECKING:
    from edge_resnet.artifact.folder import Artifact
    from edge_resnet.device.power import PowerReading
    from edge_resnet.images.imageset import ImageSet
    from edge_resnet.measurement.bench.result import BenchResult, Scenario
    from edge_resnet.measurement.bench.rules import BenchOptions

__all__ = ["bench"]

_MIB = 1 << 20
_HEAD = f"{'':14}{'queries':>8}{'p50 ms':>10}{'p90 ms':>10}{'p99 ms':>10}{'max ms':>10}{'images/s':>10}"


def bench(
    artifact: Annotated[
        Path | None, typer.Argument(help="Folder that build wrote (default: the newest under artifacts/).")
    ] = None,
    scenario: Annotated[
        Literal["single-stream", "multi-stream", "offline", "all"],
        typer.Option(help="One image at a time (p90), 8 at a time (p99), images per second, or all three."),
    ] = "single-stream",
    backend: Annotated[str, typer.Option(help="auto, tensorrt, openvino, onnxruntime, or fake.")] = "auto",
    seconds: Annotated[float, typer.Option(help="Measure for so long at least, after the warm-up.")] = 10.0,
    min_queries: Annotated[
        int | None, typer.Option(help="And so many queries (default: 1024, multi-stream 662, offline 24 batches).")
    ] = None,
    max_seconds: Annotated[float, typer.Option(help="But no longer than this, however few queries that is.")] = 120.0,
    mlperf: Annotated[
        bool, typer.Option("--mlperf", help="MLPerf's minima: 600 s and 1024 queries, 662 queries or 24576 images.")
    ] = False,
    batch: Annotated[int | None, typer.Option(help="Images in a batch offline (default: the engine's largest).")] = None,
    data: Annotated[str, typer.Option(help="Images: folder, CSV, .npz, or a name (default: random pixels).")] = "",
    frame: Annotated[str, typer.Option(metavar="WxH", help="Size of the frames that the stages begin with.")] = "1920x1080",
    seed: Annotated[int, typer.Option(help="Of the pixels, and of the order of images.")] = 0,
    power: Annotated[bool, typer.Option(help="Watch power, heat and throttling meanwhile, where sensors can be read.")] = True,
    cold_start: Annotated[bool, typer.Option(help="Start processes too: time to the first answer, memory.")] = True,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep the result as JSON, samples included.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.")] = False,
) -> None:
    """Measure latency and throughput by MLPerf's scenarios, each with its 95 % interval and what speaks against it.

    10 seconds a scenario are for a look: MLPerf measures 600, as --mlperf does. Ctrl-C ends it with what there is.

    edge-resnet bench artifacts/resnet50-int8

    edge-resnet bench --scenario all --save bench.json

    edge-resnet bench --scenario offline --batch 32 --seconds 60 --json
    """
    from edge_resnet.core.files import check_free
    from edge_resnet.measurement.bench.result import Scenario, to_json, write_results
    from edge_resnet.measurement.bench.rules import BenchOptions

    if save is not None:
        check_free(save, force=force)
    chosen: list[Scenario] = list(get_args(Scenario)) if scenario == "all" else [scenario]
    options = BenchOptions(
        scenario=chosen[0], backend=backend, seconds=seconds, min_queries=min_queries, max_seconds=max_seconds,
        seed=seed, frame=_size(frame), starts=3 if cold_start else 0, mlperf=mlperf, power=power,
    )  # fmt: skip
    if batch is not None and "offline" not in chosen:
        raise ConfigError("--batch is offline's; the other scenarios have their own", hint="--scenario offline --batch 32")
    wanted = [replace(options, scenario=name, batch=batch if name == "offline" else None) for name in chosen]
    from edge_resnet.pipelines.engines import open_with_engine

    with progress_bars() as progress:
        opened = open_with_engine(artifact, backend, progress=progress)
    images = None
    if data:
        from edge_resnet.images.datasets import open_data

        images = open_data(data, split="test", label_names=opened.labels)
    results = _measured(opened, wanted, images)
    if save is not None:
        write_results(save, results)
    if json_output:
        typer.echo(to_json(results, samples=False))
    else:
        _report(results)
    if len(results) < len(wanted) or results[-1].interrupted:
        raise typer.Exit(INTERRUPTED)


def _measured(artifact: Artifact, wanted: list[BenchOptions], images: ImageSet | None) -> list[BenchResult]:
    """The results up to Ctrl-C; raises KeyboardInterrupt where there is none."""
    from edge_resnet.measurement.bench.bench import bench as measure

    results: list[BenchResult] = []
    with progress_bars() as progress:
        for options in wanted:
            try:
                results.append(measure(artifact, options, images=images, progress=progress))
            except KeyboardInterrupt:
                if not results:
                    raise
                break
            if results[-1].interrupted:
                break
    return results


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError as error:
        raise ConfigError(f"--frame takes a width and a height, not {text}", hint="--frame 1920x1080") from error
    return width, height


def _report(results: list[BenchResult]) -> None:
    first = results[0]
    where = first.device.gpu if first.backend == "tensorrt" else f"{first.device.usable_cores} cores of {first.device.cpu}"
    typer.echo(f"{first.model} {first.precision} on {first.backend}, {where}; {first.images}, {first.rules}")
    typer.echo(_HEAD)
    for result in results:
        latencies = "".join(f"{value:10.3f}" for value in (result.p50_ms, result.p90_ms, result.p99_ms, result.max_ms))
        part = "   (a part: interrupted)" if result.interrupted else ""
        typer.echo(f"{result.scenario:14}{result.count:8}{latencies}{result.throughput_per_s:10.1f}{part}")
    for result in results:
        for line in _details(result):
            typer.echo(line)


def _details(result: BenchResult) -> list[str]:
    metric, unit = result.metric, "images/s" if result.scenario == "offline" else "ms"
    name = metric.name.partition("_")[0]
    spread = f"95 % interval {metric.ci95[0]:.4g} to {metric.ci95[1]:.4g}{'' if metric.certain else ', too few for more'}"
    images = "1 image" if result.batch == 1 else f"{result.batch} images"
    lines = [f"{result.scenario}: {name} {metric.value:.4g} {unit} ({spread}), {images} a query, {result.seconds:.1f} s"]
    if result.stages_ms:
        stages = ", ".join(f"{stage} {milliseconds:.3f}" for stage, milliseconds in result.stages_ms.items())
        lines.append(f"  from a frame of {result.frame[0]}x{result.frame[1]}, ms: {stages}")
    sizes = [f"engine {result.engine_bytes / _MIB:.1f} MiB on the disk", f"measuring took {100 * result.overhead_share:.2f} %"]
    if result.gpu_memory_mib is not None:
        sizes.insert(0, f"{result.gpu_memory_mib} MiB of the GPU's")
    if result.host_memory_mib is not None:
        sizes.insert(0, f"{result.host_memory_mib} MiB of memory")
    if result.cold_start_ms is not None:
        sizes.insert(0, f"first answer {result.cold_start_ms:.0f} ms after the start of a process")
    lines.append(f"  {', '.join(sizes)}")
    if result.power is not None:
        lines += _power(result.power, result.mj_per_image)
    return lines + [f"  warning: {warning}" for warning in result.warnings]


def _power(power: PowerReading, mj_per_image: float | None) -> list[str]:
    """What was drawn in a line, and heat and clocks in another; what no sensor told is absent, and never zero."""
    if power.mean_w is None:
        drawn = "absent (no meter that can be read)"
    else:
        energy = "energy absent" if mj_per_image is None else f"{mj_per_image:.1f} mJ an image"
        drawn = f"{power.mean_w:.2f} W, {energy} ({power.source}: {power.covers})"
    heat = []
    if power.temperatures:
        zone, seen = max(power.temperatures.items(), key=lambda item: item[1].max_c)
        heat.append(f"{seen.before_c:.0f} °C before, {seen.after_c:.0f} after, {seen.max_c:.0f} at most ({zone})")
    for name, clock in (("GPU", power.gpu_clock), ("processor", power.cpu_clock)):
        if clock is not None:
            heat.append(f"{name} at {clock.min_mhz:.0f} to {clock.max_mhz:.0f} MHz")
    if power.power_mode is not None:
        heat.append(f"power mode {power.power_mode}")
    return [f"  power: {drawn}", *([f"  heat: {', '.join(heat)}"] if heat else [])]
