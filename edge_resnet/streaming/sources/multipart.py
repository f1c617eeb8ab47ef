"""Splits a stream of multipart/x-mixed-replace (RFC 2046) into its parts, within limits. Knows neither sockets nor images.

Cameras deviate from the standard: boundaries in the header with or without their dashes, lengths that are wrong or missing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import NamedTuple

from edge_resnet.core.errors import SourceError

__all__ = ["MAX_PART_BYTES", "Part", "Parts"]

#: A JPEG of 50 million pixels at high quality: more bytes between two boundaries are not an image.
MAX_PART_BYTES = 32 * 2**20
_MAX_HEADER_BYTES = 16384
_DASH = ord("-")
_HINT = "check in a browser that it is an MJPEG stream"


class Part(NamedTuple):
    """``began_ns``: when its header had arrived, on the monotonic clock."""

    body: bytes
    began_ns: int


class Parts:
    """The parts between lines of ``boundary``. ``receive`` returns the stream piece by piece, and empty bytes at its end.

    ``whole`` says whether a body is complete: if not, its length was wrong and the body may include the next part.
    """

    def __init__(self, receive: Callable[[], bytes], boundary: str, whole: Callable[[bytes], bool]) -> None:
        #: Parts that were cut off or ran into the next one.
        self.cut = 0
        self._receive, self._whole = receive, whole
        name = boundary.strip().lstrip("-").encode("latin-1", "replace")
        if not name:
            raise SourceError("the stream declares no boundary between its images", hint=_HINT)
        self._mark = b"--" + name
        self._buffer = bytearray()

    def next(self) -> Part:
        """Wait for the next part. Raises EOFError at the end, SourceError if a part or its header is too long."""
        self._skip_to_mark()
        while True:
            length = self._read_header()
            began_ns = time.monotonic_ns()
            body = self._read_to_mark() if length is None else self._read_length(length)
            if body is not None:
                return Part(body, began_ns)
            self.cut += 1
            self._skip_to_mark()

    def _skip_to_mark(self) -> None:
        """Drop everything up to and including the next mark."""
        del self._buffer[: self._find_mark()[1]]

    def _read_header(self) -> int | None:
        """Read the lines after a mark up to an empty one; returns the content length, None if there is none."""
        while (end := re.search(rb"\r?\n[ \t]*\r?\n", self._buffer)) is None:
            if self._buffer.startswith(b"--"):
                raise EOFError
            if len(self._buffer) > _MAX_HEADER_BYTES:
                raise SourceError("the stream sends a header without an end", hint=_HINT)
            self._fill()
        if self._buffer.startswith(b"--"):
            raise EOFError
        found = re.search(rb"(?im)^content-length[ \t]*:[ \t]*(\d+)", self._buffer[: end.start()])
        del self._buffer[: end.end()]
        if found is None:
            return None
        if len(found.group(1)) > 9 or int(found.group(1)) > MAX_PART_BYTES:
            raise _too_large()
        return int(found.group(1))

    def _read_length(self, length: int) -> bytes | None:
        while len(self._buffer) < length:
            self._fill(in_part=True)
        body = bytes(self._buffer[:length])
        if self._whole(body):
            del self._buffer[:length]
            return body
        if self._search(body, 0) is not None:
            return None
        # Either this is not a JPEG or the length is too short: continue at the next mark.
        del self._buffer[:length]
        return body

    def _read_to_mark(self) -> bytes:
        begin, _ = self._find_mark(in_part=True)
        body = bytes(self._buffer[:begin])
        del self._buffer[:begin]
        return body

    def _find_mark(self, *, in_part: bool = False) -> tuple[int, int]:
        """Where the next mark begins, including the line end before it, and where it ends."""
        start = 0
        while (mark := self._search(self._buffer, start)) is None:
            start = max(0, len(self._buffer) - len(self._mark))
            self._fill(in_part=in_part)
        return mark

    def _search(self, data: bytes | bytearray, start: int) -> tuple[int, int] | None:
        # A regular expression would take a fifth of a core at a camera's frame rate.
        while (at := data.find(self._mark, start)) >= 0:
            begin = at
            while begin > 0 and data[begin - 1] == _DASH:
                begin -= 1
            if begin == 0 or data[begin - 1] in b"\r\n":
                for end in (b"\n", b"\r"):
                    begin -= data[max(0, begin - 1) : begin] == end
                return begin, at + len(self._mark)
            start = at + 1
        return None

    def _fill(self, *, in_part: bool = False) -> None:
        if len(self._buffer) > MAX_PART_BYTES:
            raise _too_large()
        piece = self._receive()
        if not piece:
            self.cut += in_part
            raise EOFError
        self._buffer += piece


def _too_large() -> SourceError:
    return SourceError(
        f"the stream sends more than {MAX_PART_BYTES // 2**20} MiB as one image",
        hint=_HINT,
    )
