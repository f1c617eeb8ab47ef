"""The origin of a web page: scheme, host and port, as browsers send it. Knows no requests and loads no server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import urlsplit

from edge_resnet.core.errors import ConfigError

__all__ = ["Origin", "parse_origin", "web_origin"]

_PORTS: Mapping[str, int] = MappingProxyType({"http": 80, "https": 443})


@dataclass(frozen=True)
class Origin:
    """``scheme`` http or https, ``host`` in small letters, ``port`` 1 to 65535, also where the text leaves out the usual one."""

    scheme: str
    host: str
    port: int

    @property
    def secure(self) -> bool:
        """Whether browsers reach it over TLS."""
        return self.scheme == "https"


def parse_origin(text: str) -> Origin | None:
    """The origin that a text such as ``https://cam.example:8443`` names; None if it names none, or more than an origin."""
    if not (text.isascii() and text.isprintable()):
        return None
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:  # brackets without an IPv6 address, a port that is no number
        return None
    scheme = parts.scheme.lower()
    more = parts.path or parts.query or parts.fragment or "@" in parts.netloc or text[-1:] in ":?#"
    if scheme not in _PORTS or not host or more or port == 0 or not set(host).isdisjoint(" *"):
        return None
    return Origin(scheme, host, _PORTS[scheme] if port is None else port)


def web_origin(text: str) -> Origin:
    """The origin under which browsers see the page behind a proxy. Raises ConfigError if the text names no origin."""
    origin = parse_origin(text.removesuffix("/"))
    if origin is None:
        raise ConfigError(
            f"--web-origin takes scheme and host, not {text!r}",
            hint="as the browser shows it, without a path: --web-origin https://cam.example",
        )
    return origin
