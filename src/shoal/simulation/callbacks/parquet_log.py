"""A log of the rounds as Parquet."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shoal.algorithms import Run
from shoal.errors import CallbackError
from shoal.extras import needed
from shoal.settings import number, settle
from shoal.simulation.callbacks.protocol import Beginning, Row
from shoal.whole_file import check_place, write_whole

MARK = {b"shoal": b"rounds 1"}
"""In the file's metadata: what it is, and the version of the form."""


@dataclass(frozen=True)
class ParquetLog:
    """Writes every row of the history to a Parquet file, whole, at most every `save_every_s` seconds and at the end.

    A new run replaces the log of an old one; a run that goes on from a checkpoint goes on with its log. Needs the
    extra `arrow`.

    >>> ParquetLog("runs.parquet").save_every_s
    30.0
    """

    path: str | Path
    save_every_s: float = field(default=30.0, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, save_every_s=number(self.save_every_s, "a log is saved every 0 or more seconds", lambda v: v >= 0))

    def begin(self, beginning: Beginning) -> _Log:
        """A listener that writes; CallbackError if nothing can be written, or another file is there."""
        path = Path(self.path)
        check_place(path)
        parquet = needed("pyarrow.parquet", "arrow")
        if path.exists() and path.stat().st_size and not _ours(parquet, path):
            raise CallbackError(f"{path} is there and is no log of rounds: name another file")
        return _Log(path, list(beginning.rows), self.save_every_s)


class _Log:
    every = None

    def __init__(self, path: Path, rows: list[Row], save_every_s: float) -> None:
        self._path, self._rows, self._save_every_s = path, rows, save_every_s
        self._saved = time.monotonic()

    def after(self, rows: Sequence[Row], run: Run[Any]) -> None:
        self._rows.extend(rows)
        if time.monotonic() - self._saved >= self._save_every_s:
            self._save()

    def close(self, rows: Sequence[Row]) -> None:
        self._rows.extend(rows)
        self._save()

    def _save(self) -> None:
        if self._rows:
            write_whole(self._path, _file(self._rows))
        self._saved = time.monotonic()


def _file(rows: Sequence[Row]) -> bytes:
    """The rows as a Parquet file; what a row lacks is null."""
    arrow, parquet = needed("pyarrow", "arrow"), needed("pyarrow.parquet", "arrow")
    names = dict.fromkeys(name for row in rows for name in row)
    table = arrow.table({name: [row.get(name) for row in rows] for name in names})
    file = io.BytesIO()
    parquet.write_table(table.replace_schema_metadata(MARK), file)
    return file.getvalue()


def _ours(parquet: Any, path: Path) -> bool:
    try:
        metadata = parquet.read_schema(path).metadata or {}
    except (OSError, ValueError):  # arrow's own errors are these
        return False
    return b"shoal" in metadata
