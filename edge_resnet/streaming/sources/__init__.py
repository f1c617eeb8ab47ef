"""Where frames come from: the protocol, the table of schemes, and how a URI is opened. Knows no camera and no codec itself.

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

from edge_resnet.core.errors import SourceError
from edge_resnet.streaming.records import Frame
from edge_resnet.streaming.sources.uri import public_uri

__all__ = ["SCHEMES", "FrameSource", "is_camera", "open_source", "public_uri"]

#: What OpenCV is asked to read; anything else with a name is taken for an image.
VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".mjpeg", ".wmv", ".flv"})


class FrameSource(Protocol):
    """Frames, one after another. A context manager; ``close`` may be called twice, and from another thread."""

    @property
    def live(self) -> bool:
        """Whether new frames come however fast they are read: a camera's do, a file waits."""
        ...

    @property
    def dropped(self) -> int:
        """Frames that could not be delivered: unreadable images, images of a stream that came damaged."""
        ...

    def __iter__(self) -> Iterator[Frame]:
        """Deliver every frame in order. Raises SourceError where the source fails for good or gives no frame in time."""
        ...

    def close(self) -> None:
        """Let go of the device or the file. An iteration that waits in another thread ends."""
        ...

    def __enter__(self) -> FrameSource: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None: ...


#: Scheme → what opens its URIs: a class or a function of the URI.
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
    """Open what a URI names.

    ``0``, ``camera:0`` or ``v4l2:///dev/video0?width=1280&height=720&fps=30`` (a camera), ``csi://0`` (a Jetson's sensor),
    ``rtsp://…``, ``rtsps://…`` (a network camera), ``http://…``, ``https://…`` (a stream of JPEG images), a video file, an
    image, a folder of images, a glob, or ``synthetic://?frames=100&width=640&height=480&seed=0&fps=30``. ``realtime``: a
    video file's frames come by its own clock, as if it were a camera.

    Waits for a live source's first frame: at most 10 seconds, or twice the URI's ``timeout``. Raises SourceError where there is
    nothing of that name or it gives no frame, MissingDependencyError where OpenCV is needed and absent. No error and no name of
    a frame holds the password of a URI.
    """
    if not uri:
        raise SourceError("the source has no name", hint="use a camera index, a video file or images; . is this folder")
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
            f"no source has the scheme {scheme}", hint=f"known are {', '.join(SCHEMES)}; or name a file or a folder"
        )
    module, name = SCHEMES[scheme].split(":")
    opener: Callable[..., FrameSource] = getattr(importlib.import_module(module), name)
    return partial(opener, realtime=True) if realtime and scheme == "video" else opener


def is_camera(uri: str) -> bool:
    """Whether it names a camera or a stream, which is worth opening again when it fails; a file is not."""
    return _scheme(uri) not in ("synthetic", "video", "images")


def _scheme(uri: str) -> str:
    """The line of the table for a URI; files are told apart by their names."""
    if re.fullmatch(r"(\d+|/dev/(video\d+|(v4l|edge-resnet)/.+))(\?.*)?", uri, re.ASCII):
        return "camera"
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://|(camera):", uri)
    if match:
        return (match.group(1) or match.group(2)).lower()
    is_video = Path(uri).suffix.lower() in VIDEO_SUFFIXES and not Path(uri).is_dir()
    return "video" if is_video else "images"
