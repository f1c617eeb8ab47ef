"""Class folders matched with a network's labels: by name, by WordNet id, by class index, and by order only where no name matches.

Does not know about files: it takes the names of folders.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path

from edge_resnet.core.errors import DataError

__all__ = ["class_indices", "imagenet_wordnet_ids", "matches_any", "same_classes"]

_log = logging.getLogger(__name__)

_WORDNET_ID = re.compile(r"n\d{8}\b")
#: A number before a name, as in ``00 airplane``.
_NUMBER = re.compile(r"\d+[ .]+(?=\D)")
#: Labels by which ImageNet's 1000 classes are known, however their synonyms are written.
_IMAGENET_SAMPLE = {0: "tench", 1: "goldfish", 217: "english springer", 482: "cassette player", 574: "golf ball"}
_NAMED = 5


def class_indices(folder: Path, names: Sequence[str], label_names: Sequence[str]) -> dict[str, int]:
    """The class index of each of the class folders ``names`` of ``folder``, for a network with the labels ``label_names``.

    Names are compared with whole labels, with single synonyms and with WordNet ids, which are known for ImageNet's labels also
    where these do not have them; case, ``_`` and ``-``, the composition of accents and a number before the name do not matter.
    Where no name matches, folders named by plain integers are class indices, and as many folders as labels are numbered in the
    order of their names, with a warning. Raises DataError for everything else: a name that matches is never overruled, and one
    that does not match is not guessed.
    """
    known = _spellings(label_names)
    matched = {name: index for name in names if (index := _match(name, known)) is not None}
    unknown = [name for name in names if name not in matched]
    if matched:
        if unknown:
            raise _some_unknown(folder, unknown, [label for i, label in enumerate(label_names) if i not in matched.values()])
        _warn_of_shared(folder, matched, label_names)
        return matched
    if all(map(_is_index, names)):
        return _numbered(folder, names, len(label_names))
    if len(names) == len(label_names):
        order = f"{names[0]} is {label_names[0]}, …, {names[-1]} is {label_names[-1]}"
        _log.warning("no class folder of %s matches a label: they are numbered in the order of their names (%s)", folder, order)
        return {name: index for index, name in enumerate(names)}
    ours = _list(label_names, 3)
    raise DataError(
        f"class folder {folder / names[0]} matches none of the network's {len(label_names)} labels ({ours}), nor does another",
        hint="name the folders by label or by class index, or write a CSV with file and class_index",
    )


def same_classes(names: Sequence[str], label_names: Sequence[str]) -> bool:
    """Whether ``names`` are the network's classes in the network's order, in whatever spelling ``class_indices`` knows.

    Labels that a network without names has, ``class 0`` and so on, are the same as any names of that number.
    """
    if len(names) != len(label_names):
        return False
    if tuple(names) == tuple(label_names) or all(label == f"class {index}" for index, label in enumerate(label_names)):
        return True
    known = _spellings(label_names)
    return all(_match(name, known) == index for index, name in enumerate(names))


def matches_any(names: Sequence[str], label_names: Sequence[str]) -> bool:
    """Whether one of the folders' ``names`` is that of a label."""
    known = _spellings(label_names)
    return any(_match(name, known) is not None for name in names)


def _match(name: str, known: Mapping[str, int]) -> int | None:
    """The class of a folder's name in the spellings ``known``; None where there is none."""
    plain = _plain(name)
    wordnet_id = _WORDNET_ID.match(plain)
    bare = _NUMBER.sub("", plain, count=1)
    spellings = (plain, wordnet_id[0] if wordnet_id else "", _without_id(plain), bare, _without_id(bare))
    return next((known[spelling] for spelling in spellings if spelling and spelling in known), None)


@cache
def imagenet_wordnet_ids() -> tuple[str, ...]:
    """The WordNet ids of ImageNet's 1000 classes (ILSVRC 2012) in the order of their indices."""
    text = (resources.files(__package__) / "imagenet_synsets.txt").read_text(encoding="ascii")
    return tuple(text.split())


def _spellings(label_names: Sequence[str]) -> dict[str, int]:
    """Spelling → index, the most specific kind first; what two classes share in one kind is left out."""
    whole = [[_plain(label)] for label in label_names]
    synonyms = [[_plain(part) for part in _without_id(_plain(label)).split(",")] for label in label_names]
    wordnet_ids = [_WORDNET_ID.findall(label[0])[:1] for label in whole]
    if _is_imagenet([names[0] for names in synonyms]):
        wordnet_ids = [[wordnet_id] for wordnet_id in imagenet_wordnet_ids()]
    names = [[_without_id(label[0])] for label in whole]
    known: dict[str, int] = {}
    for kind in (whole, [parts[:1] for parts in synonyms], wordnet_ids, names, synonyms):
        classes: defaultdict[str, set[int]] = defaultdict(set)
        for index, spellings in enumerate(kind):
            for spelling in spellings:
                classes[spelling].add(index)
        for spelling, indices in classes.items():
            if spelling and len(indices) == 1:
                known.setdefault(spelling, *indices)
    return known


def _is_imagenet(names: Sequence[str]) -> bool:
    return len(names) == 1000 and all(names[index] == name for index, name in _IMAGENET_SAMPLE.items())


def _plain(label: str) -> str:
    """A label without what does not matter. Names of files from macOS spell é as two characters, labels mostly as one."""
    return " ".join(unicodedata.normalize("NFKC", label.casefold()).replace("_", " ").replace("-", " ").split())


def _without_id(plain: str) -> str:
    return _WORDNET_ID.sub("", plain, count=1).strip() if _WORDNET_ID.match(plain) else plain


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


def _numbered(folder: Path, names: Sequence[str], classes: int) -> dict[str, int]:
    """Folders named by class index. Folders 1 to n may be counted from 1, which nothing but their number can show."""
    indices = {name: int(name) for name in names}
    highest = max(indices.values())
    if highest >= classes:
        raise DataError(
            f"class folder {folder / max(names, key=int)} is no class of the network, which knows 0..{classes - 1}",
            hint="name the folders by label, or count classes from 0",
        )
    if sorted(indices.values()) == list(range(1, highest + 1)):
        _log.warning("the class folders of %s are taken as the classes 1 to %d; there is no folder 0", folder, highest)
    return indices


def _some_unknown(folder: Path, unknown: Sequence[str], free: Sequence[str]) -> DataError:
    count = "class folder" if len(unknown) == 1 else f"{len(unknown)} class folders"
    verb = "matches" if len(unknown) == 1 else "match"
    without = f"; labels without a folder: {_list(free, _NAMED)}" if free else ""
    return DataError(
        f"{count} of {folder} {verb} none of the network's labels, which others match: {_list(unknown, _NAMED)}",
        hint=f"rename them to labels, or move them out of the folder{without}",
    )


def _warn_of_shared(folder: Path, matched: Mapping[str, int], label_names: Sequence[str]) -> None:
    """Two folders of one class are as often two spellings as they are a mistake."""
    counts = Counter(matched.values())
    shared = [name for name, index in matched.items() if counts[index] > 1]
    if shared:
        _log.warning(
            "class folders of %s that are the same class, %s: %s", folder, label_names[matched[shared[0]]], _list(shared, _NAMED)
        )


def _list(names: Sequence[str], count: int) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
