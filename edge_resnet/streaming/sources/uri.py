"""URIs of sources: their options, network addresses, and names without passwords. Opens nothing."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote

from edge_resnet.core.errors import SourceError

__all__ = ["TIMEOUT", "Address", "Range", "Timeouts", "parse_address", "public_uri", "read_options", "take_options"]

_MASK = "***"
#: In the path, for some recorders. The value extends to the next character that must be escaped in it.
_SECRET = re.compile(
    r"(?i)((?<![a-z])(?:pass(?:word|wd|wort|phrase)?|pwd|psw|token|secret|auth|(?:api_?)?key|sig(?:nature)?)=)[^&;?#]+"
)
#: Keys of a query whose values are shown. Cameras have dozens of names for a password, so that all others are masked.
_HARMLESS = frozenset({
    "action", "bitrate", "brightness", "cam", "camera", "cameraid", "camid", "ch", "chan", "channel", "channelid", "chid",
    "chn", "codec", "color", "colour", "compression", "encoding", "flip", "format", "fps", "framerate", "frames", "h",
    "height", "idx", "index", "megapixels", "mirror", "mode", "nbframes", "out_height", "out_width", "profile", "proto",
    "protocol", "quality", "rate", "req_fps", "res", "resolution", "rotate", "rotation", "scale", "seed", "size", "stream",
    "streamid", "streamtype", "subtype", "threads", "timeout", "track", "transport", "transportmode", "type", "unicast",
    "verify", "video", "videocodec", "videokeyframeinterval", "view", "w", "width",
})  # fmt: skip


class Range(NamedTuple):
    """The values that an option may have, bounds included; ``whole``: without a decimal point."""

    default: float
    low: float
    high: float
    whole: bool = True


class Timeouts(NamedTuple):
    """Seconds to wait for the first frame, and for each later one."""

    open_s: float
    read_s: float

    @classmethod
    def of(cls, timeout: float) -> Timeouts:
        """Those of the option ``timeout``: so long for a frame, and twice as long for the first."""
        return cls(2 * timeout, timeout)


#: The option ``timeout`` of every live source, in seconds.
TIMEOUT = Range(5, 0.1, 600, whole=False)


@dataclass(frozen=True)
class Address:
    """The address of a stream. ``target``: path and query as sent to the server. ``port``: None for the scheme's default."""

    scheme: str
    host: str
    port: int | None
    target: str
    user: str = field(repr=False)
    password: str = field(repr=False)

    @property
    def place(self) -> str:
        """Host and port, for messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def bare(self) -> str:
        """The URI without user and password. The query may contain a secret: use ``public_uri`` for messages."""
        return f"{self.scheme}://{self.place}{self.target}"

    @property
    def full(self) -> str:
        """The URI with user and password, their special characters escaped. Never for messages."""
        if not (self.user or self.password):
            return self.bare
        return f"{self.scheme}://{quote(self.user, safe='')}:{quote(self.password, safe='')}@{self.place}{self.target}"


def public_uri(uri: str) -> str:
    """The URI for messages: user and password, the fragment, and every value of the query are replaced by ``***``, but for those
    of keys that are known to be harmless, such as ``channel``.

    A password with an unescaped ``/`` or ``@`` is hidden, too: everything up to the last ``@`` counts as user and password,
    unless the part after ``://`` cannot contain any. Names of files are returned unchanged.
    """
    scheme, mark, rest = uri.partition("://")
    if not mark or scheme.lower() in ("video", "images", "v4l2", "synthetic"):
        return uri
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority or (":" in authority and "@" in rest):
        rest = f"{_MASK}@{rest.rpartition('@')[2]}"
    rest, hash_mark, _ = rest.partition("#")
    before, question, query = rest.partition("?")
    parts = [_masked(part) if index % 2 == 0 else part for index, part in enumerate(re.split("([&;?])", query))]
    return scheme + mark + _public_path(before) + question + "".join(parts) + (hash_mark and hash_mark + _MASK)


def _public_path(path: str) -> str:
    """The host and path with what looks like a password masked; the whole path if that is hidden by percent signs."""
    shown = _SECRET.sub(rf"\g<1>{_MASK}", path)
    if shown == path and _SECRET.search(unquote(path)):
        return f"{path.partition('/')[0]}/{_MASK}"
    return shown


def _masked(part: str) -> str:
    """One ``key=value`` of a query. A part without a value may itself be a secret."""
    key, mark, value = part.partition("=")
    if key.lower() in _HARMLESS or not part:
        return part
    return key + mark + (value and _MASK) if mark else _MASK


def parse_address(uri: str) -> Address:
    """Parse a network URI. Raises SourceError, without the password, if it is malformed."""
    name = public_uri(uri)
    if re.search(r"[\x00-\x20\x7f-\xa0\ud800-\udfff]", uri):
        message = f"{name!r} contains a space, a control character or an invalid byte"
        raise SourceError(message, hint="write %20 for a space, and quote the URI")
    scheme, _, rest = uri.partition("://")
    match = re.fullmatch(r"([^/?#]*)([^#]*)(?:#.*)?", rest)
    authority, target = match.groups() if match else ("", "")
    login, _, place = authority.rpartition("@")
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+(?:%[\w.]+)?)\]|([^\[\]:]+))(?::(\d{1,5}))?", place)
    port = int(found.group(3)) if found and found.group(3) else None
    # In "admin:12/34@camera" the host would be admin and the port a part of the password.
    torn = not login and port is not None and "@" in target and "." not in place and not place.startswith(("[", "localhost:"))
    if found is None or torn or (port is not None and not 1 <= port <= 65535):
        raise SourceError(
            f"{name} has no valid host and port",
            hint=f"as in {scheme}://user:password@192.168.1.9:554/path; escape / as %2F, # as %23",
        )
    user, _, password = login.partition(":")
    target = quote(target if target.startswith("/") else f"/{target}", safe=string.punctuation)
    return Address(scheme.lower(), found.group(1) or found.group(2), port, target, unquote(user), unquote(password))


def take_options(uri: str, known: Mapping[str, Range]) -> tuple[str, dict[str, float]]:
    """Remove the ``known`` options from a network URI's query; returns the URI with the server's own options, and the values of
    ``known``."""
    before, mark, query = uri.partition("?")
    ours: list[str] = []
    theirs: list[str] = []
    for part in query.split("&") if mark else ():
        (ours if part.partition("=")[0] in known else theirs).append(part)
    rest = before + ("?" + "&".join(theirs) if theirs else "")
    return rest, read_options(public_uri(before), "&".join(ours), known)


def read_options(name: str, query: str, known: Mapping[str, Range]) -> dict[str, float]:
    """The values of a query, with defaults for missing ones. Raises SourceError that names an unknown or invalid option."""
    options = {key: limits.default for key, limits in known.items()}
    for key, value in parse_qsl(query, keep_blank_values=True):
        limits = known.get(key)
        pattern = r"[0-9]{1,9}" if limits is None or limits.whole else r"[0-9]{1,9}(\.[0-9]{1,6})?"
        if limits is None or not re.fullmatch(pattern, value, re.ASCII):
            raise SourceError(
                f"{name}: the option {key}={value} is not valid", hint=f"options are {', '.join(known)}; their values are numbers"
            )
        options[key] = float(value)
        if not limits.low <= options[key] <= limits.high:
            example = f"for example ?{key}={limits.default:g}"
            raise SourceError(f"{name}: {key} must lie in {limits.low:g}..{limits.high:g}", hint=example)
    return options
