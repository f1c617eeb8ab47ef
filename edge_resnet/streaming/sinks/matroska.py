"""Writes JPEG images as a Matroska video (RFC 9559), each with its own time. Does not know where the images come from.

OpenCV's writers collect 256 KiB before anything reaches the file, and have one constant frame rate. Here every frame is handed to
the system before ``write`` returns: a process that is killed loses at most the frame that it was writing.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path
from types import TracebackType

__all__ = ["MatroskaWriter"]

_NS_PER_UNIT = 1_000_000
#: A size that is not known: the segment ends with the file, so that it is valid after every frame.
_UNKNOWN = b"\x01" + b"\xff" * 7
_VIDEO_TRACK, _KEY_FRAME = 1, 0x80


class MatroskaWriter:
    """A new file at ``path`` with one track of JPEG images (V_MJPEG), of ``width`` x ``height`` pixels; a context manager.

    Raises FileExistsError if there is a file of that name, and any other OSError if it cannot be written. After an error of
    ``write`` the file ends with the frame before it, and the next frame may be tried.
    """

    def __init__(self, path: Path, width: int, height: int) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._end = self._units = self._step = 0
        head, self._duration_at = _head(width, height)
        try:
            self._append(head)
        except OSError:
            os.close(self._fd)
            path.unlink(missing_ok=True)
            raise

    def write(self, jpeg: bytes, at_ns: int) -> None:
        """Append a frame that is shown from ``at_ns`` after the begin of the video; times must not decrease. Raises OSError."""
        units = at_ns // _NS_PER_UNIT
        # A cluster per frame, whole in one write: a frame that is there can be played.
        block = struct.pack(">BhB", 0x80 | _VIDEO_TRACK, 0, _KEY_FRAME) + jpeg
        self._append(_element(0x1F43B675, _number(0xE7, units) + _element(0xA3, block)))
        self._units, self._step = units, units - self._units

    def close(self) -> None:
        """Write the duration and close. May be called twice. Raises OSError."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            os.pwrite(fd, _duration(self._units + self._step), self._duration_at)
        finally:
            os.close(fd)

    def __enter__(self) -> MatroskaWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()

    def _append(self, data: bytes) -> None:
        """Append all of ``data`` or, if the disk takes only a part, nothing."""
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(self._fd, data[done:], self._end + done)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, self._end)
            raise
        self._end += done


def _head(width: int, height: int) -> tuple[bytes, int]:
    """Everything before the first frame, and where the duration belongs in it."""
    header = _number(0x4286, 1) + _number(0x42F7, 1) + _number(0x42F2, 4) + _number(0x42F3, 8)
    header += _element(0x4282, b"matroska") + _number(0x4287, 4) + _number(0x4285, 2)
    info = _number(0x2AD7B1, _NS_PER_UNIT) + _element(0x4D80, b"edge-resnet") + _element(0x5741, b"edge-resnet")
    place = len(info)
    info += _element(0xEC, bytes(len(_duration(0)) - 9))  # a void as long as the duration, which is not known yet
    video = _number(0xB0, width) + _number(0xBA, height)
    track = _number(0xD7, _VIDEO_TRACK) + _number(0x73C5, 1) + _number(0x83, 1) + _number(0x9C, 0)
    track += _element(0x86, b"V_MJPEG") + _element(0xE0, video)
    before = _element(0x1A45DFA3, header) + _id(0x18538067) + _UNKNOWN
    infos = _element(0x1549A966, info)
    return before + infos + _element(0x1654AE6B, _element(0xAE, track)), len(before) + len(infos) - len(info) + place


def _duration(units: int) -> bytes:
    return _element(0x4489, struct.pack(">d", units))


def _number(name: int, value: int) -> bytes:
    return _element(name, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))


def _element(name: int, content: bytes) -> bytes:
    """An element with its size in eight bytes (RFC 8794, section 6)."""
    return _id(name) + (len(content) | 1 << 56).to_bytes(8, "big") + content


def _id(name: int) -> bytes:
    return name.to_bytes((name.bit_length() + 7) // 8, "big")
