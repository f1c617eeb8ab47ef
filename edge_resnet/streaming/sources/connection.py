"""TCP connections, and HTTP and RTSP authentication, with clear errors. Does not know about image formats."""

from __future__ import annotations

import base64
import hashlib
import secrets
import socket
from collections.abc import Sequence
from urllib.request import parse_http_list, parse_keqv_list

from edge_resnet.core.errors import SourceError
from edge_resnet.streaming.sources.uri import Address

__all__ = ["answer_challenge", "connect", "refused_login"]

_HASHES = {"MD5": "md5", "SHA-256": "sha256"}


def connect(address: Address, port: int, timeout_s: float) -> socket.socket:
    """A connection to the host. Raises SourceError with the reason if that fails."""
    place = f"{address.host}, port {address.port or port}"
    try:
        return socket.create_connection((address.host, address.port or port), timeout_s)
    except (socket.gaierror, UnicodeError) as error:
        raise SourceError(
            f"the host {address.host} cannot be resolved", hint="check the spelling and the network, or use its IP address"
        ) from error
    except TimeoutError as error:
        raise SourceError(
            f"no answer from {place} within {timeout_s:g} s", hint=f"check that the camera is on: ping {address.host}"
        ) from error
    except ConnectionRefusedError as error:
        raise SourceError(
            f"nothing listens at {place}", hint="check that the camera's server is running, and its port"
        ) from error
    except OSError as error:
        raise SourceError(f"{place} cannot be reached: {error.strerror}", hint=f"ip route get {address.host}") from error


def answer_challenge(challenges: Sequence[str], method: str, target: str, address: Address) -> str | None:
    """The Authorization header for a server's WWW-Authenticate headers (RFC 7617 Basic, RFC 7616 Digest), Digest first.

    ``target``: that of the request line. None if the address has no password or no challenge is supported.
    """
    if not (address.user or address.password):
        return None
    for challenge in sorted(challenges, key=lambda text: not text.lower().startswith("digest")):
        scheme, _, rest = challenge.strip().partition(" ")
        if scheme.lower() == "basic":
            return "Basic " + base64.b64encode(f"{address.user}:{address.password}".encode()).decode("ascii")
        answer = _digest(rest, method, target, address) if scheme.lower() == "digest" else None
        if answer is not None:
            return answer
    return None


def refused_login(name: str, address: Address) -> SourceError:
    """The error for a server that requires a password, or another one."""
    if address.user or address.password:
        return SourceError(
            f"{name} does not accept this user and password", hint="check both; special characters are escaped, such as @ as %40"
        )
    scheme = address.scheme
    return SourceError(f"{name} requires a user and a password", hint=f"as in {scheme}://user:password@{address.place}/…")


def _digest(rest: str, method: str, target: str, address: Address) -> str | None:
    try:
        fields = parse_keqv_list(parse_http_list(rest))
        realm, nonce = fields["realm"], fields["nonce"]
    except (ValueError, KeyError, IndexError):
        return None
    algorithm = fields.get("algorithm", "MD5").upper()
    if algorithm not in _HASHES:
        return None

    def digest(text: str) -> str:
        return hashlib.new(_HASHES[algorithm], text.encode(), usedforsecurity=False).hexdigest()

    secret, request = digest(f"{address.user}:{realm}:{address.password}"), digest(f"{method}:{target}")
    parameters = {"username": address.user, "realm": realm, "nonce": nonce, "uri": target}
    plain = {"algorithm": algorithm} if "algorithm" in fields else {}
    if "auth" in [option.strip() for option in fields.get("qop", "").split(",")]:
        once = secrets.token_hex(8)
        parameters |= {"cnonce": once, "response": digest(f"{secret}:{nonce}:00000001:{once}:auth:{request}")}
        plain |= {"qop": "auth", "nc": "00000001"}
    else:
        parameters["response"] = digest(f"{secret}:{nonce}:{request}")
    if "opaque" in fields:
        parameters["opaque"] = fields["opaque"]
    escaped = {key: value.replace("\\", "\\\\").replace('"', '\\"') for key, value in parameters.items()}
    return "Digest " + ", ".join(
        [*(f'{key}="{value}"' for key, value in escaped.items()), *(f"{k}={v}" for k, v in plain.items())]
    )
