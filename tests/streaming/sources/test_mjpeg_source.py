"""MJPEG over HTTP from a real server: every form, every fault, within limits of time and memory."""

from __future__ import annotations

import logging
import resource
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from servers.mjpeg import SIZE, MjpegServer, brightness

from edge_resnet.core.errors import SourceError
from edge_resnet.streaming.records import Frame
from edge_resnet.streaming.sources import FrameSource, open_source


@pytest.fixture(scope="module")
def camera() -> Iterator[MjpegServer]:
    with MjpegServer() as server:
        yield server


def _take(source: FrameSource, count: int) -> list[Frame]:
    return list(islice(source, count))


def _shown(frame: Frame) -> int:
    """The index of the server's image."""
    return round(float(frame.image.mean()) / 6)


@pytest.mark.parametrize("path", ["/stream", "/plain", "/dashes", "/chunked"])
def test_images_in_order(camera: MjpegServer, path: str) -> None:
    """However the parts are separated, every image arrives, in order, as (H, W, 3) uint8 BGR."""
    with open_source(camera.url(path)) as source:
        frames = _take(source, 12)
    assert [frame.image.shape for frame in frames] == [(SIZE[1], SIZE[0], 3)] * 12
    assert [_shown(frame) for frame in frames] == list(range(12))
    assert [frame.index for frame in frames] == list(range(12))
    assert {frame.source for frame in frames} == {camera.url(path)}
    assert source.live
    assert source.dropped == 0
    stamps = [frame.captured_ns for frame in frames]
    assert stamps == sorted(stamps)
    assert stamps[-1] <= time.monotonic_ns()


def test_colours() -> None:
    """A red image of the server is red in BGR."""
    red = np.full((16, 16, 3), (250, 10, 20), np.uint8)
    with MjpegServer(paint=lambda index: red) as server, open_source(server.url()) as source:
        (frame,) = _take(source, 1)
    np.testing.assert_allclose(frame.image[8, 8], (20, 10, 250), atol=6)


@pytest.mark.parametrize("path", ["/cut", "/lying", "/garbage", "/huge", "/scans"])
def test_a_damaged_image_is_dropped_and_counted(camera: MjpegServer, path: str) -> None:
    """No incomplete image is delivered, the next ones are, and lost ones are counted."""
    with open_source(camera.url(path)) as source:
        frames = _take(source, 9)
    shown = [_shown(frame) for frame in frames]
    assert shown == [index for index in range(14) if index % 3 != 1][:9]
    assert all(abs(float(frame.image.mean()) - brightness(index)) < 4 for frame, index in zip(frames, shown, strict=True))
    assert source.dropped >= 4


@pytest.mark.parametrize("quiet_s", [60.0, 0.0])
def test_skipped_images_are_one_warning_a_minute(
    camera: MjpegServer, quiet_s: float, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However many there are, the first says why; after a minute another one does."""
    monkeypatch.setattr("edge_resnet.streaming.sources.mjpeg._QUIET_S", quiet_s)
    with caplog.at_level(logging.WARNING, "edge_resnet"), open_source(camera.url("/scans")) as source:
        _take(source, 9)
    warnings = [text for text in caplog.messages if "an image is skipped: it is no usual JPEG: it has" in text]
    assert len(warnings) == 1 if quiet_s else len(warnings) >= 4


@pytest.mark.parametrize("path", ["/huge", "/endless", "/giant"])
def test_no_stream_eats_the_memory(camera: MjpegServer, path: str) -> None:
    """An image that claims 13 GB, one that never ends and one that announces 100 GB take less than 300 MB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open_source(camera.url(path)) as source:
        if path in ("/huge", "/giant"):
            _take(source, 9)
        else:
            with pytest.raises(SourceError, match="more than 32 MiB"):
                list(source)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


@pytest.mark.parametrize("path", ["/stall", "/drip"])
@pytest.mark.alone
def test_a_stalled_stream_times_out(camera: MjpegServer, path: str) -> None:
    """Silence, or a byte now and then, ends in SourceError after the timeout; earlier images are delivered."""
    with open_source(camera.url(f"{path}?timeout=0.5")) as source:
        frames = _take(source, {"/stall": 5, "/drip": 1}[path])
        started = time.monotonic()
        with pytest.raises(SourceError, match=r"for 0\.5 s") as caught:
            next(iter(source))
        assert 0.4 < time.monotonic() - started < 2
    assert caught.value.hint
    assert _shown(frames[-1]) == len(frames) - 1


def test_a_pause_shorter_than_the_timeout() -> None:
    """A server that is silent for a moment and continues loses nothing."""
    with MjpegServer() as server, open_source(server.url("/stream?timeout=3")) as source:
        frames = iter(source)
        first = next(frames)
        server.pause()
        time.sleep(0.4)
        server.resume()
        rest = list(islice(frames, 5))
    assert [_shown(frame) for frame in (first, *rest)] == list(range(6))


@pytest.mark.alone
def test_a_server_that_goes_away_and_comes_back() -> None:
    """A broken connection is an error soon; the same URI is refused while the server is away, and works again afterwards."""
    with MjpegServer() as server:
        uri = server.url()
        with open_source(uri) as source:
            assert _take(source, 3)
            server.stop()
            started = time.monotonic()
            with pytest.raises(SourceError, match="the server closed the stream"):
                list(source)
            assert time.monotonic() - started < 2
        with pytest.raises(SourceError, match="nothing listens at 127") as caught:
            open_source(uri)
        assert "port" in caught.value.hint
        server.start()
        with open_source(uri) as source:
            assert len(_take(source, 3)) == 3


def test_a_stream_that_ends(camera: MjpegServer) -> None:
    """If the server ends the stream, that is an error after the last image: a camera does not end."""
    with open_source(camera.url("/short")) as source:
        frames = _take(source, 2)
        with pytest.raises(SourceError, match="closed the stream"):
            next(iter(source))
    assert [_shown(frame) for frame in frames] == [0, 1]


@pytest.mark.parametrize("when", ["waiting", "between"])
@pytest.mark.alone
def test_closing_from_another_thread(when: str) -> None:
    """The iteration ends at once, without an error, also while it waits for an image."""
    with MjpegServer() as server:
        source = open_source(server.url())
        ended, frames = threading.Event(), []

        def read() -> None:
            frames.extend(source)
            ended.set()

        if when == "waiting":
            server.pause()
        reader = threading.Thread(target=read)
        reader.start()
        time.sleep(0.2)
        started = time.monotonic()
        source.close()
        assert ended.wait(1)
        reader.join(5)
        assert time.monotonic() - started < 1
        source.close()
        server.resume()
    assert frames


@pytest.mark.parametrize(
    ("path", "match", "hint"),
    [
        ("/nowhere", "the server refuses with 404", "path"),
        ("/image", "is a single image", "MJPEG"),
        ("/moved", r"has moved to http://\*\*\*@127", "that address"),
        ("/silent?timeout=0.3", r"does not answer within 0\.3 s", "HTTP port"),
        ("/stream?timeout=0", "must lie in", "timeout=5"),
    ],
)
def test_what_is_no_stream(camera: MjpegServer, path: str, match: str, hint: str) -> None:
    """Each response has its own message and hint."""
    with pytest.raises(SourceError, match=match) as caught:
        open_source(camera.url(path))
    assert hint in caught.value.hint


@pytest.mark.parametrize("digest", [False, True])
def test_passwords(digest: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Basic and Digest accept the right one; without a password, or with a wrong one, the error says so and does not show it."""
    with MjpegServer(login=("admin", "p:w@rd/1"), digest=digest) as server, caplog.at_level(logging.DEBUG):
        with open_source(server.url("/stream", "admin:p%3Aw%40rd%2F1")) as source:
            assert {frame.source for frame in _take(source, 3)} == {f"http://***@127.0.0.1:{server.port}/stream"}
        with pytest.raises(SourceError, match="requires a user and a password") as caught:
            open_source(server.url())
        assert "user:password@" in caught.value.hint
        with pytest.raises(SourceError, match="does not accept this user and password") as caught:
            open_source(server.url("/stream", "admin:hunter2"))
    shown = f"{caught.value.message} {caught.value.hint} {caught.value.__cause__!r} {caught.value.__context__!r} {caplog.text}"
    assert "hunter2" not in shown
    assert "w@rd" not in shown


@pytest.mark.alone
def test_https(tmp_path: Path) -> None:
    """A self-signed certificate is refused unless verify=0 is given; then images arrive, and closing ends at once."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=camera"]
    files = ["-keyout", "key.pem", "-out", "certificate.pem"]
    subprocess.run([openssl, *words, *files], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    with MjpegServer(tls=tls) as server:
        with pytest.raises(SourceError, match="no secure connection") as caught:
            open_source(server.url())
        assert "verify=0" in caught.value.hint
        with open_source(server.url("/stream?verify=0")) as source:
            assert [_shown(frame) for frame in _take(source, 5)] == [0, 1, 2, 3, 4]
            server.pause()
            started = time.monotonic()
        assert time.monotonic() - started < 0.5


def test_https_to_a_server_without(camera: MjpegServer) -> None:
    """The error says that TLS failed."""
    with pytest.raises(SourceError, match="no secure connection") as caught:
        open_source(camera.url().replace("http:", "https:"))
    assert "verify=0" in caught.value.hint


def test_it_works_without_opencv(camera: MjpegServer) -> None:
    """The base install reads these streams."""
    code = (
        "import sys; sys.modules['cv2'] = None\n"
        "from itertools import islice; from edge_resnet.streaming.sources import open_source\n"
        f"with open_source({camera.url()!r}) as source: print(len(list(islice(source, 3))))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "3"
    assert result.stderr == ""


def _server(script: str) -> Iterator[int]:
    """The port of a script of ../shared/field that serves on it."""
    path = Path(__file__).resolve().parents[4] / "shared" / "field" / script
    if not path.is_file():
        pytest.skip(f"{script} is not here ({path.parent})")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    with subprocess.Popen([sys.executable, str(path), str(port)]) as process:
        try:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.05)
            yield port
        finally:
            process.kill()


@pytest.fixture(scope="module")
def habits() -> Iterator[int]:
    yield from _server("mjpeg_habits.py")


@pytest.fixture(scope="module")
def hostile() -> Iterator[int]:
    yield from _server("mjpeg_hostile.py")


_READABLE = (
    "std dashes dashes4 nodash quoted upper nolen lf lflen notrail notrailnolen biglen smalllen zerolen wrong noboundary mixed "
    "noct octet jpgct gray cmyk chunked http10 firstmissing spaces spacebound semicolonend doubleheader half connlen lenneg "
    "slash plus foldedhdr gz"
)


@pytest.mark.parametrize("habit", _READABLE.split())
def test_the_habits_of_cameras(habits: int, habit: str) -> None:
    """However a server frames its images, two can be read."""
    with open_source(f"http://127.0.0.1:{habits}/{habit}") as source:
        assert len(_take(source, 2)) == 2
        assert source.dropped <= (2 if habit == "half" else 0)


@pytest.mark.parametrize(
    "attack", ["cl-small", "cl-big", "cl-huge", "cl-neg", "switch", "chunkhuge", "boundary1", "boundary-long"]
)
def test_hostile_servers_whose_images_can_be_read(hostile: int, attack: str) -> None:
    """Wrong lengths and odd boundaries lose nothing."""
    with open_source(f"http://127.0.0.1:{hostile}/{attack}") as source:
        assert len(_take(source, 2)) == 2
        assert source.dropped == 0


#: Which limit is reached first, of size or of time, depends on what else the machine does.
TOO_MUCH = "more than 32 MiB|gave no frame"


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        ("big49mpx", "and [0-9]+ that cannot"),
        ("bomb60000", "and [0-9]+ that cannot"),
        ("markflood", "and [0-9]+ that cannot"),
        ("giant-part", TOO_MUCH),
        ("no-boundary", TOO_MUCH),
        ("dashes", TOO_MUCH),
        ("endless-part-headers", "header without an end"),
        ("drip", "gave no frame|sent nothing"),
        ("dashmarks", TOO_MUCH),
        ("redirect-file", "has moved"),
        ("status-garbage", "does not answer as an HTTP server"),
    ],
)
def test_hostile_servers_that_are_refused(hostile: int, attack: str, reason: str) -> None:
    """Each ends with an error that says why."""
    with pytest.raises(SourceError, match=reason):
        open_source(f"http://127.0.0.1:{hostile}/{attack}?timeout=0.2")
