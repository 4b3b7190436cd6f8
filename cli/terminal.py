"""Tables on a terminal, drawn with rich: coloured states, and what becomes of a table that is wider than the window.

Knows no verb. A table says which of its columns may go (`fit`) or that its last one may be cut (`cut`); one that says
neither is folded, and when that leaves nothing to read, each row is printed as names and values. Imported only when
standard output is a terminal.
"""

from __future__ import annotations

import dataclasses

from rich.console import Console
from rich.table import Table as Drawn
from rich.text import Text

from .output import Fields, Table, aligned, cell, note, print_fields, widths

GAP = 2
"""Spaces between two columns."""

LEAST = 20
"""A cut column keeps this many characters, however narrow the window is."""

_STYLES = {
    "online": "green",
    "running": "green",
    "ok": "green",
    "primary": "green",
    "pending online": "yellow",
    "pending offline": "yellow",
    "blocked": "yellow",
    "offline": "red",
    "failed": "red",
    "damaged": "red",
    "killed": "red",
}


def print_table(table: Table) -> None:
    """Print a table for the window there is."""
    console = Console()
    shown, left_out = fitted(table, console.width)
    if table.cut:
        shown = _cut(shown, console.width)
    if len(shown.columns) > 4 and max(map(len, aligned(shown))) > 2 * console.width:
        _print_records(shown)  # folded into so narrow a window, nobody could read it
    else:
        console.print(drawn(shown))
    if left_out:
        note(f"not shown, for want of width: {', '.join(left_out)}" + (f" ({table.more})" if table.more else ""))


def drawn(table: Table) -> Drawn:
    """Return the table as rich draws it."""
    made = Drawn(box=None, pad_edge=False, header_style="bold")
    for heading in table.headings:
        made.add_column(Text(heading), overflow="fold")
    for row in table.rows:
        made.add_row(*(Text(cell(value), style=_STYLES.get(str(value), "")) for value in row))
    return made


def fitted(table: Table, width: int) -> tuple[Table, list[str]]:
    """Return the table without the columns of its `fit` for which there is no room, and their names.

    A wide column counts with a quarter of the window at most, since it can be folded.
    """
    sizes = [min(size, max(width // 4, LEAST)) + GAP for size in widths(table)]
    shown = set(range(len(sizes))) - set(table.fit)
    room = width + GAP - sum(sizes[index] for index in shown)
    for index in table.fit:
        if sizes[index] <= room:
            shown.add(index)
            room -= sizes[index]
    kept = sorted(shown)
    rows = [[row[index] for index in kept] for row in table.rows]
    left_out = [table.columns[index] for index in range(len(sizes)) if index not in shown]
    return dataclasses.replace(table, columns=[table.columns[index] for index in kept], rows=rows, fit=()), left_out


def _cut(table: Table, width: int) -> Table:
    room = max(width - sum(size + GAP for size in widths(table)[:-1]), LEAST)
    rows = [[*row[:-1], _short(cell(row[-1]), room)] for row in table.rows]
    return dataclasses.replace(table, rows=rows)


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _print_records(table: Table) -> None:
    """Print each row as names and values, an empty line between two."""
    for index, row in enumerate(table.rows):
        if index:
            print()
        print_fields(Fields(list(zip(table.columns, row, strict=True))))
