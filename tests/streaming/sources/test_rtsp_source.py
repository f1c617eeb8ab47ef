"""RTSP from a real server, through FFmpeg: frames, passwords, stalls, and every kind of refusal."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice, pairwise

import numpy as np
import pytest
from children import started
from servers.mjpeg import MjpegServer
from servers.rtsp import RtspServer, why_no_rtsp

from edge_resnet.core.errors import SourceError
from edge_resnet.streaming.sources import open_source
from edge_resnet.streaming.sources.rtsp import rtsp_pipeline
from edge_resnet.streaming.sources.uri import parse_address

_SYSTEM_PYTHON = "/usr/bin/python3"


@pytest.fixture(scope="module")
def camera() -> Iterator[RtspServer]:
    if why_no_rtsp():
        pytest.skip(why_no_rtsp())
    with RtspServer() as server:
        yield server


def _refusal(uri: str) -> SourceError:
    with pytest.raises(SourceError) as caught:
        open_source(uri)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("query", ["", "?threads=1&timeout=8"])
def test_frames_that_move(camera: RtspServer, query: str, caplog: pytest.LogCaptureFixture) -> None:
    """Frames have the server's size and differ; one log line names the backend."""
    with caplog.at_level(logging.INFO, "edge_resnet"), open_source(camera.url("/h264" + query)) as source:
        frames = list(islice(source, 15))
    assert {frame.image.shape for frame in frames} == {(240, 320, 3)}
    assert {frame.source for frame in frames} == {camera.url()}
    assert [frame.index for frame in frames] == list(range(15))
    assert sum(not np.array_equal(left.image, right.image) for left, right in pairwise(frames)) > 10
    assert source.live
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"{camera.url()} is read with ")
    assert "OPENCV_FFMPEG_CAPTURE_OPTIONS" not in os.environ


@pytest.mark.alone
def test_closing_while_the_server_stalls(camera: RtspServer) -> None:
    """The iteration ends at once in its thread; close itself returns within the timeout."""
    source = open_source(camera.url("/h264?timeout=2"))
    ended = threading.Event()

    def read() -> None:
        list(source)
        ended.set()

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.3)
    camera.pause()
    try:
        time.sleep(0.3)
        started = time.monotonic()
        closer = threading.Thread(target=source.close)
        closer.start()
        assert ended.wait(1)
        assert time.monotonic() - started < 0.5
        closer.join(5)
        assert time.monotonic() - started < 3.5
    finally:
        camera.resume()
    reader.join(5)
    closer.join(5)
    assert not closer.is_alive()


def test_a_program_that_ends_while_the_server_stalls(camera: RtspServer) -> None:
    """It exits with 0 within the timeout, although the source was not closed and OpenCV is reading."""
    code = (
        "import sys, time; from edge_resnet.streaming.sources import open_source\n"
        # What is torn down last takes its time: OpenCV comes back to its thread while Python ends.
        "class Slow:\n    def __del__(self, sleep=time.sleep): sleep(3)\n"
        "sys.slow = Slow()\n"
        "frames = iter(open_source(sys.argv[1])); next(frames); print(flush=True); input()"
    )
    with started(
        [sys.executable, "-c", code, camera.url("/h264?timeout=2")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        camera.pause()
        try:
            time.sleep(0.3)
            _, complaints = child.communicate(b"\n", timeout=10)
        finally:
            camera.resume()
    assert child.returncode == 0
    assert complaints == b""


@pytest.mark.alone
def test_a_server_that_stalls(camera: RtspServer) -> None:
    """A silent stream is an error after the timeout, and so is a server that does not answer."""
    with open_source(camera.url("/h264?timeout=1")) as source:
        list(islice(source, 5))
        camera.pause()
        try:
            started = time.monotonic()
            with pytest.raises(SourceError, match="gave no frame for 1 s"):
                list(source)
            assert time.monotonic() - started < 2.5
            assert "does not answer within" in _refusal(camera.url("/h264?timeout=1")).message
            assert time.monotonic() - started < 7
        finally:
            camera.resume()


@pytest.mark.alone
def test_a_server_that_is_killed_and_started_again() -> None:
    """The end of the stream is an error within seconds; while the server is away it is refused; then the same URI opens again."""
    if why_no_rtsp():
        pytest.skip(why_no_rtsp())
    with RtspServer() as server:
        uri = server.url("/h264?timeout=3")
        with open_source(uri) as source:
            list(islice(source, 5))
            server.stop()
            started = time.monotonic()
            with pytest.raises(SourceError, match=r"gives no more frames|gave no frame"):
                list(source)
            assert time.monotonic() - started < 5
        assert "nothing listens at" in _refusal(uri).message
        server.start()
        with open_source(uri) as source:
            assert len(list(islice(source, 5))) == 5


@pytest.mark.parametrize("digest", [False, True])
def test_passwords(digest: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The right one is accepted, special characters included; without, or with a wrong one, the error says so and does not show
    it."""
    if why_no_rtsp():
        pytest.skip(why_no_rtsp())
    with RtspServer(login=("admin", "p@ss/w:rd"), digest=digest) as server, caplog.at_level(logging.DEBUG):
        with open_source(server.url("/h264", "admin:p%40ss%2Fw%3Ard")) as source:
            assert next(iter(source)).source == f"rtsp://***@127.0.0.1:{server.port}/h264"
        wanted = _refusal(server.url("/h264"))
        wrong = _refusal(server.url("/h264", "admin:hunter2"))
    assert "requires a user and a password" in wanted.message
    assert "does not accept this user and password" in wrong.message
    shown = f"{wrong.message} {wrong.hint} {wrong.__cause__!r} {wrong.__context__!r} {caplog.text}"
    assert "hunter2" not in shown
    assert "p@ss" not in shown
    assert "p%40" not in shown


def test_what_the_server_does_not_have(camera: RtspServer) -> None:
    """An unknown path and a stream of audio have different errors."""
    assert "has no stream of that path" in _refusal(camera.url("/nowhere")).message
    assert "has no video" in _refusal(camera.url("/audio")).message


def test_hosts_that_are_not_there() -> None:
    """A host that does not exist, and a port at which nothing listens."""
    assert "the host camera.invalid cannot be resolved" in _refusal("rtsp://camera.invalid/live").message
    assert "nothing listens at 127.0.0.1, port 9" in _refusal("rtsp://127.0.0.1:9/live").message


@pytest.mark.alone
def test_a_server_of_another_protocol() -> None:
    """HTTP at that port is refused in time, with a hint."""
    with MjpegServer() as server:
        started = time.monotonic()
        error = _refusal(f"rtsp://127.0.0.1:{server.port}/stream?timeout=1")
    assert error.message.startswith(f"rtsp://127.0.0.1:{server.port}/stream ")
    assert time.monotonic() - started < 4


def test_the_pipeline_on_a_jetson() -> None:
    """Its frames leave the GPU's memory through nvvidconv, and the password is not in the location."""
    pipeline = rtsp_pipeline(parse_address("rtsp://u:p@h:1/x"), on_jetson=True)
    assert pipeline == (
        'rtspsrc location="rtsp://h:1/x" user-id="u" user-pw="p" protocols=tcp latency=100 drop-on-latency=true ! '
        "application/x-rtp,media=video ! decodebin ! identity drop-buffer-flags=corrupted ! "
        "nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! "
        "video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"
    )


def test_gstreamer_takes_any_password() -> None:
    """Special characters in a path or a password stay text: they neither end an element nor begin one."""
    if why_no_rtsp():
        pytest.skip(why_no_rtsp())
    address = parse_address('rtsp://u%22:%22%20!%20fakesink%20%5C@h:1/a"!b\\?c=d;e')
    code = (
        "import sys, json, gi; gi.require_version('Gst', '1.0'); from gi.repository import Gst; Gst.init(None)\n"
        "pipeline = Gst.parse_launch(sys.argv[1])\n"
        "source = [e for e in pipeline.children if e.get_factory().get_name() == 'rtspsrc'][0]\n"
        "kinds = sorted(e.get_factory().get_name() for e in pipeline.children)\n"
        "print(json.dumps([source.get_property('location'), source.get_property('user-pw'), kinds]))"
    )
    said = subprocess.run(
        [_SYSTEM_PYTHON, "-c", code, rtsp_pipeline(address, on_jetson=False)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    location, password, kinds = json.loads(said.stdout)
    assert location == address.bare
    assert password == '" ! fakesink \\'
    assert "fakesink" not in kinds
