"""The listing of a plan's layers in TensorRT's verbose log → the JSON that its engine inspector would give.

The inspector needs a Runtime, and that a GPU; the log does not. Does not know what the fields mean, and loads no TensorRT.
"""

from __future__ import annotations

import json
import re

__all__ = ["listing_of_log"]

_KEY = re.compile(r"(?:, | ?)([A-Z][\w/]*):(?: |$)")
#: A text ends before the next field, before the end of its record, or with the line.
_TEXT = re.compile(r".*?(?=, [A-Z][\w/]*:(?: |$)| \}|$)")
_NUMBERS = re.compile(r"\[([-\d,]*)\]")
#: The last field of a layer: its text holds brackets and colons.
_LAST = "Metadata"


def listing_of_log(text: str) -> str | None:
    """The JSON of a listing that begins with ``Layers:``; None for another text, and for a form that is not known."""
    head, _, rest = text.partition("\n")
    if head.strip() != "Layers:":
        return None
    sections: dict[str, list[dict[str, object]]] = {"Layers": [], "I/O Tensors": []}
    into: list[dict[str, object]] | None = sections["Layers"]
    try:
        for line in rest.split("\n"):
            if line.endswith(":") and not line.startswith(" "):
                into = sections.get(line[:-1])
            elif line.strip() and into is not None:
                into.append(_fields(line, 0)[0])
    except ValueError:
        return None
    return json.dumps(sections) if sections["Layers"] else None


def _fields(text: str, start: int) -> tuple[dict[str, object], int]:
    """The fields from ``start`` on, and where they end. Raises ValueError if there is none."""
    found: dict[str, object] = {}
    position = start
    while key := _KEY.match(text, position):
        if key[1] == _LAST:
            found[_LAST], position = text[key.end() :], len(text)
        else:
            found[key[1]], position = _value(text, key.end())
    if not found:
        raise ValueError(f"no field in {text[start:]!r}")
    return found, position


def _value(text: str, start: int) -> tuple[object, int]:
    """A list of numbers, a list of records, or a text; and where it ends."""
    if numbers := _NUMBERS.match(text, start):
        return [int(number) for number in numbers[1].split(",") if number], numbers.end()
    if not text.startswith("[ {", start):
        found = _TEXT.match(text, start)
        assert found is not None
        return found[0], found.end()
    records: list[object] = []
    position = start + len("[")
    while text.startswith((" { ", ", { "), position):
        record, position = _fields(text, position + len(" {") + text.startswith(",", position))
        records.append(record)
        position += len(" }")
    if not text.startswith("]", position):
        raise ValueError(f"a list without an end in {text[start:]!r}")
    return records, position + 1
