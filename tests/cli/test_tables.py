"""Text tables: aligned, complete and free of markup."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_resnet.cli.tables import table_lines

_cells = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)


def test_columns_are_aligned_under_their_heads() -> None:
    """Text to the left, numbers to the right, two spaces between, and none at the end of a line."""
    lines = table_lines([["a", "10.5", "x"], ["longer", "9", ""]], heads=("", "ms", "note"), numeric=(1,))
    assert lines == ["          ms  note", "a       10.5  x", "longer     9"]


def test_long_cells_are_neither_cut_nor_wrapped() -> None:
    """A row stays one line however long it is."""
    (line,) = table_lines([["x" * 300, "y" * 300]])
    assert line == f"{'x' * 300}  {'y' * 300}"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(_cells, _cells), min_size=1, max_size=5))
def test_cells_are_not_markup(rows: list[tuple[str, str]]) -> None:
    """Brackets and colons stay as they are, and each row is one line."""
    lines = table_lines(rows)
    assert [tuple(line.split()) for line in lines] == rows
