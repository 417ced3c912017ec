"""Values for people: tables, moments and sizes; and for programs: JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text


def show(columns: Sequence[str], rows: Iterable[Sequence[str]], *, nothing: str) -> None:
    """Prints a table, or what is said if it is empty. Its last column is cut where the terminal ends."""
    cells = [[plain(cell) for cell in row] for row in rows]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, name in enumerate(columns):
        whole = max([len(name), *(len(row[place]) for row in cells)]) if place < len(columns) - 1 else None
        table.add_column(name, no_wrap=True, min_width=whole)
    for row in cells:
        table.add_row(*map(Text, row))
    Console().print(table if table.row_count else nothing, highlight=False)


def print_json(value: Any) -> None:
    """Prints a value as one line of JSON."""
    typer.echo(msgspec.json.encode(value).decode())


def plain(text: str) -> str:
    """A text in which nothing commands the terminal: it may come from other machines."""
    return "".join(c if c.isprintable() else "?" for c in text)


def moment(seconds: float | None) -> str:
    """A time in this machine's zone; "never" for None."""
    return "never" if seconds is None else f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}"
