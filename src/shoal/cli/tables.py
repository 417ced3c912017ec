"""Values for people: tables, moments and sizes; and for programs: JSON."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
import typer


def show(columns: Sequence[str], rows: Iterable[Sequence[str]], *, nothing: str) -> None:
    """Prints a table, or what is said if it is empty. In a terminal its lines are cut where that ends."""
    cells = [tuple(columns), *(tuple(map(plain, row)) for row in rows)]
    if len(cells) == 1:
        print(nothing)
        return
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    most = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for row in cells:
        print("  ".join(map(str.ljust, row, widths)).rstrip()[:most])


def print_json(value: Any) -> None:
    """Prints a value as one line of JSON."""
    typer.echo(msgspec.json.encode(value).decode())


def plain(text: str) -> str:
    """A text in which nothing commands the terminal: it may come from other machines."""
    return "".join(c if c.isprintable() else "?" for c in text)


def moment(seconds: float | None) -> str:
    """A time in this machine's zone; "never" for None."""
    return "never" if seconds is None else f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}"
