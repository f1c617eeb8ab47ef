"""``edge-resnet demo``. Knows how the result is printed; the work is done by edge_resnet.pipelines.demo."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_resnet.cli.progress import progress_bars

if TYPE_CHECKING:
    from edge_resnet.pipelines.demo import DemoResult

__all__ = ["demo"]


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the two artifacts.")] = Path("artifacts"),
    json_output: Annotated[bool, typer.Option("--json", help="Print only JSON on stdout.")] = False,
) -> None:
    """Train, quantize and run a ResNet-20 on handwritten digits, offline and in about a minute.

    edge-resnet demo
    """
    from edge_resnet.pipelines.demo import run_demo

    with progress_bars() as progress:
        result = run_demo(output, force=True, progress=progress)
    if json_output:
        typer.echo(json.dumps(asdict(result)))
        return
    _print(result)


def _print(result: DemoResult) -> None:
    typer.echo(
        f"trained a ResNet-20 on {result.train_images} handwritten digits in {result.train_seconds:.0f} s, "
        f"loss {result.train_loss:.3f}"
    )
    typer.echo("")
    typer.echo("precision   top-1 %   95 % interval    agrees with FP32 %   p50 ms   p90 ms   images/s")
    for name, outcome in result.outcomes.items():
        accuracy, latency = outcome.accuracy, outcome.latency
        interval = f"{accuracy.ci95[0]:.1f} to {accuracy.ci95[1]:.1f}"
        typer.echo(
            f"{name:<9} {accuracy.top1:9.2f}   {interval:<16} {accuracy.agreement:17.2f} "
            f"{latency.p50_ms:10.3f} {latency.p90_ms:8.3f} {1000 / latency.mean_ms:10.0f}"
        )
    fp32, int8 = result.outcomes["fp32"], result.outcomes["int8"]
    typer.echo(f"INT8 takes {int8.latency.p50_ms / fp32.latency.p50_ms:.2f} of FP32's time ({int8.accuracy.backend}, batch 1)")
    typer.echo("")
    typer.echo("a stream of frames, classified by INT8:")
    for true, predicted, probability in result.stream:
        mark = "✓" if true == predicted else "✗"
        typer.echo(f"  {mark} a {true} was classified as {predicted} ({100 * probability:.1f} %)")
    typer.echo("")
    typer.echo("next, your own network and camera:")
    typer.echo("  edge-resnet build --depth 50 --int8")
    typer.echo("  edge-resnet run --camera 0")
    typer.echo(f"  edge-resnet inspect {int8.folder}")
