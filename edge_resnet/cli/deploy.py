"""``edge-resnet deploy``. Knows the options and what is printed; edge_resnet.deployment renders and writes the files."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.core.errors import ConfigError

__all__ = ["deploy"]

deploy = typer.Typer(help="Files for a device: a systemd service, scripts for boards, containers, monitoring.")


@deploy.command("systemd")
def systemd(
    artifact: Annotated[Path, typer.Argument(help="Folder that build wrote.")],
    run_options: Annotated[list[str] | None, typer.Argument(help="After --: more options of edge-resnet run.")] = None,
    source: Annotated[
        list[str] | None, typer.Option(help="Camera, stream or file, as for run; repeatable (default: camera:0).")
    ] = None,
    user: Annotated[str, typer.Option(help="User that the service runs as.")] = "edge-resnet",
    name: Annotated[str, typer.Option(help="Name of the service, unique on the device.")] = "edge-resnet",
    web: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Serve the web page and the metrics.")] = None,
    memory_max: Annotated[str, typer.Option(help="Memory limit at which the service is killed: 3G, 75% or infinity.")] = "75%",
    writable: Annotated[list[Path] | None, typer.Option(help="Folder that the service may write to; repeatable.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File for the unit (default: stdout).")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
    print_only: Annotated[bool, typer.Option("--print", help="Print only the unit and write no file.")] = False,
) -> None:
    """Write a systemd unit that runs an artifact with this Python, and print the commands that install it.

    edge-resnet deploy systemd artifacts/resnet50-int8 --source /dev/video0 -o edge-resnet.service

    edge-resnet deploy systemd artifacts/resnet50-int8 --source rtsp://user:password@camera/1 --name door -o door.service

    edge-resnet deploy systemd artifacts/resnet50-int8 --web 0.0.0.0:8080 -o edge-resnet.service

    edge-resnet deploy systemd artifacts/resnet50-int8 -o x.service -- --jsonl answers.jsonl --jsonl-append --jsonl-max 64

    Passwords and the token of the web page are not written to the unit, which everyone can read, but to a file beside it. Only
    you can read that file and, once installed, only root.
    """
    if output is not None and print_only:
        raise ConfigError("--print writes no file, so -o has no effect", hint="leave out one of the two")
    from edge_resnet.artifact.folder import open_artifact
    from edge_resnet.deployment import devicefiles
    from edge_resnet.deployment.systemd import ServiceOptions, render_unit, secrets_of

    options = ServiceOptions(
        python=Path(sys.executable).absolute(),
        artifact=open_artifact(artifact).folder.absolute(),
        sources=tuple(map(_absolute, source or ["camera:0"])),
        run_options=(*(("--web", web) if web else ()), *(run_options or [])),
        secrets=devicefiles.page_token(web, run_options or ()),
        name=name,
        user=user,
        groups=devicefiles.present_groups(("video", "render")),
        memory_max=memory_max,
        writable=tuple(path.absolute() for path in writable or []),
        devices=devicefiles.device_nodes(),
    )
    if output is not None:
        devicefiles.write_service(options, output, force=force)
    else:
        unit = render_unit(options)
        if secrets_of(options) and not print_only:
            message = "the password of a source or the token of the web page needs a file of its own"
            raise ConfigError(message, hint=f"write the unit to a file: -o {name}.service")
        typer.echo(unit, nl=False)
    if not print_only:
        for line in devicefiles.next_steps(options, output or Path(f"{name}.service")):
            typer.echo(line, err=output is None)


@deploy.command("files")
def files(
    folder: Annotated[Path | None, typer.Argument(help="Target folder; without it the files are listed.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False,
) -> None:
    """Copy the deployment files that ship with the package: scripts for Jetson, Dockerfiles, monitoring.

    edge-resnet deploy files

    edge-resnet deploy files ./deploy
    """
    from edge_resnet.deployment.devicefiles import copy_shipped, shipped_files

    names = list(shipped_files()) if folder is None else copy_shipped(folder, force=force)
    if json_output:
        typer.echo(json.dumps({"folder": None if folder is None else str(folder), "files": names}))
    elif folder is None:
        typer.echo("\n".join(names))
    else:
        typer.echo(f"{len(names)} files copied to {folder}; its README.md describes each of them")


def _absolute(source: str) -> str:
    """The absolute path of an existing file, since the service starts in a folder of its own."""
    return str(Path(source).absolute()) if not source.isdecimal() and os.path.lexists(source) else source
