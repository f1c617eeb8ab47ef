"""``edge-resnet deploy``. Knows which files are written and what is said; the unit's text is edge_resnet.deployment.systemd's."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_resnet.core.errors import ConfigError
from edge_resnet.deployment.systemd import has_group as _has_group
from edge_resnet.deployment.systemd import next_steps as _next_steps
from edge_resnet.deployment.systemd import page_token as _token

if TYPE_CHECKING:
    from importlib.abc import Traversable


__all__ = ["deploy"]


deploy = typer.Typer(
    no_args_is_help=True, help="What goes to a device: a systemd service, and the files for boards and containers."
)


@deploy.command("systemd")
def systemd(
    artifact: Annotated[Path, typer.Argument(help="Folder that build wrote.")],
    run_options: Annotated[list[str] | None, typer.Argument(help="After --: further options of edge-resnet run.")] = None,
    source: Annotated[
        list[str] | None, typer.Option(help="Camera, stream or file, as run takes it; repeatable (default: camera:0).")
    ] = None,
    user: Annotated[str, typer.Option(help="Whom the service runs as.")] = "edge-resnet",
    name: Annotated[str, typer.Option(help="The service's name, one for each service on a device.")] = "edge-resnet",
    web: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Serve the page and the metrics there.")] = None,
    memory_max: Annotated[str, typer.Option(help="Beyond it the service is ended: 3G, 75% or infinity.")] = "75%",
    writable: Annotated[list[Path] | None, typer.Option(help="A folder that it may write to; repeatable.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File for the unit (default: stdout).")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the files that are there.")] = False,
    print_only: Annotated[bool, typer.Option("--print", help="Print the unit alone, and write nothing.")] = False,
) -> None:
    """Write the systemd unit that runs an artifact with this Python, and say how it is installed.

    edge-resnet deploy systemd artifacts/resnet50-int8 --source /dev/video0 -o edge-resnet.service

    edge-resnet deploy systemd artifacts/resnet50-int8 --source rtsp://user:password@camera/1 --name door -o door.service

    edge-resnet deploy systemd artifacts/resnet50-int8 --web 0.0.0.0:8080 -o edge-resnet.service

    edge-resnet deploy systemd artifacts/resnet50-int8 -o x.service -- --jsonl answers.jsonl --jsonl-append --jsonl-max 64

    Passwords and the web page's token do not go into the unit, which everyone can read, but into a file beside it that only
    you can read, and then root.
    """
    if output is not None and print_only:
        raise ConfigError("--print writes nothing, -o does", hint="leave one of them out")
    from edge_resnet.artifact.folder import open_artifact
    from edge_resnet.deployment.systemd import ServiceOptions, device_nodes, render_environment, render_unit, secrets_of

    options = ServiceOptions(
        python=Path(sys.executable).absolute(),
        artifact=open_artifact(artifact).folder.absolute(),
        sources=tuple(map(_absolute, source or ["camera:0"])),
        run_options=(*(("--web", web) if web else ()), *(run_options or [])),
        secrets=_token(web),
        name=name,
        user=user,
        groups=tuple(group for group in ("video", "render") if _has_group(group)) or ("video",),
        memory_max=memory_max,
        writable=tuple(path.absolute() for path in writable or []),
        devices=device_nodes(),
    )
    unit, hidden = render_unit(options), secrets_of(options)
    if output is None:
        if hidden and not print_only:
            raise ConfigError("a source's password or the page's token needs a file of its own", hint=f"-o {name}.service")
        typer.echo(unit, nl=False)
        unit_file = Path(f"{name}.service")
    else:
        unit_file = output
        beside = [output.with_name(f"{name}.env")] if hidden else []
        _refuse_existing([output, *beside], force=force)
        with _writing(output):
            for path in beside:
                _write_private(path, render_environment(hidden))
            output.write_text(unit, encoding="utf-8")
    if not print_only:
        for line in _next_steps(options, unit_file, secret=bool(hidden)):
            typer.echo(line, err=output is None)


@deploy.command("files")
def files(
    folder: Annotated[Path | None, typer.Argument(help="Where they go; without it they are listed.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.")] = False,
) -> None:
    """Copy what goes to a device out of the package: scripts for a Jetson, Dockerfiles, monitoring.

    edge-resnet deploy files

    edge-resnet deploy files ./deploy
    """
    found = _shipped(resources.files("edge_resnet.deploy"))
    if folder is not None:
        targets = [folder / name for name in found]
        _refuse_existing(targets, force=force)
        with _writing(folder):
            for target, item in zip(targets, found.values(), strict=True):
                target.parent.mkdir(parents=True, exist_ok=True)
                content = item.read_bytes()
                target.write_bytes(content)
                if content.startswith(b"#!"):
                    target.chmod(0o755)
    if json_output:
        typer.echo(json.dumps({"folder": None if folder is None else str(folder), "files": list(found)}))
    elif folder is None:
        typer.echo("\n".join(found))
    else:
        typer.echo(f"{len(found)} files in {folder}; README.md says what each is for")


def _shipped(folder: Traversable, prefix: str = "") -> dict[str, Traversable]:
    """Every file below, by its path, but what Python and its tools leave there."""
    found: dict[str, Traversable] = {}
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        if item.name.startswith((".", "__")):
            continue
        if item.is_dir():
            found |= _shipped(item, f"{prefix}{item.name}/")
        else:
            found[f"{prefix}{item.name}"] = item
    return found


def _absolute(source: str) -> str:
    """A file under its whole name: the service starts in a folder of its own."""
    return str(Path(source).absolute()) if not source.isdecimal() and os.path.lexists(source) else source


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror}", hint="choose another folder, or free some of the disk"
        ) from error


def _refuse_existing(paths: list[Path], *, force: bool) -> None:
    there = [path for path in paths if path.exists()]
    if there and not force:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise ConfigError(f"{there[0]}{more} exists already", hint="--force replaces it, or choose another name")


def _write_private(path: Path, text: str) -> None:
    """A file that nobody but its owner could read at any moment."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
