"""A list on a terminal of any width: names stay whole, what matters least gives way."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from align_dsl.commands.console import console
from align_dsl.errors import visible

GAP, EDGES = 2, 2  # characters between columns, and around them all


@dataclass(frozen=True, slots=True)
class Column:
    """One that is empty throughout is never shown."""

    name: str
    matters: int = 0  # where room is short, those that matter least are left away; 0: never
    least: int = 0  # it may become so narrow; 0: every cell stays whole
    cut: bool = False  # and ends in dots then; else it goes on in the next line
    right: bool = False


def print_list(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """A line each. Where no terminal sets the width, nothing is left away, cut or broken."""
    from rich import box
    from rich.table import Table
    from rich.text import Text  # in which brackets are no markup

    cells = [[visible(cell) for cell in row] for row in rows]
    widths = _widths(columns, cells)
    out = console()
    out.width = max(out.width, EDGES + sum(w + GAP for w in widths.values()))  # no name is broken
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for column, width in widths.items():
        made.add_column(
            Text(column.name),
            width=width,
            justify="right" if column.right else "left",
            overflow="ellipsis" if column.cut else "fold",
            no_wrap=column.cut,
        )
    for row in cells:
        shown = {c: cell for c, cell in zip(columns, row, strict=True) if c in widths}
        made.add_row(*(Text(_broken(cell, c, widths[c])) for c, cell in shown.items()))
    out.print(made)


def _broken(cell: str, column: Column, width: int) -> str:
    """Between words where that can be, and not at hyphens, with which options begin."""
    whole = column.cut or len(cell) <= width
    return (
        cell
        if whole
        else "\n".join(wrap(cell, width, break_long_words=False, break_on_hyphens=False))
    )


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> dict[Column, int]:
    """How wide each column is that is shown."""
    from rich.cells import cell_len

    whole = {
        column: max(map(cell_len, (column.name, *cells)))
        for column, *cells in zip(columns, *rows, strict=True)
        if any(cells)
    }
    if not sys.stdout.isatty():
        return whole
    room = console().width - EDGES
    narrow = {
        c: min(width, max(c.least, cell_len(c.name))) if c.least else width
        for c, width in whole.items()
    }
    shown = [c for c in whole if not c.matters]
    for column in sorted((c for c in whole if c.matters), key=lambda c: -c.matters):
        if sum(narrow[c] + GAP for c in (*shown, column)) - GAP <= room:
            shown.append(column)
    widths = {c: narrow[c] for c in columns if c in shown}
    left = room - sum(w + GAP for w in widths.values()) + GAP
    for column in widths:
        wider = min(whole[column] - widths[column], max(0, left))
        widths[column] += wider
        left -= wider
    return widths
