"""Writes the systemd unit that runs an artifact on a device, and the file of its secrets. Starts and installs nothing.

Knows systemd's rules of quoting (systemd.service(5), systemd.syntax(7)), not the options of ``edge-resnet run``.
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

#: The variable that ``run`` takes its sources from where none is given: URIs with blanks between them.
SOURCE_VARIABLE = "EDGE_RESNET_SOURCE"
#: The variable that ``run --web`` takes its token from.
TOKEN_VARIABLE = "EDGE_RESNET_WEB_TOKEN"  # noqa: S105 - a name, no secret
#: Where the secrets go; of root alone, since systemd itself reads them.
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
    """What the service runs. Paths are absolute.

    ``sources``: URIs as ``run --source`` takes them. ``run_options``: further words for ``run``. ``secrets``: environment
    variables that go to the file of secrets, besides the sources'. ``memory_max``: bytes with K, M, G or T, percent of the
    device's memory, or infinity. ``writable``: folders that it writes to, besides the artifact's engines and its own under
    /var/lib and /var/cache. ``devices``: nodes that were found on the device.
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
        """Where the unit looks for the secrets."""
        return ENVIRONMENT_FOLDER / f"{self.name}.env"


def render_unit(options: ServiceOptions) -> str:
    """The unit's text. A source with a password is not in it: then all sources are read from the file of secrets.

    Raises ConfigError where a name, a path or a value is one that systemd would read as something else.
    """
    _check(options)
    csi = any(uri.startswith("csi:") for uri in options.sources)
    files = [Path(uri) for uri in options.sources if uri.startswith("/")]
    homes = _in_homes((options.python, options.artifact, *options.writable, *files))
    engines = options.artifact / "engines"
    # A private /tmp hides the socket of nvargus-daemon, through which CSI cameras are opened.
    private = (
        "# /tmp stays shared: CSI cameras are opened through /tmp/argus_socket.\nPrivateTmp=no\nReadWritePaths=/tmp /var/tmp"
        if csi
        else "# Nobody else's temporary files.\nPrivateTmp=yes"
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
        "home_reason": ", but what it runs lies there" if homes else "",
        "private_tmp": private,
        "devices": _lines("DeviceAllow", map(str, options.devices), " rw")
        or "# (No further device of a GPU was found where this was rendered.)",
    }
    template = (resources.files("edge_resnet.deploy") / "systemd" / "edge-resnet.service.in").read_text(encoding="utf-8")
    return Template(template).substitute(values)


def render_environment(secrets: Mapping[str, str]) -> str:
    """A file for ``EnvironmentFile=``: a line per variable, quoted as systemd.exec(5) and a shell both read it."""
    lines = ["# Passwords and tokens: keep it at mode 600, root's. systemd reads it when the service starts."]
    for name, value in secrets.items():
        _refuse_control(value, f"the value of {name}")
        quoted = re.sub(r'([\\"`$])', r"\\\1", value)
        lines.append(f'{name}="{quoted}"')
    return "\n".join(lines) + "\n"


def secrets_of(options: ServiceOptions) -> dict[str, str]:
    """The variables that must not be in the unit; empty where nothing is secret.

    One source with a password takes all of them along: ``run`` looks at the variable only where no source is given.
    Raises ConfigError where a source would not come out of the variable as it went in.
    """
    found = dict(options.secrets) | {variable: word for word, variable in _secret_words(options).items()}
    if any(map(is_secret, options.sources)):
        for uri in options.sources:
            if uri.split() != [uri]:
                raise ConfigError(
                    f"the source {_hidden(uri)} has a blank in it, and goes into a list of sources beside one with a password",
                    hint="write the blank as %20, or rename the file",
                )
        found[SOURCE_VARIABLE] = " ".join(options.sources)
    return found


def is_secret(uri: str) -> bool:
    """Whether a URI on the network may hold a password: before the host, in a query, or in the path as some recorders want it."""
    scheme = _SCHEME.match(uri)
    return scheme is not None and scheme[1].lower() not in _LOCAL and ("@" in uri or "=" in uri)


def is_plain(path: Path) -> bool:
    """Whether systemd takes the path as it is, without quotes."""
    return _PLAIN.fullmatch(str(path)) is not None


def _command(options: ServiceOptions) -> str:
    """-I: neither the working folder nor the user's own packages are looked at for modules; -u: lines come when they are said."""
    words = [str(options.python), "-I", "-u", "-X", "faulthandler", "-m", "edge_resnet", "run", str(options.artifact)]
    # A camera that starts more slowly than the device is waited for, with the engine at hand.
    words += ["--headless", "--keep-trying"]
    if SOURCE_VARIABLE not in secrets_of(options):
        words += [word for uri in options.sources for word in ("--source", uri)]
    variables = _secret_words(options)
    further = [f"${{{variables[word]}}}" if word in variables else _quote(word) for word in options.run_options]
    return " ".join([*map(_quote, words), *further])


def _secret_words(options: ServiceOptions) -> dict[str, str]:
    """The options of ``run`` that are URIs with a password, and the variable in whose place systemd puts each."""
    secret = list(dict.fromkeys(filter(is_secret, options.run_options)))
    return {word: f"EDGE_RESNET_OPTION_{number}" for number, word in enumerate(secret, 1)}


def _quote(word: str) -> str:
    """A word of ExecStart=: no specifier, no variable, no second command."""
    _refuse_control(word, "an option")
    if _PLAIN.fullmatch(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("%", "%%").replace("$", "$$") + '"'


def _lines(key: str, values: Iterable[str], tail: str = "") -> str:
    """A line per path: in quotes, since it may hold blanks."""
    return "\n".join(
        f'{key}="{_text(value)}"{tail}' if not _PLAIN.fullmatch(value) else f"{key}={value}{tail}" for value in values
    )


def _text(value: str) -> str:
    """A value that is not cut into words: only specifiers have a meaning in it."""
    _refuse_control(value, "a name")
    return value.replace("%", "%%")


def _check(options: ServiceOptions) -> None:
    if not _NAME.fullmatch(options.name) or options.name.endswith(".service"):
        raise ConfigError(f"{options.name!r} is no name for a service", hint="small letters, digits, . _ and -; no .service")
    if not _USER.fullmatch(options.user):
        raise ConfigError(f"{options.user!r} is no name of a user", hint="small letters, digits, _ and -")
    if options.user == "root":
        raise ConfigError("the service does not run as root", hint="--user NAME, or leave it out for a user of its own")
    if not options.groups or not all(map(_USER.fullmatch, options.groups)):
        raise ConfigError("the service needs the groups that may open cameras and the GPU", hint="video and render, as a rule")
    if any(re.match("--[a-z-]*(token|password|secret)", word) for word in options.run_options):
        raise ConfigError(
            "an option of run holds a secret, and everyone can read the unit",
            hint=f"put it into {options.environment_file}; --web makes a token by itself",
        )
    if not options.sources:
        raise ConfigError("the service needs something to look at", hint="--source URI")
    for path in (options.python, options.artifact, *options.writable, *options.devices):
        _check_path(path)
    if "$" in str(options.python):  # systemd takes it as it is in a program's path, but not in its words
        raise ConfigError(f"systemd cannot start {options.python}", hint="make the virtual environment in a folder without $")
    for path in (options.python, options.artifact, *options.writable):
        if not path.exists():
            raise ConfigError(f"there is no {path}", hint="render the unit on the device that will run it")


def _check_path(path: Path) -> None:
    _refuse_control(str(path), "a path")
    if not path.is_absolute() or ".." in path.parts:
        raise ConfigError(f"{path} is not absolute", hint="a service starts in a folder of its own; give the path from /")
    if any(letter in str(path) for letter in "\\\"'"):
        raise ConfigError(f"{path} has a quote or a backslash in it", hint="systemd reads those; rename the folder")


def _refuse_control(value: str, what: str) -> None:
    """A line end would begin another setting, and systemd takes UTF-8 alone."""
    if not value.isprintable() or (not value.isascii() and _is_stray(value)):
        raise ConfigError(f"{what} has a line end or another control character in it: {_hidden(value)!a}", hint="leave it out")


def _is_stray(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _hidden(value: str) -> str:
    """What may be shown of a value that may hold a password."""
    return "(with a password)" if is_secret(value) else value


def _in_homes(paths: Iterable[Path]) -> bool:
    steps = [step for path in paths for step in (path, path.resolve())]
    return any(home in step.parents for step in steps for home in _HOMES)


def _nearly(memory: str) -> str:
    """Nine tenths of it, in the next smaller unit so that little is lost: where the kernel begins to take memory back."""
    if memory == "infinity":
        return memory
    found = _MEMORY.fullmatch(memory)
    if not found or (found[2] == "%" and int(found[1]) > 100):
        raise ConfigError(f"{memory!r} is no amount of memory", hint="--memory-max 3G, 75% or infinity")
    amount, unit = int(found[1]), found[2]
    smaller = {"T": "G", "G": "M", "M": "K"}.get(unit)
    return f"{amount * 1024 * 9 // 10}{smaller}" if smaller else f"{max(amount * 9 // 10, 1)}{unit}"
