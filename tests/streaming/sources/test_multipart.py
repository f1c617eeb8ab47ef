"""The parts of a multipart stream: independent of how it is received, and within limits whatever is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.core.errors import SourceError
from edge_resnet.streaming.sources.multipart import MAX_PART_BYTES, Parts


def _whole(body: bytes) -> bool:
    return body.startswith(b"<") and body.endswith(b">")


def _from(data: bytes, sizes: Iterator[int] | None = None) -> Callable[[], bytes]:
    """A ``receive`` function that returns ``data`` in pieces of the given sizes, then the rest."""
    rest = [data]

    def receive() -> bytes:
        size = next(sizes, len(rest[0])) if sizes is not None else len(rest[0])
        piece, rest[0] = rest[0][:size], rest[0][size:]
        return piece

    return receive


def _all(parts: Parts) -> list[bytes]:
    bodies: list[bytes] = []
    with suppress(EOFError):
        while True:
            bodies.append(parts.next().body)
    return bodies


_BODIES = st.lists(st.binary(max_size=40).map(lambda core: b"<" + core + b">"), max_size=5)


@given(
    _BODIES,
    st.booleans(),
    st.sampled_from([b"\r\n", b"\n"]),
    st.lists(st.integers(1, 30), max_size=60),
    st.sampled_from(["x7y", "--x7y"]),
)
def test_parts_do_not_depend_on_pieces(bodies: list[bytes], lengths: bool, end: bytes, sizes: list[int], boundary: str) -> None:
    """With or without lengths, with either line end, whole or in small pieces: every body arrives as it was sent."""
    bodies = [body for body in bodies if lengths or (b"--" not in body and not body.rstrip(b">").endswith((b"\r", b"\n")))]
    stream = b""
    for body in bodies:
        length = b"Content-Length: %d" % len(body) + end if lengths else b""
        stream += b"--x7y" + end + b"Content-Type: image/jpeg" + end + length + end + body + end
    parts = Parts(_from(stream + b"--x7y--" + end + end, iter(sizes)), boundary, _whole)
    assert _all(parts) == bodies
    assert parts.cut == 0


@given(
    st.lists(
        st.sampled_from([b"--b", b"\r\n", b"\n", b"Content-Length: 5", b"Content-Length: 99999999999", b"<abc>", b"<", b"--"]),
        max_size=40,
    )
)
def test_any_stream_ends(pieces: list[bytes]) -> None:
    """However boundaries are scattered, the stream ends or is refused, and nothing else is raised."""
    try:
        _all(Parts(_from(b"".join(pieces)), "b", _whole))
    except SourceError as error:
        assert error.hint  # noqa: PT017 - either outcome is right, each with its own demand


def test_a_body_shorter_than_its_length() -> None:
    """It is dropped and counted, and the part that follows is delivered."""
    stream = b"--b\r\nContent-Length: 30\r\n\r\n<cut\r\n--b\r\nContent-Length: 7\r\n\r\n<whole>\r\n--b--\r\n"
    parts = Parts(_from(stream), "b", _whole)
    assert _all(parts) == [b"<whole>"]
    assert parts.cut == 1


def test_a_stream_that_breaks_off() -> None:
    """The last, incomplete part is not delivered and is counted."""
    parts = Parts(_from(b"--b\r\nContent-Length: 5\r\n\r\n<one>\r\n--b\r\nContent-Length: 50\r\n\r\n<tw"), "b", _whole)
    assert _all(parts) == [b"<one>"]
    assert parts.cut == 1


@pytest.mark.parametrize("begin", [b"", b"--b\r\n\r\n", b"--b\r\nX: "])
def test_what_never_ends_is_refused(begin: bytes) -> None:
    """Neither a preamble, nor a body, nor a header without an end is buffered beyond its limit."""
    taken = 0

    def receive() -> bytes:
        nonlocal taken
        piece = begin if taken == 0 and begin else bytes(1 << 18)
        taken += len(piece)
        return piece

    with pytest.raises(SourceError, match=r"more than 32 MiB|header without an end"):
        Parts(receive, "b", _whole).next()
    assert taken < MAX_PART_BYTES + (1 << 20)


@pytest.mark.parametrize("boundary", ["", "--", "  "])
def test_no_boundary(boundary: str) -> None:
    """A stream that declares none is refused."""
    for stream in (b"", b"<image>\r\n<image>", b"--\r\n\r\n<image>"):
        with pytest.raises(SourceError, match="declares no boundary"):
            Parts(_from(stream), boundary, _whole).next()


@given(_BODIES.filter(bool), st.integers(-40, 40), st.lists(st.integers(1, 30), max_size=60))
def test_a_wrong_length_loses_nothing(bodies: list[bytes], off: int, sizes: list[int]) -> None:
    """Announced as too long, too short or empty: each part is taken up to the next boundary."""
    bodies = [body.replace(b"<", b"[").replace(b">", b"]") for body in bodies]
    bodies = [b"<" + body.replace(b"--", b"__").replace(b"\r", b" ").replace(b"\n", b" ") + b">" for body in bodies]
    stream = b"".join(b"--x7y\r\nContent-Length: %d\r\n\r\n%s\r\n" % (max(0, len(body) + off), body) for body in bodies) + bytes(
        60
    )
    parts = Parts(_from(stream + b"\r\n--x7y--\r\n", iter(sizes)), "x7y", _whole)
    assert _all(parts)[: len(bodies) - 1] == bodies[:-1]


@pytest.mark.parametrize("length", [b"0", b"3", b"33000000", b"99999999999999999999", b"-5"])
def test_a_length_that_cannot_be(length: bytes) -> None:
    """It is not waited for."""
    stream = b"--b\r\nContent-Length: " + length + b"\r\n\r\n<one>\r\n--b\r\nContent-Length: 5\r\n\r\n<two>\r\n--b--\r\n"
    assert _all(Parts(_from(stream), "b", _whole)) == [b"<one>", b"<two>"]


@pytest.mark.parametrize(
    ("declared", "line"), [("b", b"b"), ("b", b"--other"), ("", b"--b"), ("--b", b"----b"), ("b--", b"--b--"), ("b", b"--b")]
)
def test_the_boundary_is_that_of_the_stream(declared: str, line: bytes) -> None:
    """Where the first line is another boundary than the declared one, or has no dashes, it counts."""
    stream = (line + b"\r\nContent-Type: image/jpeg\r\n\r\n<one>\r\n") * 3 + line
    assert _all(Parts(_from(stream), declared, _whole)) == [b"<one>"] * 3


def test_a_boundary_without_a_line_end_before_it() -> None:
    """It is recognised after the bytes that end every body."""
    stream = b"--b\r\n\r\n<one>>--b\r\n\r\n<--b>--b\r\n\r\n<two>>--b--\r\n"
    assert _all(Parts(_from(stream), "b", _whole, ending=b">>")) == [b"<one>>", b"<--b>--b\r\n\r\n<two>>"]
