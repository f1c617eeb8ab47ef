"""Streams of network cameras over RTSP, by GStreamer or FFmpeg as this OpenCV has them. Knows nothing of reconnecting."""

from __future__ import annotations

import logging
from typing import Any

from edge_resnet.core.errors import SourceError
from edge_resnet.opencv import load_opencv
from edge_resnet.sources.capture import APPSINK, CaptureFeed, has_gstreamer, open_ffmpeg, open_gstreamer
from edge_resnet.sources.csi import has_plugin
from edge_resnet.sources.describe import explain_refusal
from edge_resnet.sources.live import LiveSource
from edge_resnet.sources.uri import TIMEOUT, Address, Patience, Range, parse_address, public_uri, take_options

__all__ = ["open_rtsp", "rtsp_pipeline"]

_log = logging.getLogger(__name__)

_PORTS = {"rtsp": 554, "rtsps": 322}
#: TCP: what UDP loses shows as grey blocks, which a network takes for a picture. Without fpsprobesize FFmpeg looks at twenty
#: frames before it gives the first.
_FFMPEG = "rtsp_transport;tcp|fflags;nobuffer|fpsprobesize;0"
#: FFmpeg's own choice is one per core, and each is a frame of delay. Two decoded 1080p at 71 frames per second, one at 41 (x86).
_THREADS = Range(2, 0, 64)
#: How long GStreamer holds packets back to put them in order; over TCP they are.
_LATENCY_MS = 100
#: Of the time for the first frame: for opening, and for asking why that failed.
_OPENING, _ASKING = 0.6, 0.25


def open_rtsp(uri: str) -> LiveSource:
    """Open ``rtsp://user:password@host:554/path``, also ``rtsps://``; ``timeout=5`` in the query is ours and not sent, and so is
    ``threads=2``, FFmpeg's decoders: each holds a frame back, and too few fall behind (0: one per core).

    GStreamer where OpenCV is built with it, on a Jetson with its decoder, else FFmpeg; which one is logged. Raises
    SourceError where the server is not reached, refuses, has no video or gives no frame.
    """
    rest, options = take_options(uri, {"timeout": TIMEOUT, "threads": _THREADS})
    name, address, patience = public_uri(rest), parse_address(rest), Patience.of(options["timeout"])
    cv2 = load_opencv()

    def connect() -> Any:
        capture = _open(cv2, name, address, patience, int(options["threads"]))
        if capture is None:
            explain_refusal(name, address, _PORTS[address.scheme], _ASKING * patience.open_s)
            hint = "set the camera to H.264; with GStreamer: apt install gstreamer1.0-libav"
            raise SourceError(f"{name} has no video that OpenCV can decode here", hint=hint)
        return capture

    def ended() -> SourceError:
        return SourceError(f"{name} gives no more frames", hint="is the camera still on, and reached by the network?")

    hint = "is the camera on, and does the network carry its stream? a lower resolution is set on the camera's page"
    return LiveSource(name, CaptureFeed(connect, ended), patience, hint)


def _open(cv2: Any, name: str, address: Address, patience: Patience, threads: int) -> Any:
    """A VideoCapture by the first way that opens it, None where none does."""
    ways = ["GStreamer", "FFmpeg"] if has_gstreamer(cv2) else ["FFmpeg"]
    times = Patience(_OPENING * patience.open_s / len(ways), patience.read_s)
    for way in ways:
        if way == "GStreamer":
            on_jetson = has_plugin("nvvidconv")
            capture = open_gstreamer(cv2, rtsp_pipeline(address, on_jetson=on_jetson), times)
            decoder = "the Jetson's decoder" if on_jetson else "decodebin"
        else:
            capture = open_ffmpeg(cv2, address.full, _FFMPEG, threads, times)
            decoder = "its own decoders"
        if capture.isOpened():
            _log.info("%s is read with %s, %s, over TCP", name, way, decoder)
            return capture
        capture.release()
    return None


def rtsp_pipeline(address: Address, *, on_jetson: bool) -> str:
    """The pipeline's text, with the password in it.

    On a Jetson decodebin picks nvv4l2decoder, whose frames only nvvidconv brings out of the GPU's memory (not seen to run).
    """
    properties = {"location": address.bare}
    if address.user or address.password:
        properties |= {"user-id": address.user, "user-pw": address.password}
    said = " ".join(f"{key}={_quoted(value)}" for key, value in properties.items())
    convert = "nvvidconv ! video/x-raw,format=BGRx ! videoconvert" if on_jetson else "videoconvert"
    return (
        f"rtspsrc {said} protocols=tcp latency={_LATENCY_MS} drop-on-latency=true ! application/x-rtp,media=video ! "
        f"decodebin ! {convert} ! {APPSINK}"
    )


def _quoted(value: str) -> str:
    """A string of gst_parse_launch, in which a mark would end it or begin another element."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
