"""Cuts a stream of multipart/x-mixed-replace (RFC 2046) into its parts, within bounds. Knows neither sockets nor images.

Cameras take liberties: a boundary with its dashes in the header or without, lengths that are wrong or missing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import NamedTuple

from edge_resnet.core.errors import SourceError

__all__ = ["MAX_PART_BYTES", "Part", "Parts"]

#: A JPEG of 50 million pixels at high quality; more than that between two boundaries is no image.
MAX_PART_BYTES = 32 * 2**20
_MAX_HEADER_BYTES = 16384
_DASH = ord("-")


class Part(NamedTuple):
    """``began_ns``: when its header was there, on the monotonic clock."""

    body: bytes
    began_ns: int


class Parts:
    """The parts of what ``receive`` returns piece by piece (empty at the end) between lines of ``boundary``.

    ``whole`` says of a body whether nothing is missing: one that is not may hold the next part, of which its length knew nothing.
    """

    def __init__(self, receive: Callable[[], bytes], boundary: str, whole: Callable[[bytes], bool]) -> None:
        #: Parts that were cut off or ran into the next one.
        self.cut = 0
        self._receive, self._whole = receive, whole
        word = boundary.strip().lstrip("-").encode("latin-1", "replace")
        if not word:
            raise SourceError(
                "the stream names no boundary between its images", hint="is it an MJPEG stream? a browser shows one"
            )
        self._mark = b"--" + word
        self._buffer = bytearray()

    def next(self) -> Part:
        """Wait for the next part. Raises EOFError at the end, SourceError where a part or its header exceeds what is sane."""
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
        """Drop what lies before a mark, and the mark."""
        del self._buffer[: self._find_mark()[1]]

    def _read_header(self) -> int | None:
        """The lines after a mark, up to an empty one; returns the length that they announce."""
        while (end := re.search(rb"\r?\n[ \t]*\r?\n", self._buffer)) is None:
            if self._buffer.startswith(b"--"):
                raise EOFError
            if len(self._buffer) > _MAX_HEADER_BYTES:
                raise SourceError("the stream sends a header without end", hint="is it an MJPEG stream? a browser shows one")
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
        # Not ours to judge, or the length is too short; either way the next mark is where to go on.
        del self._buffer[:length]
        return body

    def _read_to_mark(self) -> bytes:
        begin, _ = self._find_mark(in_part=True)
        body = bytes(self._buffer[:begin])
        del self._buffer[:begin]
        return body

    def _find_mark(self, *, in_part: bool = False) -> tuple[int, int]:
        """Where the next mark begins, its line's end before it included, and where it ends."""
        start = 0
        while (mark := self._search(self._buffer, start)) is None:
            start = max(0, len(self._buffer) - len(self._mark))
            self._fill(in_part=in_part)
        return mark

    def _search(self, data: bytes | bytearray, start: int) -> tuple[int, int] | None:
        # An expression for the same would take a fifth of a core at a camera's rate.
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
        hint="is it an MJPEG stream? a browser shows one",
    )
