"""Where frames come from: the protocol, the table of schemes, and opening a URI. Does not know about cameras or codecs itself.

A new source is one file in this folder and one line in ``SCHEMES``.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Protocol
from urllib.parse import unquote

from edge_resnet.core.errors import SourceError
from edge_resnet.streaming.records import Frame
from edge_resnet.streaming.sources.uri import public_uri

__all__ = ["SCHEMES", "FrameSource", "is_camera", "open_source", "public_uri"]

#: Files that OpenCV reads; any other file is taken for an image.
VIDEO_SUFFIXES = frozenset(
    {
        *(".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".mjpeg", ".wmv", ".flv"),
        *(".3gp", ".3g2", ".ogv", ".h264", ".264", ".h265", ".hevc"),
    }
)


class FrameSource(Protocol):
    """Frames, one after another. A context manager; ``close`` may be called twice, and from another thread."""

    @property
    def live(self) -> bool:
        """Whether new frames arrive no matter how fast they are read: those of a camera do, a file waits."""
        ...

    @property
    def dropped(self) -> int:
        """Frames that could not be delivered: unreadable files, damaged images of a stream."""
        ...

    def __iter__(self) -> Iterator[Frame]:
        """Deliver every frame in order. Raises SourceError if the source fails or gives no frame in time."""
        ...

    def close(self) -> None:
        """Release the device or the file. An iteration that waits in another thread ends."""
        ...

    def __enter__(self) -> FrameSource: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None: ...


#: Scheme → the class or function that opens its URIs.
SCHEMES: Mapping[str, str] = MappingProxyType(
    {
        "camera": "edge_resnet.streaming.sources.camera:open_camera",
        "v4l2": "edge_resnet.streaming.sources.camera:open_camera",
        "csi": "edge_resnet.streaming.sources.csi:open_csi",
        "rtsp": "edge_resnet.streaming.sources.rtsp:open_rtsp",
        "rtsps": "edge_resnet.streaming.sources.rtsp:open_rtsp",
        "http": "edge_resnet.streaming.sources.mjpeg:open_mjpeg",
        "https": "edge_resnet.streaming.sources.mjpeg:open_mjpeg",
        "synthetic": "edge_resnet.streaming.sources.synthetic:SyntheticSource",
        "video": "edge_resnet.streaming.sources.video:VideoSource",
        "images": "edge_resnet.streaming.sources.imagefiles:ImagesSource",
    }
)


def open_source(uri: str, *, realtime: bool = False) -> FrameSource:
    """Open the source that a URI names.

    ``0``, ``camera:0`` or ``v4l2:///dev/video0?width=1280&height=720&fps=30`` (a camera), ``csi://0`` (a sensor of a Jetson),
    ``rtsp://…``, ``rtsps://…`` (a network camera), ``http://…``, ``https://…`` (a stream of JPEG images), a video file, an
    image, a folder of images, a glob, or ``synthetic://?frames=100&width=640&height=480&seed=0&fps=30``. ``realtime``: the
    frames of a video file come at their own pace, as if from a camera.

    Waits for the first frame of a live source: at most 10 seconds, or twice the URI's ``timeout``. Raises SourceError if the
    source does not exist or gives no frame, and MissingDependencyError if it needs OpenCV and that is not installed. Neither
    errors nor the names of frames contain the password of a URI.
    """
    if not uri:
        raise SourceError("the name of the source is empty", hint="use a camera index, a video file or images; . is this folder")
    if "\0" in unquote(uri):
        raise SourceError("the name of the source contains a NUL character, which no name can", hint="check the name")
    try:
        return _opener(uri, realtime=realtime)(uri)
    except OSError as error:
        raise SourceError(
            f"{public_uri(uri)} cannot be opened: {error.strerror}", hint="check the name and its permissions"
        ) from error


def _opener(uri: str, *, realtime: bool) -> Callable[[str], FrameSource]:
    scheme = _scheme(uri)
    if scheme not in SCHEMES:
        raise SourceError(
            f"there is no source with the scheme {scheme}", hint=f"use one of {', '.join(SCHEMES)}, or a file or a folder"
        )
    module, name = SCHEMES[scheme].split(":")
    opener: Callable[..., FrameSource] = getattr(importlib.import_module(module), name)
    return partial(opener, realtime=True) if realtime and scheme == "video" else opener


def is_camera(uri: str) -> bool:
    """Whether a URI names a camera or a stream, which is reopened when it fails; a file is not."""
    return _scheme(uri) not in ("synthetic", "video", "images")


def _scheme(uri: str) -> str:
    """The key in the table for a URI; videos and images are distinguished by their suffixes."""
    if re.fullmatch(r"(\d+|/dev/(video\d+|(v4l|edge-resnet)/.+))(\?.*)?", uri, re.ASCII):
        return "camera"
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://|(camera):", uri)
    if match:
        return (match.group(1) or match.group(2)).lower()
    is_video = Path(uri).suffix.lower() in VIDEO_SUFFIXES and not Path(uri).is_dir()
    return "video" if is_video else "images"
