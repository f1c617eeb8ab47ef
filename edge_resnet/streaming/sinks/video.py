"""Annotated video: Matroska with the time of every frame, or through OpenCV. Does not know how the answers are made."""

from __future__ import annotations

import logging
import os
import re
import shutil
from contextlib import ExitStack, suppress
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_resnet.core.errors import ConfigError
from edge_resnet.images.walk import is_image_name
from edge_resnet.streaming.opencv import load_opencv
from edge_resnet.streaming.records import Frame, Prediction
from edge_resnet.streaming.sinks.annotate import Annotator
from edge_resnet.streaming.sinks.matroska import MatroskaWriter

__all__ = ["VideoSink"]

_log = logging.getLogger(__name__)

_Image = npt.NDArray[np.uint8]

_SUFFIXES = (".mkv", ".avi", ".mp4")
#: Codecs that OpenCV tries, in order, by their four characters. H.264 (avc1) plays in browsers; pip's OpenCV cannot write it.
_CODECS = {".mp4": ("avc1", "mp4v"), ".avi": ("MJPG", "mp4v")}
_JPEG_QUALITY = 85
#: Limits, in frames and bytes, of what is held back until a constant frame rate is known.
_MEASURED, _HELD_BYTES = 30, 64 << 20
_SLOWEST, _FASTEST = 0.1, 240.0
#: A longer gap between two frames, as when a camera was away, is shortened to this in the video.
_LONGEST_GAP_NS = 5_000_000_000
_SHORTEST_GAP_NS = 1_000_000
#: How long an image file is shown.
_IMAGE_NS = 1_000_000_000
#: OpenCV does not report a full disk: no frame is written if less than this is free.
_RESERVE = 32 << 20
_FILES = 16


class VideoSink:
    """Records the predicted frames with the answer drawn in. The suffix sets the format:

    .mkv: JPEG images, each at its own time: a file's frames at their positions in it, an image file per second, a camera's by
    ``captured_ns``, where a gap of more than 5 s is shortened to that. A process that is killed loses the frame that it is
    writing, and none before it. Needs no OpenCV.

    .mp4, .avi: through OpenCV, at the constant frame rate of the first 30 frames. None is repeated if later ones come at another
    rate: the time drawn into them is the correct one. An .mp4 cannot be played before it is closed, and has ``.part`` in its name
    until then; an .avi of a killed process lacks up to 256 KiB of its last frames.

    Nothing is replaced: if the file exists, ``NAME.2.mkv`` is written, and so on. ``per_source``: a file per source,
    ``NAME-camera-0.mkv``, for up to 16, where the images of a folder are one source. The first frame sets the size of the video;
    frames of another size are scaled to fit, with black borders. Less than 32 MiB of free space (``reserve``, bytes) counts as a
    full disk.
    """

    name = "video"
    wants_frames = True

    def __init__(self, path: Path, *, per_source: bool = False, reserve: int = _RESERVE) -> None:
        if path.suffix.lower() not in _SUFFIXES:
            raise ConfigError(f"{path.name} does not have the suffix of a video", hint=f"choose one of {', '.join(_SUFFIXES)}")
        if not path.parent.is_dir():
            raise ConfigError(f"cannot write {path}: the folder {path.parent} does not exist", hint=f"mkdir -p {path.parent}")
        self._cv2 = load_opencv(f"--save-video {path.name} needs") if path.suffix.lower() in _CODECS else None
        self._path = path
        self._per_source = per_source
        self._reserve = reserve
        self._annotator = Annotator()
        self._recordings: dict[str, _Recording] = {}

    def write(self, prediction: Prediction, frame: Frame) -> None:
        """Draw the answer into a copy of the frame and record it. Raises ConfigError if that fails."""
        recording = self._recording(_origin(prediction.source) if self._per_source else "", live=frame.position_ns is None)
        _check_space(self._path, self._reserve)
        at_ns = prediction.captured_ns if frame.position_ns is None else frame.position_ns
        recording.write(self._annotator.draw(prediction, frame), at_ns)

    def close(self) -> None:
        """Write what is held back and finish the files. Raises ConfigError if one cannot be finished."""
        recordings, self._recordings = self._recordings, {}
        with ExitStack() as stack:
            for recording in recordings.values():
                stack.callback(recording.close)

    def __enter__(self) -> VideoSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()

    def _recording(self, source: str, *, live: bool) -> _Recording:
        recording = self._recordings.get(source)
        if recording is not None and recording.is_gone():
            _log.warning("%s was removed: a new recording starts", recording.path)
            del self._recordings[source]
            with suppress(ConfigError):
                recording.close()
        if source not in self._recordings:
            if live and self._cv2 is not None and not self._recordings:  # a file can be run again, a camera's hour cannot
                lost = "cannot be played" if _is_fragile(self._path) else "lacks its last frames"
                _log.warning("%s %s if the run is killed; a .mkv is whole up to the last frame", self._path.name, lost)
            if len(self._recordings) >= _FILES:
                raise ConfigError(f"--save-video writes at most {_FILES} files, one per source", hint="use fewer sources")
            stem = f"{self._path.stem}-{_slug(source)}" if source else self._path.stem
            path = _unused(self._path.with_name(stem + self._path.suffix))
            self._recordings[source] = _TimedRecording(path) if self._cv2 is None else _ConstantRecording(self._cv2, path)
        return self._recordings[source]


class _Recording(Protocol):
    """One file."""

    path: Path

    def write(self, image: _Image, at_ns: int) -> None: ...

    def is_gone(self) -> bool: ...

    def close(self) -> None: ...


class _TimedRecording:
    """A Matroska file whose frames have the times at which they were captured."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: MatroskaWriter | None = None
        self._size = (0, 0)
        self._last_ns: int | None = None
        self._time_ns = 0
        self._gap_ns = _IMAGE_NS

    def write(self, image: _Image, at_ns: int) -> None:
        step_ns = 0 if self._last_ns is None else self._gap(self._last_ns, at_ns)
        try:
            if self._writer is None:
                self.path = _unused(self.path)  # again: another run may have taken the name
                self._size = (image.shape[1], image.shape[0])
                self._writer = MatroskaWriter(self.path, *self._size)
                _log.info("recording %s: JPEG, %dx%d, each frame at its own time", self.path, *self._size)
            self._writer.write(_jpeg(_fitted(image, self._size)), self._time_ns + step_ns)
        except OSError as error:
            raise ConfigError(
                f"cannot write {self.path}: {error.strerror}", hint="free some space, or choose another file"
            ) from error
        self._last_ns, self._time_ns = at_ns, self._time_ns + step_ns

    def _gap(self, last_ns: int, at_ns: int) -> int:
        """How long the last frame is shown: where another file begins, whose position is 0, as long as the one before it."""
        if at_ns:
            self._gap_ns = max(_SHORTEST_GAP_NS, min(_LONGEST_GAP_NS, at_ns - last_ns))
        return self._gap_ns

    def is_gone(self) -> bool:
        return self._writer is not None and not self.path.exists()

    def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.close()
        except OSError as error:
            raise ConfigError(
                f"cannot finish {self.path}: {error.strerror}", hint="it can be played, but does not say how long it is"
            ) from error


class _ConstantRecording:
    """A file that OpenCV writes at a constant rate. Frames are held back until that is known."""

    def __init__(self, cv2: Any, path: Path) -> None:
        self._cv2 = cv2
        self.path = path
        self._work = path.with_suffix(f".part{path.suffix}") if _is_fragile(path) else path
        self._writer: Any = None
        self._size = (0, 0)
        self._held: list[tuple[_Image, int]] = []

    def write(self, image: _Image, at_ns: int) -> None:
        if self._writer is None:
            self._held.append((image, at_ns))
            if len(self._held) >= _MEASURED or len(self._held) * image.nbytes >= _HELD_BYTES:
                self._begin()
        else:
            self._writer.write(_fitted(image, self._size))

    def is_gone(self) -> bool:
        return self._writer is not None and not self._work.exists()

    def close(self) -> None:
        if self._held:
            self._begin()
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        if self._work == self.path:
            return
        try:
            self._work.rename(self.path)
        except OSError as error:
            raise ConfigError(
                f"cannot rename {self._work}: {error.strerror}", hint="the recording is complete under that name"
            ) from error

    def _begin(self) -> None:
        """Open the file and write what was held back. If it cannot be opened, only the newest frame is lost."""
        height, width = self._held[0][0].shape[:2]
        # Video codecs that store colour at half the resolution refuse odd sizes.
        self._size = (max(2, width // 2 * 2), max(2, height // 2 * 2))
        fps = _measured([at_ns for _, at_ns in self._held])
        try:
            self._writer, codec = _open(self._cv2, self._work, fps, self._size)
        except ConfigError:
            self._held.pop()
            raise
        _log.info("recording %s: %s, %dx%d, %.2f frames per second", self.path, codec, *self._size, fps)
        for image, _ in self._held:
            self._writer.write(_fitted(image, self._size))
        self._held.clear()


def _fitted(image: _Image, size: tuple[int, int]) -> _Image:
    """The image scaled to fit into ``size`` (width, height), with black borders."""
    width, height = size
    if image.shape[:2] == (height, width):
        return image
    scale = min(width / image.shape[1], height / image.shape[0])
    inner = (max(1, min(width, round(image.shape[1] * scale))), max(1, min(height, round(image.shape[0] * scale))))
    small = np.asarray(Image.fromarray(image).resize(inner, Image.Resampling.BOX))
    fitted = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner[1]) // 2, (width - inner[0]) // 2
    fitted[top : top + inner[1], left : left + inner[0]] = small
    return fitted


def _jpeg(image: _Image) -> bytes:
    content = BytesIO()
    Image.fromarray(np.ascontiguousarray(image[..., ::-1])).save(content, "JPEG", quality=_JPEG_QUALITY)
    return content.getvalue()


def _open(cv2: Any, path: Path, fps: float, size: tuple[int, int]) -> tuple[Any, str]:
    codecs = _CODECS[path.suffix.lower()]
    for codec in codecs:
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, size)
        if writer.isOpened():
            return writer, codec
        writer.release()
    raise ConfigError(
        f"OpenCV cannot write {path} (tried {', '.join(codecs)})",
        hint="check the permissions of the folder, or choose .avi or .mkv",
    )


def _is_fragile(path: Path) -> bool:
    """Whether the container cannot be played before it is closed."""
    return path.suffix.lower() == ".mp4"


def _check_space(path: Path, reserve: int) -> None:
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}", hint="choose another file with --save-video") from error
    if free < reserve:
        raise ConfigError(
            f"cannot write {path}: only {free >> 20} MiB are free, and {reserve >> 20} MiB are kept free", hint="free some space"
        )


def _measured(times_ns: list[int]) -> float:
    """Frames per second, rounded to a hundredth, of the frames held back; 10 if it cannot be computed."""
    span_ns = times_ns[-1] - times_ns[0]
    if span_ns <= 0:
        return 10.0
    return round(min(_FASTEST, max(_SLOWEST, 1e9 * (len(times_ns) - 1) / span_ns)), 2)


def _unused(path: Path) -> Path:
    number, name = 1, path
    while any(map(os.path.lexists, (name, name.with_suffix(f".part{path.suffix}")))):  # a link that leads nowhere, too
        number += 1
        name = path.with_suffix(f".{number}{path.suffix}")
    return name


def _origin(source: str) -> str:
    """The source that has a recording of its own: of an image, its folder."""
    return str(Path(source).parent) if is_image_name(Path(source).name) and "://" not in source else source


def _slug(source: str) -> str:
    """A source's name as a part of a file name: its last letters, digits and dots."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", source).strip("-.")[-60:] or "source"
