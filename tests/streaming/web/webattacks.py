"""What a hostile web client does: each attack takes a target and yields the status codes that it was answered, 0 for none.

An attack lasts about ``seconds``; it knows nothing of the server but its address.
"""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

__all__ = ["ATTACKS", "Target", "raw"]

ROUTES = ("/", "/login", "/stream/0.mjpeg", "/api/predictions", "/api/status", "/metrics", "/healthz", "/static/page.js", "/x")


@dataclass(frozen=True)
class Target:
    """Where the server listens, and how hard to try: ``connections`` at a time."""

    host: str
    port: int
    connections: int

    def connect(self, timeout_s: float = 1.0, **options: int) -> socket.socket:
        """A connection. Raises OSError if there is none in time."""
        sock = socket.socket()
        for name, value in options.items():
            sock.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
        sock.settimeout(timeout_s)
        try:
            sock.connect((self.host, self.port))
        except OSError:
            sock.close()
            raise
        return sock

    def request(self, method: str, path: str, headers: str = "", body: str = "") -> bytes:
        """The bytes of a request; ``headers``: further lines, each with its end."""
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        return f"{method} {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n{length}{headers}\r\n{body}".encode("latin-1")


Attack: TypeAlias = Callable[[Target, float], Iterator[int]]


def raw(target: Target, data: bytes, timeout_s: float = 5.0) -> int:
    """Send bytes on a connection of their own; the response's status code, 0 if there is none."""
    try:
        with target.connect(timeout_s) as sock:
            with suppress(ConnectionError):  # it may answer and close before everything is sent
                sock.sendall(data)
            return _status(sock)
    except OSError:
        return 0


def _status(sock: socket.socket) -> int:
    head = b""
    with suppress(OSError):
        while len(head) < 12 and (piece := sock.recv(4096)):
            head += piece
    return int(head[9:12]) if head.startswith(b"HTTP/1.1 ") else 0


def _crowd(target: Target, stack: ExitStack, **options: int) -> list[socket.socket]:
    """As many connections as the target says, some of which it may have closed again."""
    found = []
    for _ in range(target.connections):
        with suppress(OSError):
            found.append(stack.enter_context(target.connect(0.2, **options)))
    return found


def _for(seconds: float) -> Iterator[int]:
    end = time.monotonic() + seconds
    for turn in itertools.count():
        if time.monotonic() >= end:
            return
        yield turn


def idle_connections(target: Target, seconds: float) -> Iterator[int]:
    """Connections that request nothing."""
    with ExitStack() as stack:
        _crowd(target, stack)
        time.sleep(seconds)
    yield 0


def slow_headers(target: Target, seconds: float) -> Iterator[int]:
    """A byte of a header now and then, on every connection."""
    with ExitStack() as stack:
        crowd = _crowd(target, stack)
        for _ in _for(seconds):
            for sock in crowd:
                with suppress(OSError):
                    sock.send(b"X")
            time.sleep(0.1)
    yield 0


def slow_bodies(target: Target, seconds: float) -> Iterator[int]:
    """A form that never comes, on every connection."""
    with ExitStack() as stack:
        crowd = _crowd(target, stack)
        for sock in crowd:
            with suppress(OSError):
                sock.sendall(target.request("POST", "/login", "Content-Length: 4000\r\n"))
        for _ in _for(seconds):
            for sock in crowd:
                with suppress(OSError):
                    sock.send(b"x")
            time.sleep(0.1)
        for sock in crowd:
            sock.settimeout(0.01)
            yield _status(sock)


def slow_reads(target: Target, seconds: float) -> Iterator[int]:
    """Streams and pages that are requested, again and again, and never read."""
    with ExitStack() as stack:
        crowd = _crowd(target, stack, SO_RCVBUF=4096)
        paths = itertools.cycle(("/stream/0.mjpeg", "/api/predictions", "/static/page.js", "/metrics"))
        for sock, path in zip(crowd, paths, strict=False):
            sock.setblocking(False)
            with suppress(OSError):
                sock.send(target.request("GET", path) * 100)
        time.sleep(seconds)
    yield 0


def pipelining(target: Target, seconds: float) -> Iterator[int]:
    """Hundreds of requests at once, whole ones, broken ones and garbage between them."""
    good = target.request("GET", "/healthz")
    for turn in _for(seconds):
        garbage = bytes((turn * 7 + k * 13) % 256 for k in range(300))
        for data in (
            good * 200,
            good + garbage,
            garbage,
            b"\r\n" * 1000 + good,
            b"\x16\x03\x01" + garbage,
            good[:-2] + b"\0\r\n",
        ):
            yield raw(target, data)


def huge_headers(target: Target, seconds: float) -> Iterator[int]:
    """A megabyte in one header, in the path, and in ten thousand headers."""
    for _ in _for(seconds):
        yield raw(target, target.request("GET", "/", f"X-Long: {'x' * (1 << 20)}\r\n"))
        yield raw(target, target.request("GET", "/" + "x" * (1 << 20)))
        yield raw(target, target.request("GET", "/", "".join(f"X-{k}: {k}\r\n" for k in range(10_000))))
        yield raw(target, target.request("GET", "/", f"Cookie: {'a=b; ' * 3000}\r\n"))


def wrong_methods(target: Target, seconds: float) -> Iterator[int]:
    """Methods that no route has, upgrades and odd versions, on every route."""
    methods = ("TRACE", "CONNECT", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "get", "X" * 300)
    for path in ROUTES:
        for method in methods:
            yield raw(target, target.request(method, path, "Connection: close\r\n"))
        yield raw(target, target.request("HEAD", path, "Connection: close\r\n"))
        upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: a\r\nSec-WebSocket-Version: 13\r\n"
        yield raw(target, target.request("GET", path, upgrade))
        yield raw(target, target.request("GET", path).replace(b"HTTP/1.1", b"HTTP/9.9"))


def long_numbers(target: Target, seconds: float) -> Iterator[int]:
    """Numbers of 5,000 digits wherever the server reads one."""
    for digits in ("9" * 5000, "-1", "1e9", "²", "0" * 5000, "%D9%A3"):
        text = digits.encode("utf-8").decode("latin-1")
        yield raw(target, target.request("GET", f"/stream/{digits}.mjpeg".encode().decode("latin-1").replace("Â²", "%C2%B2")))
        yield raw(target, target.request("GET", "/api/predictions?max_per_s=" + digits.replace("²", "%C2%B2")))
        yield raw(target, target.request("GET", "/", f"Content-Length: {text}\r\n"))
        yield raw(target, target.request("GET", "/api/status", f"Cookie: edge_resnet_{target.port}={text}.{text}\r\n"))
        yield raw(target, f"GET / HTTP/1.1\r\nHost: {target.host}:{text}\r\n\r\n".encode("latin-1"))


def broken_origins(target: Target, seconds: float) -> Iterator[int]:
    """Origins and hosts that are no addresses, with a form."""
    broken = (
        "http://[",
        "http://[::1",
        "http://]",
        "null",
        "http://a:b",
        "http://a:99999",
        "//",
        "",
        "\xff",
        "http://" + "a" * 9000,
    )
    for text in broken:
        yield raw(target, target.request("POST", "/login", f"Origin: {text}\r\nConnection: close\r\n", "token=a"))
        yield raw(target, f"GET /healthz HTTP/1.1\r\nHost: {text}\r\n\r\n".encode("latin-1"))


def wrong_tokens(target: Target, seconds: float) -> Iterator[int]:
    """Guesses in headers, forms and cookies, among them ones that no text encoding knows."""
    for turn in _for(seconds):
        guess = ("wrong", "\xff" * 40, "a" * 5000, "", "é%00", "%FF%FE")[turn % 6]
        yield raw(target, target.request("GET", "/api/status", f"Authorization: Bearer {guess}\r\n"))
        yield raw(target, target.request("GET", "/", f'Cookie: edge_resnet_{target.port}={guess}; "=\\;=;\r\n'))
        yield raw(target, target.request("POST", "/login", "", f"token={guess}&token=&=&&%"))


def path_traversal(target: Target, seconds: float) -> Iterator[int]:
    """Paths that lead out of the page's files."""
    climbs = ("..", "%2e%2e", "..%2f", "%2e%2e%2f", "..%5c", "%00", "....//", "%c0%ae%c0%ae")
    for climb in climbs:
        for start in ("/static/", "/", "/stream/", "//", "/static//"):
            for end in ("/etc/passwd", "/page.html", "", "%00page.css", "/0.mjpeg"):
                yield raw(target, target.request("GET", f"{start}{climb}{end}"))


ATTACKS: Mapping[str, Attack] = MappingProxyType(
    {
        attack.__name__: attack
        for attack in (
            idle_connections, slow_headers, slow_bodies, slow_reads, pipelining, huge_headers, wrong_methods, long_numbers,
            broken_origins, wrong_tokens, path_traversal,
        )
    }
)  # fmt: skip
