"""Where frames come from: the protocol, the table of schemes, and how a URI is opened. Knows no camera and no codec itself.

A new source is one file in this folder and one line in ``SCHEMES``.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Protocol

from edge_resnet.errors import SourceError
from edge_resnet.frame import Frame

__all__ = ["SCHEMES", "FrameSource", "open_source"]

#: What OpenCV is asked to read; anything else with a name is taken for an image.
VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".mjpeg", ".wmv", ".flv"})


class FrameSource(Protocol):
    """Frames, one after another. A context manager; ``close`` may be called twice."""

    #: A camera delivers new frames whether or not they are read; a file waits.
    live: bool
    #: Frames that could not be delivered: unreadable images, frames a camera lost.
    dropped: int

    def __iter__(self) -> Iterator[Frame]:
        """Deliver every frame in order. Raises SourceError where the source fails for good."""
        ...

    def close(self) -> None:
        """Let go of the device or the file."""
        ...

    def __enter__(self) -> FrameSource: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None: ...


SCHEMES: Mapping[str, str] = MappingProxyType(
    {
        "camera": "edge_resnet.sources.camera:CameraSource",
        "v4l2": "edge_resnet.sources.camera:CameraSource",
        "synthetic": "edge_resnet.sources.synthetic:SyntheticSource",
        "video": "edge_resnet.sources.video:VideoSource",
        "images": "edge_resnet.sources.images:ImagesSource",
    }
)
#: Schemes of the design that this version does not open yet.
_LATER = ("rtsp", "rtsps", "csi", "http", "https")


def open_source(uri: str) -> FrameSource:
    """Open what a URI names: ``0`` or ``camera:0`` or ``v4l2:///dev/video0``, a video file, an image, a folder of images, a
    glob, or ``synthetic://?frames=100&width=640&height=480&seed=0``.

    Raises SourceError where there is nothing of that name or it gives no frame, MissingDependencyError where OpenCV is needed
    and absent.
    """
    if not uri:
        raise SourceError("the source has no name", hint="use a camera index, a video file or images; . is this folder")
    try:
        return _open(uri)
    except OSError as error:
        raise SourceError(f"{uri} cannot be opened: {error.strerror}", hint="check the name and its permissions") from error


def _open(uri: str) -> FrameSource:
    scheme = _scheme(uri)
    if scheme in _LATER:
        raise SourceError(f"{scheme}:// is not supported in this version", hint="use a camera index, a video file or images")
    if scheme not in SCHEMES:
        raise SourceError(
            f"no source has the scheme {scheme}", hint=f"known are {', '.join(SCHEMES)}; or name a file or a folder"
        )
    module, name = SCHEMES[scheme].split(":")
    source: FrameSource = getattr(importlib.import_module(module), name)(uri)
    return source


def _scheme(uri: str) -> str:
    """The line of the table for a URI; files are told apart by their names."""
    if uri.isdecimal() or re.fullmatch(r"/dev/video\d+", uri):
        return "camera"
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://|(camera):", uri)
    if match:
        return (match.group(1) or match.group(2)).lower()
    is_video = Path(uri).suffix.lower() in VIDEO_SUFFIXES and not Path(uri).is_dir()
    return "video" if is_video else "images"
