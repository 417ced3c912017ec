"""A log of the rounds as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal.algorithms import Run
from shoal.errors import CallbackError
from shoal.simulation.callbacks.protocol import Beginning, Row
from shoal.whole_file import check_place, write_whole

BEGINNING = "round,clients,rejected,"
"""How the first line of a log begins; a file that begins otherwise is somebody else's."""


@dataclass(frozen=True)
class CsvLog:
    """Writes every row of the history to a CSV file, as the rounds come.

    A column that appears later, such as a test's, is empty in the rows before: the file is then written anew. A
    new run replaces the log of an old one; a run that goes on from a checkpoint goes on with its log.

    >>> CsvLog("runs.csv")
    CsvLog(path='runs.csv')
    """

    path: str | Path

    def begin(self, beginning: Beginning) -> _Log:
        """A listener that writes; CallbackError if nothing can be written, or another file is there."""
        path = Path(self.path)
        check_place(path)
        if path.exists():
            with path.open(encoding="utf-8", errors="replace") as file:
                first = file.readline()
            if first and not first.startswith(BEGINNING):
                raise CallbackError(f"{path} is there and is no log of rounds: name another file")
        log = _Log(path)
        log.add(beginning.rows)
        return log


class _Log:
    every = None

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[Row] = []
        self._names: list[str] = []

    def after(self, rows: Sequence[Row], run: Run[Any]) -> None:
        self.add(rows)

    def close(self, rows: Sequence[Row]) -> None:
        self.add(rows)

    def add(self, rows: Sequence[Row]) -> None:
        """Appends the rows, or writes all of them if a column is new."""
        if not rows:
            return
        self._rows.extend(rows)
        names = list(dict.fromkeys([*self._names, *(name for row in rows for name in row)]))
        if names == self._names:
            with self._path.open("a", encoding="utf-8", newline="") as file:
                file.write(_lines(rows, names))
        else:
            self._names = names
            write_whole(self._path, (_lines([], names, head=True) + _lines(self._rows, names)).encode())


def _lines(rows: Sequence[Row], names: Sequence[str], *, head: bool = False) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    if head:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
