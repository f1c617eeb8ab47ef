"""Derives hostile inputs from valid ones: damaged bytes, extreme numbers, repeated and spliced parts. Does not know the formats.

Every input follows from a seed, so a failure is repeated by its number. Coverage-guided fuzzers find more per input, but need a
compiler's instrumentation; these inputs need nothing, and run in the tests.
"""

from __future__ import annotations

import io
import random
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Sequence

__all__ = ["mutated", "mutated_zip"]

#: No input is longer than this, but by what one insertion adds.
MAX_BYTES = 200_000
#: What parsers stumble over in any format.
_PIECES = (
    *(
        b"\x00",
        b"\xff",
        b"\xff" * 8,
        b"\x1b[31m",
        b"\xc3\x28",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\xe2\x80\xae",
        b"\r\n",
        b"\r\n\r\n",
    ),
    *(
        b"-1",
        b"0",
        b"1e400",
        b"-0.0",
        b"NaN",
        b"Infinity",
        b"9" * 30,
        b"9" * 5000,
        b"1" + b"0" * 15,
        b"2147483648",
        b"null",
        b"true",
    ),
    *(
        b"[" * 2000,
        b'{"a":' * 2000,
        b'"',
        b"'",
        b"\\",
        b"\\u0000",
        b"\\ud800",
        b"%",
        b"%00",
        b"%s",
        b"..",
        b"/",
        b"a" * 5000,
        b"=" * 300,
    ),
)
_BORDERS = (0, 1, -1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF)


def mutated(seeds: Sequence[bytes], tokens: Sequence[bytes], seed: int) -> bytes:
    """One to eight mutations of one of ``seeds``; ``tokens`` are words of the format. The same ``seed`` gives the same bytes."""
    chance = random.Random(seed)
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 1, 2, 2, 4, 8))):
        _MUTATIONS[chance.randrange(len(_MUTATIONS))](data, chance, seeds, tokens)
        del data[MAX_BYTES:]
    return bytes(data)


def mutated_zip(seeds: Sequence[bytes], tokens: Sequence[bytes], seed: int) -> bytes:
    """As ``mutated``, but in two of three cases inside a member of the archive, which stays valid around it."""
    chance = random.Random(seed)
    if chance.random() < 1 / 3:
        return mutated(seeds, tokens, seed)
    with zipfile.ZipFile(io.BytesIO(chance.choice([one for one in seeds if one[:2] == b"PK"]))) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    chosen = chance.randrange(len(members))
    name, content = members[chosen]
    how = chance.random()
    if how < 0.1:
        name = mutated([name.encode()], tokens, seed).decode("latin-1").replace("\x00", "")[:60000] or "x"
    elif how < 0.2:
        members.append(members[chosen])
    elif how < 0.3:
        del members[chosen]
        chosen = -1
    else:
        content = mutated([content], tokens, seed)
    if chosen >= 0:
        members[chosen] = (name, content)
    packed = io.BytesIO()
    method = chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with warnings.catch_warnings(), zipfile.ZipFile(packed, "w", method) as archive:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for one, bytes_ in members:
            archive.writestr(one, bytes_)
    return packed.getvalue()


_Mutation = Callable[[bytearray, random.Random, Sequence[bytes], Sequence[bytes]], None]


def _slice(data: bytearray, chance: random.Random, longest: int = 64) -> slice:
    start = chance.randrange(len(data) + 1)
    return slice(start, start + chance.randint(0, longest))


def _flip(data: bytearray, chance: random.Random, *_: Sequence[bytes]) -> None:
    for _again in range(chance.choice((1, 1, 3, 20)) if data else 0):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _replace(data: bytearray, chance: random.Random, *_: Sequence[bytes]) -> None:
    where = _slice(data, chance, 8)
    data[where] = chance.randbytes(len(data[where]))


def _delete(data: bytearray, chance: random.Random, *_: Sequence[bytes]) -> None:
    del data[_slice(data, chance, chance.choice((1, 8, 1000)))]


def _cut(data: bytearray, chance: random.Random, *_: Sequence[bytes]) -> None:
    del data[chance.randrange(len(data) + 1) :]


def _repeat(data: bytearray, chance: random.Random, *_: Sequence[bytes]) -> None:
    where = _slice(data, chance, chance.choice((4, 64, 1000)))
    data[where] = data[where] * chance.choice((2, 3, 50))


def _insert(data: bytearray, chance: random.Random, _: Sequence[bytes], tokens: Sequence[bytes]) -> None:
    at = chance.randrange(len(data) + 1)
    data[at:at] = chance.choice(tokens) if tokens and chance.random() < 0.6 else chance.choice(_PIECES)


def _overwrite(data: bytearray, chance: random.Random, _: Sequence[bytes], tokens: Sequence[bytes]) -> None:
    piece = chance.choice(tokens) if tokens and chance.random() < 0.6 else chance.choice(_PIECES)
    at = chance.randrange(len(data) + 1)
    data[at : at + len(piece)] = piece


def _splice(data: bytearray, chance: random.Random, seeds: Sequence[bytes], _: Sequence[bytes]) -> None:
    other = chance.choice(seeds)
    at = chance.randrange(len(other) + 1)
    data[_slice(data, chance)] = other[at : at + chance.choice((4, 64, 4000))]


def _border(data: bytearray, chance: random.Random, *_: Sequence[bytes]) -> None:
    """A number at the border of its width, in either byte order."""
    kind = chance.choice(("<H", ">H", "<I", ">I", "<Q", ">Q", "B"))
    width = struct.calcsize(kind)
    number = chance.choice(_BORDERS) & ((1 << (8 * width)) - 1)
    at = chance.randrange(len(data) + 1)
    data[at : at + width] = struct.pack(kind, number)


def _number(data: bytearray, chance: random.Random, *_: Sequence[bytes]) -> None:
    """Another number in place of one that stands there in digits."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", data[:20_000]))
    if found:
        one = chance.choice(found)
        data[one.start() : one.end()] = chance.choice(
            (b"-1", b"0", b"1e400", b"NaN", b"9" * 25, b"1" + b"0" * 15, b"0.5", b"65536", b"true")
        )


def _word(data: bytearray, chance: random.Random, *_: Sequence[bytes]) -> None:
    """A value in quotation marks is replaced by one of another type, or by another string."""
    found = list(re.finditer(rb'"[^"\\]{0,80}"', data[:20_000]))
    if found:
        one = chance.choice(found)
        values = (b"null", b"[]", b"{}", b"0", b'""', b'"\\u0000"', b'"../x"', b'"/dev/zero"', b'"' + b"a" * 300 + b'"', b"1e999")
        data[one.start() : one.end()] = chance.choice(values)


_MUTATIONS: tuple[_Mutation, ...] = (
    *(_flip, _replace, _delete, _cut, _repeat, _insert, _overwrite, _splice, _border, _number, _word),
)
