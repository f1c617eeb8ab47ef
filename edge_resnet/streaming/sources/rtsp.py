"""Streams of network cameras over RTSP, through OpenCV's GStreamer or FFmpeg. Does not know about reconnecting."""

from __future__ import annotations

import logging
import re
import socket
import time
from typing import Any, NamedTuple

from edge_resnet.core.errors import SourceError
from edge_resnet.device.gstreamer import has_plugin
from edge_resnet.streaming.opencv import load_opencv
from edge_resnet.streaming.sources.capture import APPSINK, OpenCvCapture, has_gstreamer, open_ffmpeg, open_gstreamer
from edge_resnet.streaming.sources.connection import answer_challenge, connect, refused_login
from edge_resnet.streaming.sources.live import LiveSource
from edge_resnet.streaming.sources.uri import TIMEOUT, Address, Range, Timeouts, parse_address, public_uri, take_options

__all__ = ["explain_refusal", "open_rtsp", "rtsp_pipeline"]

_log = logging.getLogger(__name__)

_PORTS = {"rtsp": 554, "rtsps": 322}
#: TCP: packets lost over UDP show as grey blocks, which a network would classify. Without fpsprobesize FFmpeg analyses twenty
#: frames before it gives the first.
_FFMPEG = "rtsp_transport;tcp|fflags;nobuffer|fpsprobesize;0"
#: FFmpeg's default is one thread per core, and each delays by one frame. Two decode 1080p at 71 frames per second, one at 41
#: (x86).
_THREADS = Range(2, 0, 64)
#: GStreamer's plugins with rtspsrc and decodebin, with a Jetson's decoder and converter, and with FFmpeg's decoders.
_PLUGINS, _JETSON, _DECODER = ("rtsp", "playback"), ("nvvideo4linux2", "nvvidconv"), "libav"
#: Until the first key frame GStreamer's decoders give grey frames, marked as corrupted, which a network would classify: for some
#: seconds if a camera is opened that already sends to another client.
_WHOLE = "identity drop-buffer-flags=corrupted"
#: How long GStreamer buffers packets to reorder them; over TCP they arrive in order.
_LATENCY_MS = 100
#: Shares of the timeout for the first frame: for opening, and for finding out why that failed.
_OPENING, _ASKING = 0.6, 0.25
#: Of headers and description; those of cameras have one or two kB.
_MAX_BYTES = 65536


def open_rtsp(uri: str) -> LiveSource:
    """Open ``rtsp://user:password@host:554/path``, also ``rtsps://``.

    Two options in the query are edge-resnet's and not sent: ``timeout=5``, and ``threads=2``, FFmpeg's threads for decoding: each
    delays by one frame, and too few are too slow (0: one per core).

    Uses GStreamer with the hardware decoder on a Jetson, else FFmpeg, and decodebin where OpenCV has no FFmpeg; the log names
    the one in use. Raises SourceError if the server cannot be reached, refuses, has no video or gives no frame.
    """
    rest, options = take_options(uri, {"timeout": TIMEOUT, "threads": _THREADS})
    name, address, timeouts = public_uri(rest), parse_address(rest), Timeouts.of(options["timeout"])
    cv2 = load_opencv()

    def connect() -> Any:
        capture = _open(cv2, name, address, timeouts, int(options["threads"]))
        if capture is None:
            explain_refusal(name, address, _PORTS[address.scheme], _ASKING * timeouts.open_s)
            hint = "set the camera to H.264; with GStreamer: apt install gstreamer1.0-libav"
            raise SourceError(f"{name} has no video that OpenCV can decode here", hint=hint)
        return capture

    def ended() -> SourceError:
        return SourceError(f"{name} gives no more frames", hint="check that the camera is on and the network reaches it")

    hint = "check that the camera is on, and the bandwidth of the network; a lower resolution is set on the camera's page"
    return LiveSource(name, OpenCvCapture(connect, ended), timeouts, hint)


def _open(cv2: Any, name: str, address: Address, timeouts: Timeouts, threads: int) -> Any:
    """A VideoCapture by the first backend that opens the stream, None if none does."""
    on_jetson = all(has_plugin(plugin) for plugin in _JETSON)
    backends = _backends(cv2, on_jetson=on_jetson)
    times = Timeouts(_OPENING * timeouts.open_s / len(backends), timeouts.read_s)
    for backend in backends:
        if backend == "GStreamer":
            # OpenCV before 4.7 keeps threads and files of a pipeline that failed to connect, and a camera may be off for days.
            connect(address, _PORTS[address.scheme], times.open_s).close()
            capture = open_gstreamer(cv2, rtsp_pipeline(address, on_jetson=on_jetson), times)
            decoder = "the Jetson's decoder" if on_jetson else "decodebin"
        else:
            capture = open_ffmpeg(cv2, address.full, _FFMPEG, threads, times)
            decoder = "its own decoders"
        if capture.isOpened():
            _log.info("%s is read with %s, %s, over TCP", name, backend, decoder)
            return capture
        capture.release()
    return None


def _backends(cv2: Any, *, on_jetson: bool) -> tuple[str, ...]:
    """GStreamer only for the hardware's sake, or where there is nothing else.

    OpenCV before 4.7, which Ubuntu 24.04 still has, waits for ever for an element or a decoder that is not installed, and at
    times for a stream that the server refuses. With FFmpeg it has timeouts.
    """
    has_ffmpeg = cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG)
    has_plugins = all(has_plugin(name) for name in _PLUGINS) and (on_jetson or has_plugin(_DECODER))
    if has_gstreamer(cv2) and has_plugins and (on_jetson or not has_ffmpeg):
        return ("GStreamer", "FFmpeg") if has_ffmpeg else ("GStreamer",)
    return ("FFmpeg",)


def rtsp_pipeline(address: Address, *, on_jetson: bool) -> str:
    """The pipeline's description, with the password in it.

    On a Jetson decodebin chooses nvv4l2decoder, whose frames only nvvidconv copies out of the GPU's memory. Not yet run on one:
    in the tests these two elements are stand-ins.
    """
    properties = {"location": address.bare}
    if address.user or address.password:
        properties |= {"user-id": address.user, "user-pw": address.password}
    source = " ".join(f"{key}={_quoted(value)}" for key, value in properties.items())
    convert = "nvvidconv ! video/x-raw,format=BGRx ! videoconvert" if on_jetson else "videoconvert"
    return (
        f"rtspsrc {source} protocols=tcp latency={_LATENCY_MS} drop-on-latency=true ! application/x-rtp,media=video ! "
        f"decodebin ! {_WHOLE} ! {convert} ! {APPSINK}"
    )


def _quoted(value: str) -> str:
    """A string for gst_parse_launch; an unescaped quote would end it, and could begin another element."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


class _Reply(NamedTuple):
    status: int
    reason: str
    challenges: list[str]
    body: str


def explain_refusal(name: str, address: Address, port: int, timeout_s: float) -> None:
    """Raise SourceError if the server cannot be reached, requires another password, or has no video at this address.

    Sends one DESCRIBE (RFC 2326), which begins no session. Called only after opening has failed: a server that was just asked may
    refuse the next connection (GStreamer's answers 503). A reply that is not understood is ignored. For rtsps only the connection
    is tried.
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
            hint = "restart the camera's server, and check that it is an RTSP port"
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
    while len(data) < _MAX_BYTES:
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
        raise SourceError(f"{name}: the server has no stream of that path", hint="the camera's manual lists its RTSP paths")
    if reply.status >= 400:
        raise SourceError(
            f"{name}: the server refuses with {reply.status} {reply.reason}", hint="the camera's page or log may show the reason"
        )
    if reply.status == 200 and "m=" in reply.body and "m=video" not in reply.body:
        raise SourceError(f"{name} has no video", hint="use the path of a video stream; this one carries only audio or data")
