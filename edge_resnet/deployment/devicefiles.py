"""The files that go to a device: a service's unit and its secrets, what ships with the package, and how a unit is installed.

Does not know what a unit says (systemd.py does). Installs and starts nothing.
"""

from __future__ import annotations

import getpass
import grp
import pwd
import secrets
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.files import replace_files
from edge_resnet.deployment.systemd import (
    TOKEN_VARIABLE,
    ServiceOptions,
    is_plain,
    render_environment,
    render_unit,
    secrets_of,
)

if TYPE_CHECKING:
    from importlib.abc import Traversable  # where Python 3.10 has it

__all__ = [
    "closed_folders",
    "copy_shipped",
    "device_nodes",
    "next_steps",
    "page_token",
    "present_groups",
    "shipped_files",
    "write_service",
]

_UNITS = Path("/etc/systemd/system")
#: Device nodes of GPUs and video engines, besides those that the unit's template names.
_NODES = ("nvmap", "nvhost*", "nvgpu/*/*", "nvsciipc", "host1x*", "nvidia*", "nvidia-caps/*", "dri/*", "v4l2-nv*")


def write_service(options: ServiceOptions, unit_file: Path, *, force: bool) -> None:
    """Write the unit and, if the service has secrets, a file beside it that only its owner can read.

    Raises ConfigError if the options make no sense, if a file exists and is not to be replaced, or if it cannot be written.
    """
    unit, hidden = render_unit(options), secrets_of(options)
    secret_file = _secret_file(options, unit_file)
    _refuse_existing([unit_file, *([secret_file] if hidden else [])], force=force)
    with _writing(unit_file):
        if not unit_file.parent.is_dir():
            raise FileNotFoundError(2, "No such file or directory")
        if hidden:
            replace_files({secret_file: _writer(render_environment(hidden).encode())}, private=True, force=force)
        replace_files({unit_file: _writer(unit.encode())}, force=force)


def next_steps(options: ServiceOptions, unit_file: Path) -> list[str]:
    """The shell commands that install and start the unit on this device, and comments on what would prevent it."""
    name, user = options.name, options.user
    engines = shlex.quote(str(options.artifact / "engines"))
    lines, steps = ["# next, on this device:"], []
    if not _exists(pwd.getpwnam, user):
        steps.append(f"sudo useradd --system --home-dir /var/lib/{name} --shell /usr/sbin/nologin {user}")
    steps.append(f"sudo mkdir -p {engines} && sudo chown -R {user} {engines}")
    if secrets_of(options):
        private = shlex.quote(str(_secret_file(options, unit_file)))
        if any(variable == TOKEN_VARIABLE for variable, _ in options.secrets):
            lines.append(f"# the web page's token is {TOKEN_VARIABLE} in {private}: note it before only root can read the file")
        steps.append(f"sudo install -D -o root -g root -m 600 {private} {options.environment_file} && rm {private}")
    steps += [
        f"sudo cp {shlex.quote(str(unit_file))} {_UNITS / f'{name}.service'}",
        "sudo systemctl daemon-reload",
        f"sudo systemctl enable --now {name}",
        f"systemctl status {name}",
        f"journalctl -u {name} -f",
    ]
    return [*lines, *steps, *_obstacles(options)]


def _obstacles(options: ServiceOptions) -> list[str]:
    if options.user == getpass.getuser():
        return []
    closed = closed_folders((options.python, options.artifact, *options.writable))
    lines = [f"# {folder} is closed to {options.user}: the service would not start (203/EXEC or 200/CHDIR)" for folder in closed]
    if closed:
        lines.append(f"# install into /opt/edge-resnet instead, or run the service as yourself: --user {getpass.getuser()}")
    return lines


def closed_folders(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The parent folders of these paths that other users may not enter, so that a service of another user fails.

    Links are followed: the interpreter of a virtual environment is one.
    """
    closed = set()
    for path in paths:
        for step in (path, path.resolve()):
            closed |= {folder for folder in step.parents if folder.exists() and not folder.stat().st_mode & 0o001}
    return tuple(sorted(closed))


def page_token(web: str | None, run_options: Sequence[str] = ()) -> tuple[tuple[str, str], ...]:
    """A new token, with its variable, if the web page at ``web`` (HOST:PORT) can be reached from other machines: by its address,
    or through the proxy that ``--web-origin`` in ``run_options`` names.

    Raises ConfigError if ``web`` is no address or a port that only root may open.
    """
    if web is None:
        return ()
    from edge_resnet.streaming.web.listen import resolve

    address = resolve(web)
    if address.port < 1024:
        message = f"the service may not open port {address.port}, since it does not run as root"
        raise ConfigError(message, hint="choose a port from 1024 on")
    proxied = any(option.partition("=")[0] == "--web-origin" for option in run_options)
    if address.loopback and not proxied:
        return ()
    return ((TOKEN_VARIABLE, secrets.token_urlsafe(24)),)


def present_groups(names: Sequence[str]) -> tuple[str, ...]:
    """Those of the groups that exist on this machine; the first where none does."""
    return tuple(name for name in names if _exists(grp.getgrnam, name)) or tuple(names[:1])


def device_nodes(folder: Path = Path("/dev")) -> tuple[Path, ...]:
    """The character devices of GPUs and video engines on this machine, sorted."""
    found = {node for pattern in _NODES for node in folder.glob(pattern) if node.is_char_device()}
    return tuple(sorted(filter(is_plain, found)))


def shipped_files() -> dict[str, Traversable]:
    """The files for boards, containers and monitoring that ship with the package, by relative path."""
    return dict(_below(resources.files("edge_resnet.deploy")))


def copy_shipped(folder: Path, *, force: bool) -> list[str]:
    """Copy the shipped files to ``folder`` and return their relative paths; scripts become executable.

    Raises ConfigError if a file exists and is not to be replaced, or cannot be written.
    """
    contents = {name: item.read_bytes() for name, item in shipped_files().items()}
    targets: Mapping[str, Path] = {name: folder / name for name in contents}
    _refuse_existing(list(targets.values()), force=force)
    with _writing(folder):
        replace_files({targets[name]: _writer(content) for name, content in contents.items()}, force=force)
        for name, content in contents.items():
            if content.startswith(b"#!"):
                targets[name].chmod(0o755)
    return list(contents)


def _below(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        if item.name.startswith((".", "__")):  # caches of Python and its tools
            continue
        if item.is_dir():
            yield from _below(item, f"{prefix}{item.name}/")
        else:
            yield f"{prefix}{item.name}", item


def _secret_file(options: ServiceOptions, unit_file: Path) -> Path:
    return unit_file.with_name(f"{options.name}.env")


def _writer(content: bytes) -> Callable[[Path], object]:
    return partial(Path.write_bytes, data=content)


def _exists(look_up: Callable[[str], object], name: str) -> bool:
    try:
        look_up(name)
    except KeyError:
        return False
    return True


def _refuse_existing(paths: Sequence[Path], *, force: bool) -> None:
    existing = [path for path in paths if path.exists()]
    if existing and not force:
        message = (
            f"{existing[0]} exists already" if len(existing) == 1 else f"{existing[0]} and {len(existing) - 1} more exist already"
        )
        raise ConfigError(message, hint="replace it with --force, or choose another name")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "choose another folder, or free some disk space"
        raise ConfigError(f"cannot write {path}: {error.strerror}", hint=hint) from error
