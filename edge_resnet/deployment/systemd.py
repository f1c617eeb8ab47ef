"""The text of the systemd unit that runs an artifact on a device, and of the file with its secrets. Writes no file.

Knows the quoting rules of systemd (systemd.service(5), systemd.syntax(7)), but not the options of ``edge-resnet run``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from edge_resnet.core.errors import ConfigError

__all__ = [
    "SOURCE_VARIABLE",
    "TOKEN_VARIABLE",
    "ServiceOptions",
    "is_plain",
    "is_secret",
    "render_environment",
    "render_unit",
    "secrets_of",
]

#: The variable from which ``run`` takes its sources if none is given: URIs separated by spaces.
SOURCE_VARIABLE = "EDGE_RESNET_SOURCE"
#: The variable from which ``run --web`` takes its token.
TOKEN_VARIABLE = "EDGE_RESNET_WEB_TOKEN"  # noqa: S105 - a name, no secret
#: The folder of the secrets; only root needs to read it, since systemd itself does.
ENVIRONMENT_FOLDER = Path("/etc/edge-resnet")

_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_MEMORY = re.compile(r"([1-9]\d{0,15})([KMGT%]?)")
_PLAIN = re.compile(r"[A-Za-z0-9@+=:,./_-]+")
_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_LOCAL = frozenset({"camera", "csi", "file", "images", "synthetic", "v4l2", "video"})


@dataclass(frozen=True)
class ServiceOptions:
    """What the service runs, and as whom. Paths are absolute.

    ``sources``: URIs, as for ``run --source``. ``run_options``: more arguments for ``run``. ``secrets``: environment variables
    for the file of secrets, in addition to those of the sources. ``memory_max``: bytes with K, M, G or T, percent of the memory,
    or infinity. ``writable``: folders that it writes to, in addition to the artifact's engines and its own folders under /var/lib
    and /var/cache. ``devices``: device nodes that exist on the device.
    """

    python: Path
    artifact: Path
    sources: tuple[str, ...] = ("camera:0",)
    run_options: tuple[str, ...] = ()
    secrets: tuple[tuple[str, str], ...] = ()
    name: str = "edge-resnet"
    user: str = "edge-resnet"
    groups: tuple[str, ...] = ("video", "render")
    memory_max: str = "75%"
    writable: tuple[Path, ...] = ()
    devices: tuple[Path, ...] = ()

    @property
    def environment_file(self) -> Path:
        """The file from which the unit reads the secrets."""
        return ENVIRONMENT_FOLDER / f"{self.name}.env"


def render_unit(options: ServiceOptions) -> str:
    """The text of the unit. It never contains a source with a password: then all sources are in the file of secrets.

    Raises ConfigError for names, paths and values that systemd would interpret differently.
    """
    _check(options)
    csi = any(uri.startswith("csi:") for uri in options.sources)
    files = [Path(uri) for uri in options.sources if uri.startswith("/")]
    homes = _in_homes((options.python, options.artifact, *options.writable, *files))
    engines = options.artifact / "engines"
    # A private /tmp would hide the socket of nvargus-daemon, through which CSI cameras are opened.
    private = (
        "# /tmp stays shared: CSI cameras are opened through /tmp/argus_socket.\nPrivateTmp=no\nReadWritePaths=/tmp /var/tmp"
        if csi
        else "# Temporary files of other services are not visible.\nPrivateTmp=yes"
    )
    values = {
        "name": options.name,
        "description": f"edge-resnet: {_text(options.artifact.name)} on {len(options.sources)} source(s)",
        "command": _command(options),
        "user": options.user,
        "groups": " ".join(options.groups),
        "environment_file": f"{'' if secrets_of(options) else '-'}{options.environment_file}",
        "memory_max": options.memory_max,
        "memory_high": _nearly(options.memory_max),
        "writable": _lines("ReadWritePaths", [f"-{engines}", *map(str, options.writable)]),
        "protect_home": "read-only" if homes else "yes",
        "home_reason": ", but the service runs from there" if homes else "",
        "private_tmp": private,
        "devices": _lines("DeviceAllow", map(str, options.devices), " rw")
        or "# (No other GPU device existed on the machine that rendered this.)",
    }
    template = (resources.files("edge_resnet.deploy") / "systemd" / "edge-resnet.service.in").read_text(encoding="utf-8")
    return Template(template).substitute(values)


def render_environment(secrets: Mapping[str, str]) -> str:
    """The text of a file for ``EnvironmentFile=``: a line per variable, quoted as systemd.exec(5) and shells both read it."""
    lines = ["# Passwords and tokens: keep this file at mode 600, owned by root. systemd reads it when the service starts."]
    for name, value in secrets.items():
        _refuse_control(value, f"the value of {name}")
        quoted = re.sub(r'([\\"`$])', r"\\\1", value)
        lines.append(f'{name}="{quoted}"')
    return "\n".join(lines) + "\n"


def secrets_of(options: ServiceOptions) -> dict[str, str]:
    """The variables that must not be in the unit; empty if nothing is secret.

    If one source has a password, all sources are moved: ``run`` reads the variable only if no source is given. Raises ConfigError
    for a source that would not survive in the variable.
    """
    found = dict(options.secrets) | {variable: option for option, variable in _secret_options(options).items()}
    if any(map(is_secret, options.sources)):
        for uri in options.sources:
            if uri.split() != [uri]:
                raise ConfigError(
                    f"the source {_hidden(uri)} contains a space and cannot be listed with one that has a password",
                    hint="write the space as %20, or rename the file",
                )
        found[SOURCE_VARIABLE] = " ".join(options.sources)
    return found


def is_secret(uri: str) -> bool:
    """Whether a network URI may contain a password: before the host, in the query or, for some recorders, in the path."""
    scheme = _SCHEME.match(uri)
    return scheme is not None and scheme[1].lower() not in _LOCAL and ("@" in uri or "=" in uri)


def is_plain(path: Path) -> bool:
    """Whether systemd reads the path correctly without quotes."""
    return _PLAIN.fullmatch(str(path)) is not None


def _command(options: ServiceOptions) -> str:
    """-I: no modules from the working folder or the user's packages; -u: output is not buffered."""
    arguments = [str(options.python), "-I", "-u", "-X", "faulthandler", "-m", "edge_resnet", "run", str(options.artifact)]
    # A camera that starts more slowly than the device is waited for, with the engine already loaded.
    arguments += ["--headless", "--keep-trying"]
    if SOURCE_VARIABLE not in secrets_of(options):
        arguments += [argument for uri in options.sources for argument in ("--source", uri)]
    variables = _secret_options(options)
    more = [f"${{{variables[option]}}}" if option in variables else _quote(option) for option in options.run_options]
    return " ".join([*map(_quote, arguments), *more])


def _secret_options(options: ServiceOptions) -> dict[str, str]:
    """The options of ``run`` that are URIs with a password → the variable that systemd replaces by each."""
    secret = list(dict.fromkeys(filter(is_secret, options.run_options)))
    return {option: f"EDGE_RESNET_OPTION_{number}" for number, option in enumerate(secret, 1)}


def _quote(argument: str) -> str:
    """An argument of ExecStart=, quoted so that it holds no specifier, variable or second command."""
    _refuse_control(argument, "an option")
    if _PLAIN.fullmatch(argument):
        return argument
    escaped = argument.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("%", "%%").replace("$", "$$") + '"'


def _lines(key: str, values: Iterable[str], tail: str = "") -> str:
    """A line per path, quoted if necessary."""
    return "\n".join(
        f'{key}="{_text(value)}"{tail}' if not _PLAIN.fullmatch(value) else f"{key}={value}{tail}" for value in values
    )


def _text(value: str) -> str:
    """A value that systemd does not split: only specifiers have a meaning in it."""
    _refuse_control(value, "a name")
    return value.replace("%", "%%")


def _check(options: ServiceOptions) -> None:
    if not _NAME.fullmatch(options.name) or options.name.endswith(".service"):
        raise ConfigError(
            f"{options.name!r} is not a valid service name",
            hint="use lower-case letters, digits, '.', '_' and '-', without .service",
        )
    if not _USER.fullmatch(options.user):
        raise ConfigError(f"{options.user!r} is not a valid user name", hint="use lower-case letters, digits, '_' and '-'")
    if options.user == "root":
        raise ConfigError("the service must not run as root", hint="choose --user NAME, or leave it out for a user of its own")
    if not options.groups or not all(map(_USER.fullmatch, options.groups)):
        raise ConfigError("the groups that may open cameras and the GPU are missing or invalid", hint="usually video and render")
    if any(re.match("--[a-z-]*(token|password|secret)", option) for option in options.run_options):
        raise ConfigError(
            "an option of run contains a secret, but everyone can read the unit",
            hint=f"put it into {options.environment_file}; for --web a token is generated",
        )
    if not options.sources:
        raise ConfigError("the service has no source", hint="name one with --source URI")
    for path in (options.python, options.artifact, *options.writable, *options.devices):
        _check_path(path)
    if "$" in str(options.python):  # systemd accepts it in the path of a program, but not in its arguments
        raise ConfigError(
            f"systemd cannot start {options.python}", hint="create the virtual environment in a folder without $ in its path"
        )
    for path in (options.python, options.artifact, *options.writable):
        if not path.exists():
            raise ConfigError(f"{path} does not exist", hint="create the unit on the device that will run it")


def _check_path(path: Path) -> None:
    _refuse_control(str(path), "a path")
    if not path.is_absolute() or ".." in path.parts:
        raise ConfigError(f"{path} is not absolute", hint="a service starts in its own folder: write the path from /")
    if any(letter in str(path) for letter in "\\\"'"):
        raise ConfigError(f"{path} contains a quote or a backslash", hint="systemd interprets these: rename the folder")


def _refuse_control(value: str, what: str) -> None:
    """A line break would start another setting, and systemd accepts only UTF-8."""
    if not value.isprintable() or (not value.isascii() and _is_stray(value)):
        raise ConfigError(f"{what} contains a line break or another control character: {_hidden(value)!a}", hint="remove it")


def _is_stray(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _hidden(value: str) -> str:
    """The value, unless it may contain a password."""
    return "(with a password)" if is_secret(value) else value


def _in_homes(paths: Iterable[Path]) -> bool:
    steps = [step for path in paths for step in (path, path.resolve())]
    return any(home in step.parents for step in steps for home in _HOMES)


def _nearly(memory: str) -> str:
    """The limit at which the kernel starts to reclaim memory: 90 %, in the next smaller unit to lose little by rounding."""
    if memory == "infinity":
        return memory
    found = _MEMORY.fullmatch(memory)
    if not found or (found[2] == "%" and int(found[1]) > 100):
        raise ConfigError(f"{memory!r} is not an amount of memory", hint="for example --memory-max 3G, 75% or infinity")
    amount, unit = int(found[1]), found[2]
    smaller = {"T": "G", "G": "M", "M": "K"}.get(unit)
    return f"{amount * 1024 * 9 // 10}{smaller}" if smaller else f"{max(amount * 9 // 10, 1)}{unit}"
