"""Text from outside cannot steer a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.core.text import printable


@given(st.text())
def test_what_is_shown_is_printable(text: str) -> None:
    """Every character shows as itself or is escaped, and printable text is unchanged."""
    shown = printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b31m", r"\x9b31m"),
        ("a\x7fb\x00", r"a\x7fb\x00"),
        ("gpj.\u202eexe", r"gpj.\u202eexe"),
        ("one\nerror: two", r"one\nerror: two"),
        ("\udcff.jpg", r"\udcff.jpg"),
        ("Größe, 猫 [bold]", "Größe, 猫 [bold]"),
    ],
)
def test_examples(text: str, shown: str) -> None:
    """C0, C1, DEL, marks of direction, line ends and bytes that are no text are escaped; letters of any script are not."""
    assert printable(text) == shown


def test_lines_are_kept_where_wanted() -> None:
    """A traceback keeps its line ends."""
    assert printable("a\n\x1bb", lines=True) == "a\n\\x1bb"
