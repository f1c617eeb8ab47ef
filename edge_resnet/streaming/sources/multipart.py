"""Splits a stream of multipart/x-mixed-replace (RFC 2046) into its parts, within limits. Knows neither sockets nor images.

Cameras deviate from the standard: boundaries in the header with or without their dashes, or other ones than in the stream, no
line end before them, lengths that are wrong or missing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from edge_resnet.core.errors import SourceError

__all__ = ["MAX_PART_BYTES", "Part", "Parts"]

#: A JPEG of 50 million pixels at high quality: more bytes between two boundaries are not an image.
MAX_PART_BYTES = 32 * 2**20
_MAX_HEADER_BYTES = 16384
_MAX_LINE_BYTES = 512
_DASH = ord("-")
_HINT = "check in a browser that it is an MJPEG stream"


class Part(NamedTuple):
    """``began_ns``: when its header had arrived, on the monotonic clock."""

    body: bytes
    began_ns: int


class Parts:
    """The parts between lines of ``boundary``. ``receive`` returns the stream piece by piece, and empty bytes at its end.

    If the stream's first line is another boundary, that one counts; ``boundary`` may then be empty. ``whole`` says whether a body
    is complete: if one of the announced length is not, the body up to the next boundary is taken instead. ``ending``: with these
    bytes a body ends; a boundary may follow them without a line end.
    """

    def __init__(
        self, receive: Callable[[], bytes], boundary: str, whole: Callable[[bytes | bytearray], bool], *, ending: bytes = b""
    ) -> None:
        #: Parts that were cut off or ran into the next one.
        self.cut = 0
        self._receive, self._whole, self._ending = receive, whole, ending
        self._name = boundary.strip().lstrip("-").encode("latin-1", "replace")
        #: What is searched for; empty until the first line has arrived.
        self._mark = b""
        self._buffer = bytearray()

    def next(self) -> Part:
        """Wait for the next part.

        Raises EOFError at the end, SourceError if there is no boundary, or if a part or its header is too long.
        """
        if not self._mark:
            self._mark = self._first_mark()
        self._skip_to_mark()
        while True:
            length = self._read_header()
            began_ns = time.monotonic_ns()
            body = self._read_body(length)
            if body is not None:
                return Part(body, began_ns)
            self.cut += 1
            self._skip_to_mark()

    def _first_mark(self) -> bytes:
        """The boundary as the first line of the stream has it, else as it was declared."""
        with suppress(EOFError):
            while re.match(rb"[\r\n]*[^\r\n]+[\r\n]", self._buffer) is None and len(self._buffer) < _MAX_LINE_BYTES:
                self._fill()
        line = bytes(self._buffer[: 2 * _MAX_LINE_BYTES]).lstrip(b"\r\n").replace(b"\r", b"\n").partition(b"\n")[0].rstrip()
        if self._name and line == self._name:
            return self._name  # without its dashes
        other = line.lstrip(b"-")
        if line.startswith(b"--") and 0 < len(other) <= _MAX_LINE_BYTES and not (self._name and other.startswith(self._name)):
            return b"--" + other
        if not self._name:
            raise SourceError("the stream declares no boundary between its images", hint=_HINT)
        return b"--" + self._name

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
        length = found.group(1)
        return int(length) if len(length) <= 9 and int(length) <= MAX_PART_BYTES else None

    def _read_body(self, length: int | None) -> bytes | None:
        """The body, up to the next mark if its length is unknown or wrong; None if it is not whole there and there is more."""
        searched, marked = 0, False
        while length:
            if len(self._buffer) >= length and self._whole(self._buffer[:length]):
                return self._take(length)
            if not marked and (mark := self._search(self._buffer, searched)) is not None:
                if self._whole(self._buffer[: mark[0]]):
                    return self._take(mark[0])
                marked = True  # by chance in a longer body, or this one was cut short
            if len(self._buffer) >= length:
                if marked:
                    return None
                break
            searched = max(searched, len(self._buffer) - len(self._mark))
            self._fill(in_part=True)
        return self._take(self._find_mark(in_part=True)[0])

    def _take(self, length: int) -> bytes:
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
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
            if self._ending and data[max(0, begin - len(self._ending)) : begin] == self._ending:
                return begin, at + len(self._mark)
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
