"""A scripted run for the web sink, and a plain HTTP client: shared by the web tests."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

import numpy as np

from edge_resnet.core.statistics import LatencyStats
from edge_resnet.runtime.postprocess import ClassScore
from edge_resnet.streaming.records import Answer, Frame, Prediction, RunStatus, SinkStatus, SourceState, SourceStatus
from edge_resnet.streaming.web import WebSink

LABELS = ("coffee mug", "espresso", "teapot", "soup bowl", "cup")
TOKEN = "a-token-for-the-tests"
#: Nothing on loopback takes longer, not even on a busy machine.
TIMEOUT_S = 10.0


def source(name: str = "camera:0", state: SourceState = "live") -> SourceStatus:
    return SourceStatus(name, state, 120, 100, 18, 2, 1, 29.5, 0.03, False, False, "")


@dataclass
class Script:
    """The content of the status; a test changes it while the server runs."""

    status: RunStatus = field(
        default_factory=lambda: RunStatus(
            artifact="resnet50-int8",
            backend="onnxruntime",
            precision="int8",
            uptime_s=61.5,
            ready=True,
            predictions=100,
            frames_per_s=29.5,
            latency=LatencyStats(100, 7.0, 7.0, 8.0, 9.0, 9.5, 10.0),
            age=LatencyStats(100, 40.0, 39.0, 45.0, 50.0, 55.0, 60.0),
            stages_ms={"inference": 6.0},
            sources=(source(),),
            sinks=(SinkStatus("jsonl", 98, 2, "the disk is full"), SinkStatus("web", 100, 0, "")),
        )
    )
    asked: int = 0

    def __call__(self) -> RunStatus:
        """The status."""
        self.asked += 1
        return self.status

    def change(self, **fields: object) -> None:
        """Change the status from now on."""
        self.status = replace(self.status, **fields)  # type: ignore[arg-type]


def frame(index: int = 0, name: str = "camera:0", size: tuple[int, int] = (48, 64), grey: int = 90) -> Frame:
    return Frame(np.full((*size, 3), grey, np.uint8), index, time.monotonic_ns(), name)


def prediction(index: int = 0, best: int = 0, name: str = "camera:0", answer: Answer | None = None) -> Prediction:
    order = [best, *(k for k in range(len(LABELS)) if k != best)]
    top = tuple(ClassScore(k, LABELS[k], p) for k, p in zip(order, (0.6, 0.2, 0.1, 0.06, 0.04), strict=True))
    stages = {"preprocess": 0.5, "inference": 6.0, "postprocess": 0.1}
    return Prediction(name, index, time.monotonic_ns(), 40.0, top, stages, time.time_ns(), answer)


@contextmanager
def served(script: Script | None = None, *, token: str | None = None) -> Iterator[WebSink]:
    with WebSink("127.0.0.1:0", script or Script(), token=token) as sink:
        yield sink


@dataclass(frozen=True)
class Reply:
    """A complete response."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        """The body."""
        return self.body.decode()

    def json(self) -> dict[str, object]:
        """The body's JSON."""
        return json.loads(self.body)  # type: ignore[no-any-return]


def ask(
    url: str, path: str = "/", *, method: str = "GET", headers: dict[str, str] | None = None, body: str | None = None
) -> Reply:
    """One request on a connection of its own."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return Reply(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


class Reader:
    """An endless response, read as it arrives."""

    def __init__(self, url: str, path: str, headers: dict[str, str] | None = None) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
        self._connection.request("GET", path, headers=headers or {})
        self.answer = self._connection.getresponse()
        self.status = self.answer.status
        self._end = time.monotonic() + TIMEOUT_S

    def line(self) -> str:
        """The next line of the body."""
        assert time.monotonic() < self._end, "heartbeats alone"
        return self.answer.readline().decode().rstrip("\r\n")

    def joined(self) -> Reader:
        """Wait until the server sends new predictions to this client."""
        assert self.line().startswith("retry:")
        return self

    def event(self) -> dict[str, str]:
        """The fields of the next event; comments are skipped."""
        fields: dict[str, str] = {}
        while True:
            text = self.line()
            if not text and "data" in fields:
                return fields
            if text and not text.startswith(":"):
                name, _, value = text.partition(": ")
                fields[name] = value

    def data(self) -> dict[str, object]:
        """The JSON of the next event."""
        return json.loads(self.event()["data"])  # type: ignore[no-any-return]

    def image(self) -> bytes:
        """The next JPEG of a multipart stream."""
        length = 0
        while True:
            text = self.line()
            if text.lower().startswith("content-length"):
                length = int(text.split(":")[1])
            elif not text and length:
                return self.answer.read(length)

    def ended(self) -> bool:
        """Whether the server ends the response in time."""
        try:
            while self.answer.read(65536):
                pass
        except (http.client.IncompleteRead, ConnectionError):
            return True
        return True

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()
        self.answer.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def silent(url: str, path: str) -> socket.socket:
    """A client that requests a stream and never reads it; its buffer is as small as the kernel allows."""
    parts = urlsplit(url)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect((parts.hostname, parts.port))
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
    return sock


def until(condition: Callable[[], object], seconds: float = TIMEOUT_S) -> bool:
    """Whether a condition becomes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())
