"""Text from outside, made fit to be shown: a label, a file's name or a server's words must not steer the terminal."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str, *, lines: bool = False) -> str:
    """The text with every character escaped, as Python writes it, that does not show as itself.

    These are control characters (C0, C1, DEL), with which a terminal is steered, line ends unless ``lines``, characters that
    change the direction or the width of what follows, and bytes of a file's name that are not text. A rich console still takes
    brackets for markup: give it ``rich.text.Text``.
    """
    return "".join(
        letter if letter.isprintable() or (lines and letter == "\n") else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )
