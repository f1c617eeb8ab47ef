"""Many clients, slow clients, clients that disconnect, and the end: none blocks the pipeline or another client."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
import tracemalloc
from contextlib import ExitStack, aclosing, suppress
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pytest
from webstage import TIMEOUT_S, Reader, Script, ask, frame, prediction, served, silent, until

from edge_resnet.streaming.records import Frame
from edge_resnet.streaming.web import WebSink, jpegstream, limits
from edge_resnet.streaming.web.events import QUEUE, EventFilter, EventHub, Subscriber
from edge_resnet.streaming.web.latest import LatestFrames
from edge_resnet.streaming.web.routes import LISTENERS, WATCHERS

#: An image that JPEG cannot make small.
NOISE = np.random.default_rng(0).integers(0, 256, (540, 960, 3), np.uint8)


def _value(sink: WebSink, name: str) -> float:
    (line,) = (line for line in ask(sink.url, "/metrics").text.splitlines() if line.startswith(name + " "))
    return float(line.split()[-1])


def test_twenty_clients_hear_the_same() -> None:
    """Each of twenty gets all of a hundred predictions, in order."""
    with served() as sink, ExitStack() as stack:
        readers = [stack.enter_context(Reader(sink.url, "/api/predictions")).joined() for _ in range(20)]
        for index in range(100):
            sink.write(prediction(index), frame(index))
        for reader in readers:
            assert [reader.data()["frame"] for _ in range(100)] == list(range(100))


@pytest.mark.parametrize(("path", "limit"), [("/stream/0.mjpeg", WATCHERS), ("/api/predictions", LISTENERS)])
def test_one_client_too_many_is_503(path: str, limit: int) -> None:
    """Until another one disconnects."""
    with served() as sink, ExitStack() as stack:
        sink.write(prediction(), frame())
        first = Reader(sink.url, path)
        others = [stack.enter_context(Reader(sink.url, path)) for _ in range(limit - 1)]
        assert {reader.status for reader in (first, *others)} == {200}
        refused = ask(sink.url, path)
        assert refused.status == 503
        assert refused.headers["retry-after"]
        first.close()
        assert until(lambda: _free(sink, path))


def _free(sink: WebSink, path: str) -> bool:
    with Reader(sink.url, path) as reader:
        return reader.status == 200


@pytest.mark.alone
def test_a_client_that_does_not_read_loses_events_and_gets_their_number() -> None:
    """The pipeline is not blocked; the client's queue is limited; losses are counted."""
    with served() as sink:
        sock = silent(sink.url, "/api/predictions")
        assert until(lambda: _value(sink, 'edge_resnet_web_clients{kind="events"}') == 1)
        slowest = 0.0
        for index in range(6000):
            one, image = prediction(index), frame(index)
            began = time.perf_counter()
            sink.write(one, image)
            slowest = max(slowest, time.perf_counter() - began)
        assert slowest < 0.5
        assert until(lambda: _value(sink, "edge_resnet_web_events_lost_total") > QUEUE)
        sock.settimeout(TIMEOUT_S)
        text = b""
        while b"event: lost" not in text:
            text = text[-20:] + sock.recv(65536)
        sock.close()


def test_a_queue_keeps_the_newest() -> None:
    """Of a thousand at once the client gets the number of lost ones, and the last 256."""

    async def sent() -> str:
        event_hub, latest = EventHub(), LatestFrames(Script())
        subscriber = Subscriber(asyncio.get_running_loop(), EventFilter(), event_hub, latest)
        async with aclosing(subscriber.chunks(asyncio.Event())) as chunks:
            assert (await anext(chunks)).startswith(b"retry:")
            for index in range(1000):
                newest = latest.put(prediction(index), frame(index))
                assert newest is not None
                event_hub.publish(newest)
            return (await anext(chunks)).decode()

    text = asyncio.run(sent())
    assert f'event: lost\ndata: {{"lost": {1000 - QUEUE}}}' in text
    frames = [json.loads(line[6:])["frame"] for line in text.splitlines() if line.startswith('data: {"source"')]
    assert frames == list(range(1000 - QUEUE, 1000))


def test_many_clients_cost_one_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six clients of one camera share its JPEGs: about ten per second are encoded, however many frames arrive."""
    encoded: list[float] = []

    real = jpegstream.encode

    def counted(image: npt.NDArray[np.uint8]) -> bytes:
        encoded.append(time.monotonic())
        return real(image)

    monkeypatch.setattr(jpegstream, "encode", counted)
    with served() as sink, ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(Reader(sink.url, "/stream/0.mjpeg"))
            time.sleep(0.017)  # so that they do not ask in step
        began = time.monotonic()
        index = 0
        while time.monotonic() - began < 1.0:
            sink.write(prediction(index), frame(index))
            index += 1
            time.sleep(0.005)
        passed = time.monotonic() - began
    assert 2 <= len(encoded) <= 10 * passed + 3


@pytest.mark.alone
def test_a_slow_client_skips_frames_and_others_do_not() -> None:
    """A client that does not read does not slow down one that does."""
    with served() as sink:
        sink.write(prediction(), Frame(NOISE, 0, 0, "camera:0"))
        sock = silent(sink.url, "/stream/0.mjpeg")
        stop = threading.Event()

        def film() -> None:
            index = 1
            while not stop.wait(0.02):
                sink.write(prediction(index), Frame(NOISE, index, 0, "camera:0"))
                index += 1

        thread = threading.Thread(target=film)
        thread.start()
        try:
            with Reader(sink.url, "/stream/0.mjpeg") as reader:
                began = time.monotonic()
                for _ in range(10):
                    reader.image()
                assert time.monotonic() - began < 5
        finally:
            stop.set()
            thread.join()
            sock.close()


def test_a_client_that_never_reads_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its place is free again after a while; so is that of a connection without a request."""
    monkeypatch.setattr(limits, "IDLE_S", 1.0)
    with served() as sink:
        stuck = silent(sink.url, "/stream/0.mjpeg")
        parts = urlsplit(sink.url)
        idle = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=TIMEOUT_S)
        half = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=TIMEOUT_S)
        half.sendall(b"GET / HTTP/1.1\r\nHost: local")
        assert until(lambda: _value(sink, 'edge_resnet_web_clients{kind="images"}') == 1)
        end = time.monotonic() + TIMEOUT_S
        index = 0
        while _value(sink, 'edge_resnet_web_clients{kind="images"}') == 1 and time.monotonic() < end:
            sink.write(prediction(index), Frame(NOISE, index, 0, "camera:0"))
            index += 1
            time.sleep(0.1)
        assert _value(sink, 'edge_resnet_web_clients{kind="images"}') == 0
        for sock in (idle, half):
            with suppress(ConnectionResetError):
                assert sock.recv(10) == b""
            sock.close()
        stuck.close()


def test_a_client_that_goes_frees_its_place() -> None:
    """Within a moment, although nothing is sent to it meanwhile."""
    with served() as sink:
        reader = Reader(sink.url, "/api/predictions").joined()
        watcher = Reader(sink.url, "/stream/0.mjpeg")
        assert _value(sink, 'edge_resnet_web_clients{kind="events"}') == 1
        reader.close()
        watcher.close()
        assert until(lambda: _value(sink, 'edge_resnet_web_clients{kind="events"}') == 0, 3)
        assert until(lambda: _value(sink, 'edge_resnet_web_clients{kind="images"}') == 0, 3)


@pytest.mark.alone
def test_it_ends_within_a_second_with_streams_open(caplog: pytest.LogCaptureFixture) -> None:
    """With clients that read, that do not, and that request nothing; no error in the log, no thread and no bound port is left."""
    before = set(threading.enumerate())
    sink = WebSink("127.0.0.1:0", Script()).open()
    sink.write(prediction(), Frame(NOISE, 0, 0, "camera:0"))
    parts = urlsplit(sink.url)
    readers = [Reader(sink.url, "/api/predictions").joined() for _ in range(3)]
    readers += [Reader(sink.url, "/stream/0.mjpeg") for _ in range(3)]
    silents = [silent(sink.url, "/stream/0.mjpeg"), silent(sink.url, "/api/predictions")]
    idle = socket.create_connection((parts.hostname or "", parts.port or 0))
    for index in range(40):
        sink.write(prediction(index), Frame(NOISE, index, 0, "camera:0"))
        time.sleep(0.03)
    with caplog.at_level(logging.WARNING):
        began = time.monotonic()
        sink.close()
        assert time.monotonic() - began < 1.0
    assert caplog.records == []
    assert all(reader.ended() for reader in readers)
    for client in (*readers, *silents, idle):
        client.close()
    assert until(lambda: not [t for t in set(threading.enumerate()) - before if t.is_alive()])
    WebSink(f"127.0.0.1:{parts.port}", Script()).open().close()


def test_it_may_be_closed_twice_and_written_to_afterwards() -> None:
    """Before it is open and after it is closed, a write only stores the prediction."""
    sink = WebSink("127.0.0.1:0", Script())
    sink.write(prediction(), frame())
    sink.close()
    with sink:
        assert ask(sink.url, "/healthz").status == 200
        assert sink.open() is sink
    sink.close()
    sink.write(prediction(1), frame(1))


@pytest.mark.alone
def test_without_clients_it_costs_no_memory_and_little_time() -> None:
    """Ten thousand writes keep one frame per source, encode nothing and take less than 0.2 ms each."""
    with served() as sink:
        before_threads = set(threading.enumerate())
        frames = [frame(index, size=(480, 640)) for index in range(3)]
        for index in range(100):
            sink.write(prediction(index), frames[index % 3])
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            began = time.perf_counter()
            for index in range(10_000):
                sink.write(prediction(index), frame(index, name=f"unheard/{index}.jpg") if index % 2 else frames[index % 3])
            seconds = time.perf_counter() - began
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 200_000
        assert seconds < 10  # with tracemalloc's own burden, and that of making predictions and frames
        # The pool that encodes makes its first thread when it is first asked.
        assert set(threading.enumerate()) <= before_threads


def test_a_status_that_fails_is_an_error_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    """The route answers 500, and the next request works again."""
    script = Script()
    with served(script) as sink:
        good = script.status
        script.status = None  # type: ignore[assignment]
        with caplog.at_level(logging.CRITICAL, logger="uvicorn.error"):
            assert until(lambda: ask(sink.url, "/api/status").status == 500)
        script.status = good
        assert until(lambda: ask(sink.url, "/api/status").status == 200)
