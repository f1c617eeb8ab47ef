"""Text tables: columns aligned under their heads. The text is the same on a terminal and in a pipe."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["table_lines"]

#: Wider than any table, so that no cell is wrapped or cut; a terminal wraps long lines itself.
_WIDTH = 10_000


def table_lines(rows: Sequence[Sequence[str]], *, heads: Sequence[str] = (), numeric: Sequence[int] = ()) -> list[str]:
    """One line for the heads, if there are any, and one per row. Columns in ``numeric`` are aligned to the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    count = max(map(len, [heads, *rows]))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(heads))
    for index in range(count):
        table.add_column(heads[index] if heads else "", justify="right" if index in numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))  # as Text, brackets are not markup
    console = Console(width=_WIDTH, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]
