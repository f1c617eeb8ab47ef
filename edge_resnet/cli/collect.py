"""``edge-resnet calibrate --from-camera``: the options of collecting, and how it is told. Knows nothing of ranges."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_resnet.cli.progress import progress_bars
from edge_resnet.core.errors import ConfigError, SourceError

if TYPE_CHECKING:
    from edge_resnet.streaming.collect import SnapshotResult

__all__ = ["Count", "Every", "FromCamera", "MinChange", "Source", "collect", "one_source"]

_PANEL = "Collecting pictures"
#: As every command that is interrupted: main() says so.
_INTERRUPTED = 130

FromCamera = Annotated[int | None, typer.Option(min=0, help="Index of the camera to collect from.", rich_help_panel=_PANEL)]
Source = Annotated[
    str | None, typer.Option(help="Or a video, images or synthetic://, from all of which is drawn.", rich_help_panel=_PANEL)
]
Count = Annotated[int | None, typer.Option(help="Pictures the folder shall hold (default: 256).", rich_help_panel=_PANEL)]
Every = Annotated[float | None, typer.Option(help="Seconds between pictures of a camera (default: 1).", rich_help_panel=_PANEL)]
MinChange = Annotated[
    float | None,
    typer.Option(help="Least difference to every other picture, in grey levels (default: 2).", rich_help_panel=_PANEL),
]


def one_source(from_camera: int | None, source: str | None) -> str | None:
    """The URI to collect from; None where neither option is given. Raises ConfigError where both are."""
    if from_camera is not None and source is not None:
        raise ConfigError("--from-camera and --source exclude each other", hint="choose one; a second run goes on in the folder")
    return source if from_camera is None else f"camera:{from_camera}"


def collect(uri: str, folder: Path | None, options: dict[str, float | None], *, json_output: bool) -> None:
    """Collect and tell. ``options``: the fields of SnapshotOptions, None where the user says nothing.

    Ends with 130 where it is interrupted, the pictures kept and told.
    """
    from edge_resnet.streaming.collect import SnapshotOptions, collect_snapshots
    from edge_resnet.streaming.sources import open_source, public_uri

    if folder is None:
        raise ConfigError("the pictures need a folder", hint="-o pictures/")
    given = {name: value for name, value in options.items() if value is not None}
    wanted = SnapshotOptions(**given)  # type: ignore[arg-type]  # each option has its field's type
    with open_source(uri) as source:
        if "every_s" in given and not source.live:
            raise ConfigError("--every is for cameras: a file has no clock", hint="leave it out, frames of all of it are drawn")
        with progress_bars() as progress:
            result = collect_snapshots(source, folder, wanted, progress=progress)
    _tell(folder, result, wanted.count, json_output=json_output)
    if result.interrupted:
        raise typer.Exit(_INTERRUPTED)
    if result.total == 0:
        raise SourceError(f"{public_uri(uri)} gave no picture worth keeping", hint="is there light, and no cap on the lens?")


def _tell(folder: Path, result: SnapshotResult, count: int, *, json_output: bool) -> None:
    if json_output:
        typer.echo(json.dumps({"folder": str(folder), **asdict(result)}))
        return
    reasons = {
        "like another": result.skipped_similar,
        "black": result.skipped_dark,
        "overexposed": result.skipped_bright,
        "of one colour": result.skipped_flat,
    }
    skipped = ", ".join(f"{number} {reason}" for reason, number in reasons.items() if number) or "none"
    typer.echo(
        f"{folder}: {result.total} pictures, {result.saved} of them new, in {result.seconds:.1f} s; passed over: {skipped}"
    )
    if result.total < count:
        typer.echo(f"fewer than the {count} asked for: another run, also of another source, goes on")
    if result.total:
        typer.echo(f"next: edge-resnet calibrate ARTIFACT --calib-data {folder} -o artifacts/NAME")
