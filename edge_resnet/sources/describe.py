"""Asks an RTSP server what it has where OpenCV opens nothing and cannot say why. Plays no stream."""

from __future__ import annotations

import re
import socket
import time
from typing import NamedTuple

from edge_resnet.core.errors import SourceError
from edge_resnet.sources.network import answer_challenge, connect, refused_login
from edge_resnet.sources.uri import Address

__all__ = ["explain_refusal"]

#: Headers and description; those of cameras have one or two kB.
_MOST_BYTES = 65536


class _Reply(NamedTuple):
    status: int
    reason: str
    challenges: list[str]
    body: str


def explain_refusal(name: str, address: Address, port: int, timeout_s: float) -> None:
    """Raise SourceError where the server cannot be reached, wants another password, or has no video at this address.

    One DESCRIBE (RFC 2326), which begins no session. Not asked before opening: a server that has just been asked may refuse the
    next connection (503 of GStreamer's). An answer that is not understood is let pass. For rtsps only the connection is tried.
    """
    deadline = time.monotonic() + timeout_s
    with connect(address, port, timeout_s) as connection:
        if address.scheme == "rtsps":
            return
        try:
            reply = _describe(connection, address, deadline, None)
            if reply is not None and reply.status == 401:
                answer = answer_challenge(reply.challenges, "DESCRIBE", address.bare, address)
                reply = _describe(connection, address, deadline, answer) if answer else reply
        except TimeoutError as error:
            hint = "restart the camera's server; is it an RTSP port?"
            raise SourceError(f"{name} accepts the connection and does not answer within {timeout_s:g} s", hint=hint) from error
        except OSError:
            return
    if reply is not None:
        _judge(name, address, reply)


def _describe(connection: socket.socket, address: Address, deadline: float, answer: str | None) -> _Reply | None:
    lines = [
        f"DESCRIBE {address.bare} RTSP/1.0",
        f"CSeq: {2 if answer else 1}",
        "Accept: application/sdp",
        "User-Agent: edge-resnet",
    ]
    if answer:
        lines.append(f"Authorization: {answer}")
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    head, rest = b"", b""
    data = b""
    while len(data) < _MOST_BYTES:
        head, end, rest = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?im)^content-length:[ \t]*(\d{1,6})", head)
        if end and len(rest) >= (int(length.group(1)) if length else 0):
            break
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        connection.settimeout(remaining)
        more = connection.recv(4096)
        if not more:
            break
        data += more
    return _parse(head.decode("utf-8", "replace"), rest.decode("utf-8", "replace"))


def _parse(head: str, body: str) -> _Reply | None:
    status = re.match(r"RTSP/\d\.\d (\d{3}) ?([^\r\n]{0,80})", head)
    if status is None:
        return None
    challenges = re.findall(r"(?im)^www-authenticate:[ \t]*([^\r\n]+)", head)
    return _Reply(int(status.group(1)), status.group(2).strip(), challenges, body)


def _judge(name: str, address: Address, reply: _Reply) -> None:
    if reply.status == 401:
        raise refused_login(name, address)
    if reply.status == 404:
        raise SourceError(f"{name}: the server has no stream of that path", hint="the camera's manual names its RTSP paths")
    if reply.status >= 400:
        raise SourceError(
            f"{name}: the server refuses, {reply.status} {reply.reason}", hint="the camera's own page or log may say why"
        )
    if reply.status == 200 and "m=" in reply.body and "m=video" not in reply.body:
        raise SourceError(
            f"{name} has no video in it", hint="choose the path of a video stream; this one carries sound or data only"
        )
