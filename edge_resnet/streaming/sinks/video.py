"""Annotated video through OpenCV. Does not know how the answers are made."""

from __future__ import annotations

import logging
import re
import shutil
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_resnet.core.errors import ConfigError
from edge_resnet.streaming.opencv import load_opencv
from edge_resnet.streaming.records import Frame, Prediction
from edge_resnet.streaming.sinks.annotate import Annotator

__all__ = ["VideoSink"]

_log = logging.getLogger(__name__)

_Image = npt.NDArray[np.uint8]

#: Codecs to try, in order, by their four characters. H.264 (avc1) plays in browsers; pip's OpenCV cannot write it.
_CODECS = {".mp4": ("avc1", "mp4v"), ".mkv": ("mp4v", "MJPG"), ".avi": ("MJPG", "mp4v")}
#: Containers that cannot be played before they are closed.
_FRAGILE = frozenset({".mp4"})
#: Limits, in frames and bytes, of what is held back until the frame rate is known.
_MEASURED, _HELD_BYTES = 30, 64 << 20
_SLOWEST, _FASTEST = 1.0, 120.0
#: OpenCV does not report a full disk: no frame is written if less than this is free.
_RESERVE = 32 << 20
_FILES = 16


class VideoSink:
    """Records the predicted frames with the answer drawn in, at a constant frame rate: ``fps``, or that of the first frames by
    ``captured_ns``. If frames come unevenly none is repeated: the time drawn into them is the correct one.

    The suffix sets the format: .mkv and .avi can be played after a crash, up to the last second; .mp4 only after it was closed,
    and it has ``.part`` in its name until then. Nothing is replaced: if the file exists, ``NAME.2.mkv`` is written, and so on.
    ``per_source``: a file per source, ``NAME-camera-0.mkv``, for up to 16. The first frame sets the size of the video; frames of
    another size are scaled to fit, with black borders. Less than 32 MiB of free space counts as a full disk.
    """

    name = "video"
    wants_frames = True

    def __init__(self, path: Path, *, fps: float | None = None, per_source: bool = False, reserve: int = _RESERVE) -> None:
        if path.suffix.lower() not in _CODECS:
            raise ConfigError(f"{path.name} does not have the suffix of a video", hint=f"choose one of {', '.join(_CODECS)}")
        if fps is not None and not _SLOWEST <= fps <= _FASTEST:
            raise ConfigError(f"a video has {_SLOWEST:.0f} to {_FASTEST:.0f} frames per second, not {fps}", hint="30 is usual")
        if not path.parent.is_dir():
            raise ConfigError(f"cannot write {path}: the folder {path.parent} does not exist", hint=f"mkdir -p {path.parent}")
        self._cv2 = load_opencv("--save-video needs")
        self._path = path
        self._fps = fps
        self._per_source = per_source
        self._reserve = reserve
        self._annotator = Annotator()
        self._recordings: dict[str, _Recording] = {}
        if path.suffix.lower() in _FRAGILE:
            _log.warning("%s cannot be played if the run is killed; .mkv can", path.name)

    def write(self, prediction: Prediction, frame: Frame) -> None:
        """Draw the answer into a copy of the frame and record it. Raises ConfigError if that fails."""
        recording = self._recording(prediction.source if self._per_source else "")
        _check_space(self._path, self._reserve)
        recording.write(self._annotator.draw(prediction, frame), prediction.captured_ns)

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

    def _recording(self, source: str) -> _Recording:
        recording = self._recordings.get(source)
        if recording is not None and recording.is_gone():
            _log.warning("%s was removed: a new recording starts", recording.path)
            del self._recordings[source]
            with suppress(ConfigError):
                recording.close()
        if source not in self._recordings:
            if len(self._recordings) >= _FILES:
                raise ConfigError(f"--save-video writes at most {_FILES} files, one per source", hint="use fewer sources")
            stem = f"{self._path.stem}-{_slug(source)}" if source else self._path.stem
            self._recordings[source] = _Recording(self._cv2, self._path.with_name(stem + self._path.suffix), self._fps)
        return self._recordings[source]


class _Recording:
    """One file. Frames are held back until the frame rate is known."""

    def __init__(self, cv2: Any, path: Path, fps: float | None) -> None:
        self._cv2 = cv2
        self.path = _unused(path)
        self._work = self.path.with_suffix(f".part{path.suffix}") if path.suffix.lower() in _FRAGILE else self.path
        self._fps = fps
        self._writer: Any = None
        self._size = (0, 0)
        self._held: list[tuple[_Image, int]] = []

    def write(self, image: _Image, captured_ns: int) -> None:
        if self._writer is None:
            self._held.append((image, captured_ns))
            enough = len(self._held) >= _MEASURED or len(self._held) * image.nbytes >= _HELD_BYTES
            if self._fps is not None or enough:
                self._begin()
        else:
            self._writer.write(self._fitted(image))

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
        fps = self._fps or _measured([captured_ns for _, captured_ns in self._held])
        try:
            self._writer, codec = _open(self._cv2, self._work, fps, self._size)
        except ConfigError:
            self._held.pop()
            raise
        _log.info("recording %s: %s, %dx%d, %.1f frames per second", self.path, codec, *self._size, fps)
        for image, _ in self._held:
            self._writer.write(self._fitted(image))
        self._held.clear()

    def _fitted(self, image: _Image) -> _Image:
        width, height = self._size
        if image.shape[:2] == (height, width):
            return image
        scale = min(width / image.shape[1], height / image.shape[0])
        inner = (max(1, min(width, round(image.shape[1] * scale))), max(1, min(height, round(image.shape[0] * scale))))
        small = self._cv2.resize(image, inner, interpolation=self._cv2.INTER_AREA)
        fitted = np.zeros((height, width, 3), np.uint8)
        top, left = (height - inner[1]) // 2, (width - inner[0]) // 2
        fitted[top : top + inner[1], left : left + inner[0]] = small
        return fitted


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


def _check_space(path: Path, reserve: int) -> None:
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}", hint="choose another file with --save-video") from error
    if free < reserve:
        raise ConfigError(
            f"cannot write {path}: only {free >> 20} MiB are free, and {reserve >> 20} MiB are kept free", hint="free some space"
        )


def _measured(captured_ns: list[int]) -> float:
    """Frames per second, rounded to a tenth, of the frames held back; 10 if it cannot be computed."""
    span_ns = captured_ns[-1] - captured_ns[0]
    if span_ns <= 0:
        return 10.0
    return round(min(_FASTEST, max(_SLOWEST, 1e9 * (len(captured_ns) - 1) / span_ns)), 1)


def _unused(path: Path) -> Path:
    number, name = 1, path
    while name.exists() or name.with_suffix(f".part{path.suffix}").exists():
        number += 1
        name = path.with_suffix(f".{number}{path.suffix}")
    return name


def _slug(source: str) -> str:
    """A source's name as a part of a file name: its last letters, digits and dots."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", source).strip("-.")[-60:] or "source"
