"""Class names read from a file in any usual form: lines, numbered lines, CSV, JSON, a Python dict.

Does not know about networks.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.core.files import read_limited
from edge_resnet.images.classes import imagenet_wordnet_ids

__all__ = ["MAX_LABEL_BYTES", "named_classes", "read_labels"]

#: Larger than any list of class names: ImageNet-21k's has one mebibyte.
MAX_LABEL_BYTES = 16 * 2**20
_HINT = "a UTF-8 text file with a class name per line, or JSON"
_NUMBERED = re.compile(r"(\d{1,9})\s*[:,;\t]\s*(\S.*)")
#: Forms that are numbered only if their numbers are 0 to n-1, each once: a name may begin or end with a number.
_SPACED = re.compile(r"(?P<index>\d{1,9})(?:[.)]?\s+|=)(?P<name>\S.*)")
_NAME_FIRST = re.compile(r"(?P<name>.*\S)\s*[,;\t:=]\s*(?P<index>\d{1,9})")
#: An entry of a Python dict: the index, a colon, and a string literal.
_ENTRY = re.compile(r"""\s*(\d{1,9})\s*:\s*('(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")\s*(?:,|$)""")
_LINE = re.compile(r"\r\n|\n|\r")  # and no other: str.splitlines would cut a name at U+2028 or U+0085
#: The first line of a CSV.
_HEAD = re.compile(r"[A-Za-z_ ]+[,;\t][A-Za-z_ ]+")
#: A line that is no JSON though it begins with a bracket.
_BRACKETED = re.compile(r"""\[[^][{}"',\n]*\]""")
_SYNSET = re.compile(r"(n\d{8})[\s,]+(\S.*)")


def named_classes(labels: Sequence[str] | None) -> tuple[str, ...] | None:
    """The names that a program hands in, one per class. Raises ConfigError for text, whose letters would be names, or a path."""
    if isinstance(labels, str | os.PathLike):
        hint = f"for a file: labels=open({str(labels)!r}, encoding='utf-8').read().splitlines()"
        raise ConfigError(f"labels is {labels!r}, not a list of names", hint=hint)
    return None if labels is None else tuple(labels)


def read_labels(path: Path) -> tuple[str, ...]:
    """The names of the classes in the order of their indices.

    The file is UTF-8, or UTF-16 with a byte-order mark, of at most 16 MiB: a name per line; lines such as ``0: tench``,
    ``0,tench``, ``0 tench`` or ``tench,0``, in any order; a JSON list; a JSON object or Python dict of index → name, of
    index → [WordNet id, name], or of name → index. WordNet ids before the names are left out where they are ImageNet's in order,
    which are known, and kept otherwise.

    Raises DataError if the file cannot be read, an index is missing or given twice, a name is empty, there are fewer than two
    classes, or the names are TensorFlow's 1001 with a background class.
    """
    text = _decoded(path, read_limited(path, MAX_LABEL_BYTES)).strip()
    if "\0" in text:
        raise DataError(f"{path} is not text: it contains zero bytes", hint="save it as UTF-8; UTF-16 needs a byte-order mark")
    if text.startswith(("[", "{")):
        names = _from_structure(path, text)
    else:
        names = _from_lines(path, [line for part in _LINE.split(text) if (line := part.strip())])
    names = tuple(" ".join(_LINE.split(name)).strip() for name in names)  # in JSON a name may hold line ends
    if "" in names:
        raise DataError(f"{path} has no name for class {names.index('')}", hint=_HINT)
    if len(names) < 2:
        raise DataError(f"{path} names {len(names)} classes, at least 2 are needed", hint=_HINT)
    if len(names) == 1001 and names[0].casefold() in ("background", "dummy", "unknown", "__background__"):
        raise DataError(
            f"{path} has 1001 labels, the first of them {names[0]!r}: TensorFlow counts ImageNet's classes so",
            hint="remove the first line: torchvision's networks have 1000 classes and no background",
        )
    return _without_known_ids(names)


def _decoded(path: Path, content: bytes) -> str:
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        hint = f"save it as UTF-8, for example with iconv -f latin1 -t utf-8 {path.name}"
        raise DataError(f"{path}, line {line} is not {encoding.removesuffix('-sig').upper()} text", hint=hint) from error


def _from_lines(path: Path, lines: Sequence[str]) -> tuple[str, ...]:
    """Plain lines, or numbered ones if every line but perhaps the first, a head, is numbered."""
    matches = [_NUMBERED.fullmatch(line) for line in lines]
    head = bool(matches) and matches[0] is None and _HEAD.fullmatch(lines[0]) is not None
    numbered = [match for match in matches[head:] if match is not None]
    if len(numbered) <= len(lines) / 2:
        return _loosely_numbered(lines) or tuple(lines)
    if len(numbered) < len(lines) - head:
        raise DataError(f"{path}: {lines[matches.index(None, head)][:40]!r} has no number, as other lines have", hint=_HINT)
    return _ordered(path, [(int(match[1]), match[2].strip().strip('"')) for match in numbered])


def _loosely_numbered(lines: Sequence[str]) -> tuple[str, ...]:
    """The names in lines such as ``0 tench``, ``0. tench`` or ``tench,0``, after a head or none; empty if each line is a name."""
    for form in (_SPACED, _NAME_FIRST):
        for numbered in (lines, lines[1:] if lines and _HEAD.fullmatch(lines[0]) else ()):
            matches = [match for line in numbered if (match := form.fullmatch(line)) is not None]
            names = {int(match["index"]): match["name"].strip().strip('"') for match in matches}
            if matches and len(matches) == len(numbered) and sorted(names) == list(range(len(numbered))):
                return tuple(names[index] for index in range(len(names)))
    return ()


def _from_structure(path: Path, text: str) -> tuple[str, ...]:
    """A JSON list or object, or a Python dict; a text of lines may also begin with a bracket."""
    try:
        content: Any = json.loads(text, object_pairs_hook=partial(_object, path))
    except RecursionError as error:
        raise DataError(f"{path} is nested too deeply for a list of names", hint=_HINT) from error
    except ValueError as error:
        if text[0] == "{" and (entries := _dict_entries(text)) is not None:
            return _ordered(path, entries)
        if _BRACKETED.match(text):
            return _from_lines(path, [line.strip() for line in _LINE.split(text) if line.strip()])
        raise DataError(f"{path} is cut off or not JSON: {error}", hint=_HINT) from error
    if isinstance(content, list):
        return tuple(_name(path, entry) for entry in content)
    if all(type(value) is int for value in content.values()):
        return _ordered(path, [(index, name) for name, index in content.items()])
    if not all(key.isascii() and key.isdecimal() and len(key) < 10 for key in content):
        raise DataError(f"{path} is JSON, but maps neither indices to names nor names to indices", hint=_HINT)
    return _ordered(path, [(int(key), _name(path, value)) for key, value in content.items()])


def _object(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Python's own reader would take the last of two values with the same key."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise DataError(f"{path} is JSON with the same key twice", hint=_HINT)
    return content


def _dict_entries(text: str) -> list[tuple[int, str]] | None:
    """The entries of a Python dict of index → string; None if the text is anything else. Nothing is evaluated but one string."""
    inner, at, entries = text[1:].rstrip().removesuffix("}"), 0, []
    while match := _ENTRY.match(inner, at):
        try:
            entries.append((int(match[1]), str(ast.literal_eval(match[2]))))
        except (SyntaxError, ValueError):
            return None
        at = match.end()
    return entries if entries and not inner[at:].strip() else None


def _name(path: Path, entry: object) -> str:
    """A name, or the WordNet id and the name of Keras's ``imagenet_class_index.json``."""
    parts = entry if isinstance(entry, list) else [entry]
    if not 1 <= len(parts) <= 2 or not all(isinstance(part, str) for part in parts):
        raise DataError(f"{path} is JSON, but {str(entry)[:40]!r} is no class name", hint=_HINT)
    return " ".join(map(str, parts))


def _ordered(path: Path, entries: Sequence[tuple[int, str]]) -> tuple[str, ...]:
    """The names by index. An index that is missing or given twice would move all names after it."""
    names = dict(entries)
    if len(names) < len(entries) or sorted(names) != list(range(len(names))):
        lowest, highest = min(names, default=0), max(names, default=0)
        raise DataError(
            f"{path} numbers {len(entries)} classes from {lowest} to {highest}, not from 0 to {len(entries) - 1}",
            hint="count classes from 0, each once, or leave the numbers out",
        )
    return tuple(names[index] for index in range(len(names)))


def _without_known_ids(names: tuple[str, ...]) -> tuple[str, ...]:
    pairs = [match for name in names if (match := _SYNSET.fullmatch(name)) is not None]
    if tuple(pair[1] for pair in pairs) != imagenet_wordnet_ids() or len(pairs) < len(names):
        return names
    return tuple(pair[2] for pair in pairs)
