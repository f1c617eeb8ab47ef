"""Responses to authentication challenges, and how the replies of an RTSP server are understood."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.core.errors import SourceError
from edge_resnet.streaming.sources.connection import answer_challenge
from edge_resnet.streaming.sources.rtsp import explain_refusal
from edge_resnet.streaming.sources.uri import Address, parse_address

_MUFASA = Address("http", "host", None, "/dir/index.html", "Mufasa", "CircleOfLife")
_NOBODY = parse_address("http://host/")


def test_the_digest_of_the_standard() -> None:
    """Without qop: the example of RFC 2069 as corrected by its erratum."""
    challenge = (
        'Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41"'
    )
    answer = answer_challenge([challenge], "GET", "/dir/index.html", _MUFASA)
    assert answer is not None
    assert 'response="1949323746fe6a43ef61f9606e7febea"' in answer
    assert 'opaque="5ccc069c403ebaf9f0171e9517f40e41"' in answer


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
def test_a_digest_with_qop(algorithm: str) -> None:
    """The response counts its nonce and is the hash of RFC 7616, in the requested algorithm."""
    challenge = f'Digest realm="r", qop="auth, auth-int", algorithm={algorithm}, nonce="n"'
    answer = answer_challenge([challenge], "DESCRIBE", "rtsp://h/x", _MUFASA)
    assert answer is not None
    said = dict(re.findall(r'(\w+)="?([^",]+)"?', answer))

    def digest(text: str) -> str:
        return hashlib.new(algorithm.replace("-", "").lower(), text.encode()).hexdigest()

    secret, request = digest("Mufasa:r:CircleOfLife"), digest("DESCRIBE:rtsp://h/x")
    assert said["response"] == digest(f"{secret}:n:{said['nc']}:{said['cnonce']}:auth:{request}")
    assert said["algorithm"] == algorithm
    assert "CircleOfLife" not in answer


def test_digest_goes_before_basic() -> None:
    """The password is not sent if that can be avoided; Basic is used only if nothing else is offered."""
    basic, digest = 'Basic realm="r"', 'Digest realm="r", nonce="n"'
    assert str(answer_challenge([basic, digest], "GET", "/", _MUFASA)).startswith("Digest ")
    assert answer_challenge([basic], "GET", "/", _MUFASA) == "Basic TXVmYXNhOkNpcmNsZU9mTGlmZQ=="
    assert answer_challenge([basic, digest], "GET", "/", _NOBODY) is None
    assert answer_challenge(['Digest realm="r", nonce="n", algorithm=MD5-sess', "Negotiate"], "GET", "/", _MUFASA) is None


@given(st.text(max_size=60))
def test_any_challenge(challenge: str) -> None:
    """Malformed challenges are answered or ignored, and raise no other error."""
    answer = answer_challenge([challenge, f"Digest {challenge}"], "GET", "/", _MUFASA)
    assert answer is None or answer.startswith(("Basic ", "Digest "))


@contextmanager
def _answering(answer: bytes) -> Iterator[Address]:
    """A server that reads a request, sends ``answer`` and nothing more."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)
                connection.recv(4096)

        thread = threading.Thread(target=serve)
        thread.start()
        yield parse_address(f"rtsp://127.0.0.1:{server.getsockname()[1]}/live")
        thread.join(10)


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (b"RTSP/1.0 404 Not Found\r\n\r\n", "has no stream of that path"),
        (b"RTSP/1.0 453 Not Enough Bandwidth\r\nX: y\r\n\r\n", "refuses with 453 Not Enough Bandwidth"),
        (b"RTSP/1.0 401 Unauthorized\r\nWWW-Authenticate: Negotiate\r\n\r\n", "requires a user and a password"),
        (b"RTSP/1.0 200 OK\r\nContent-Length: 15\r\n\r\nm=audio 0 RTP\r\n", "has no video"),
        (b"RTSP/1.0 200 OK\r\nContent-Length: 100\r\n\r\nm=aud", "does not answer within"),
        (b"RTSP/1.0 200 OK\r\n", "does not answer within"),
        (b"", "does not answer within"),
    ],
)
@pytest.mark.alone
def test_refusals(answer: bytes, match: str) -> None:
    """Each status has its message; a reply that does not end times out."""
    with _answering(answer) as address:
        started = time.monotonic()
        with pytest.raises(SourceError, match=match) as caught:
            explain_refusal("cam", address, 554, 0.3)
        assert time.monotonic() - started < 1
    assert caught.value.hint


@pytest.mark.parametrize(
    "answer", [b"RTSP/1.0 200 OK\r\nContent-Length: 13\r\n\r\nm=video 0 RTP", b"HTTP/1.0 400\r\n\r\n", b"\xff\r\n\r\n"]
)
def test_replies_that_are_ignored(answer: bytes) -> None:
    """An available stream, and a reply that is not understood, raise nothing."""
    with _answering(answer) as address:
        explain_refusal("cam", address, 554, 0.5)
