"""The class of commands that have options of several values: these may be separated by spaces or by commas."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from typer.core import TyperCommand

__all__ = ["Command"]


class Command(TyperCommand):
    """Reads ``--mean .485 .456 .406``, ``--mean .485,.456,.406``, ``--mean=.485,.456,.406`` and ``--mean ".485, .456, .406"``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Separate the values of such options before the parser counts them."""
        wide = {name: option.nargs for option in self.params for name in option.opts if name[:1] == "-" and option.nargs > 1}
        return super().parse_args(ctx, _separated(args, wide))


def _separated(words: Sequence[str], wide: Mapping[str, int]) -> list[str]:
    """``words`` with a value a word after each option of ``wide``, which holds the number of values."""
    found: list[str] = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        name, sign, value = word.partition("=")
        if word == "--":
            return [*found, word, *waiting]
        if name not in wide:
            found.append(word)
            continue
        values = _values(value) if sign else []
        while len(values) < wide[name] and waiting and not waiting[0].startswith("--"):
            values += _values(waiting.pop(0))
        found += [name, *values]
    return found


def _values(text: str) -> list[str]:
    return [value for value in re.split(r"[\s,]+", text) if value]
