"""Too many connections: idle ones go first, the longest idle first; health checks are always answered."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from urllib.parse import urlsplit

import pytest
from webstage import TIMEOUT_S, TOKEN, Reader, Script, ask, frame, prediction, served, until

from edge_resnet.core.process import descriptor_limit, raise_descriptor_limit
from edge_resnet.streaming.web import WebSink, limits, sink
from edge_resnet.streaming.web.limits import Limits, limits_for

SMALL = Limits(requests=8, per_address=4, kept=4)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebSink]:
    """A server with four places for one address, and four more for health checks."""
    monkeypatch.setattr(limits, "limits_for", lambda descriptors: SMALL)
    with served() as opened:
        opened.write(prediction(), frame())
        yield opened


def _idle(url: str, count: int) -> list[socket.socket]:
    parts = urlsplit(url)
    return [socket.create_connection((parts.hostname or "", parts.port or 0), timeout=TIMEOUT_S) for _ in range(count)]


def _is_closed(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_the_oldest_idle_connection_makes_room(small: WebSink) -> None:
    """Of twenty idle connections the eight youngest stay, one of which every request replaces."""
    idle = _idle(small.url, 20)
    assert until(lambda: sum(map(_is_closed, idle)) == 12)
    assert [_is_closed(sock) for sock in idle] == [True] * 12 + [False] * 8
    assert ask(small.url, "/api/status").status == 200
    for sock in idle:
        sock.close()


def test_a_viewer_is_not_dropped_for_idle_connections(small: WebSink) -> None:
    """A response that is being read stays, however many connections come."""
    with Reader(small.url, "/api/predictions") as reader:
        reader.data()
        for _ in range(5):
            for sock in _idle(small.url, 20):
                sock.close()
        small.write(prediction(1, best=2), frame(1))
        assert reader.data()["frame"] == 1


def test_health_checks_have_places_of_their_own(small: WebSink) -> None:
    """With every place taken by a viewer, health checks and metrics are answered, and everything else is 503."""
    with ExitStack() as stack:
        for _ in range(SMALL.per_address):
            assert stack.enter_context(Reader(small.url, "/api/predictions")).status == 200
        for path in sorted(limits.KEPT) * 3:
            assert ask(small.url, path).status == 200
        refused = ask(small.url, "/api/status")
        assert refused.status == 503
        assert refused.headers["retry-after"]
        assert refused.headers["x-content-type-options"] == "nosniff"
    assert until(lambda: ask(small.url, "/api/status").status == 200)


def test_a_client_that_does_not_read_makes_room(small: WebSink) -> None:
    """Requests whose responses are never read take no place that a health check needs."""
    parts = urlsplit(small.url)
    stuck = []
    for sock in _idle(small.url, 6):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        with suppress(BlockingIOError, ConnectionError):
            for _ in range(50):
                sock.send(f"GET /static/page.js HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode() * 100)
        stuck.append(sock)
    assert [ask(small.url, "/healthz").status for _ in range(4)] == [200] * 4
    for sock in stuck:
        sock.close()


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\nHost: local", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /"]
)
def test_a_header_has_a_few_seconds(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    """However slowly its bytes drip; also that of a second request on the same connection."""
    monkeypatch.setattr(limits, "HEADER_S", 0.3)
    with served() as opened:
        (sock,) = _idle(opened.url, 1)
        sock.sendall(sent)
        end = time.monotonic() + TIMEOUT_S
        with suppress(OSError):
            while time.monotonic() < end:
                sock.send(b"x" if sent else b"")
                sock.settimeout(0.05)
                with suppress(TimeoutError):
                    if sock.recv(65536) == b"":
                        break
        assert time.monotonic() < end
        sock.close()


def test_most_descriptors_are_kept_for_cameras_and_files() -> None:
    """Connections, those that wait to be accepted among them, take at most half of what the process may open."""
    for descriptors in (256, 1024, 4096, 1 << 20):
        found = limits_for(descriptors)
        assert found.requests + 3 * found.kept + 4 * found.accepted_at_once <= descriptors // 2
        assert found.per_address < found.requests
    assert limits_for(1024) == limits_for(4096) == Limits(128, 64, 16)
    assert limits_for(64).requests >= 8


def test_the_limit_follows_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server asks for the limit when it starts."""
    asked: list[int] = []
    monkeypatch.setattr(sink, "descriptor_limit", lambda: asked.append(1) or 256)
    with WebSink("127.0.0.1:0", Script(), token=TOKEN):
        assert asked == [1]


def test_the_limit_of_descriptors_is_raised_and_never_lowered() -> None:
    """To 4,096 or the hard limit, whichever is lower; a higher one stays."""
    code = (
        "import resource, sys\n"
        "from edge_resnet.core.process import raise_descriptor_limit\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))\n"
        "print(raise_descriptor_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 8192:
        pytest.skip("the hard limit of open files is too low to try")
    for soft, limit, raised in ((256, 512, 512), (1024, 8192, 4096), (8000, 8192, 8000)):
        result = subprocess.run([sys.executable, "-c", code, str(soft), str(limit)], capture_output=True, text=True, check=True)
        assert result.stdout.split() == [str(raised), str(raised), str(limit)]
    assert raise_descriptor_limit() == descriptor_limit()
