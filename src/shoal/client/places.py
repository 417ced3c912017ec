"""The places in which a site's tables lie: files, databases by URL, DuckDB. Each is read in parts, and only read.

Messages name the place and its columns. What a database driver says goes no further, for it may quote a row, or the
password that it was given.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from shoal.data.files import CsvSource, ParquetSource, check_file
from shoal.errors import DataError, SettingError
from shoal.extras import needed
from shoal.frames import values_of

Part = Mapping[str, np.ndarray[Any, Any]]
"""Some rows of a table, by column."""

ROWS = 2**14
"""How many rows of a database's answer are in memory as Python's objects at a time."""


@dataclass(frozen=True)
class Opened:
    """A table that can be read once: its columns, and the parts of some of them, of which some are read as texts."""

    names: Sequence[str]
    parts: Callable[[Mapping[str, bool]], Iterator[Part]]


class Place(Protocol):
    """Where a table lies. Its text may be shown to anybody."""

    def open(self) -> Any:
        """A context in which the table can be read, an `Opened`; DataError if it cannot."""
        ...


@dataclass(frozen=True)
class File:
    """A CSV or a Parquet file."""

    file: CsvSource | ParquetSource

    def __str__(self) -> str:
        return str(self.file.path)

    @contextmanager
    def open(self) -> Generator[Opened]:
        """The table of the file."""
        yield Opened(list(self.file.types), self._parts)

    def _parts(self, wanted: Mapping[str, bool]) -> Iterator[Part]:
        types = {name: self.file.readable(name, text=text) for name, text in wanted.items()}
        for batch in self.file.batches(types):
            yield {name: values_of(batch, name) for name in wanted}


@dataclass(frozen=True)
class Sql:
    """What a query finds in any database that SQLAlchemy knows, in a transaction that is never committed."""

    url: str = field(repr=False)
    query: str

    def __str__(self) -> str:
        url = self._parsed()
        port = f":{url.port}" if url.port else ""
        return f"{url.drivername}://{url.host or ''}{port}/{url.database or ''}"

    def _parsed(self) -> Any:
        sql = needed("sqlalchemy", "sql")
        try:
            url = sql.make_url(self.url)
        except (sql.exc.ArgumentError, ValueError):
            raise SettingError("this database's URL cannot be read: driver://user:password@host/name") from None
        # Of PostgreSQL's drivers it is psycopg that Shoal's extra brings.
        return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgres", "postgresql") else url

    @contextmanager
    def open(self) -> Generator[Opened]:
        """The table that the query gives."""
        url = self._parsed()
        if url.get_backend_name() == "sqlite" and url.database and not url.database.startswith("file:"):
            check_file(Path(url.database))  # SQLite would make it
        sql = needed("sqlalchemy", "sql")
        with _asking(f"{self} cannot be opened", sql.exc.SQLAlchemyError):
            engine = self._engine(sql, url)
            connection = engine.connect()
        try:
            with _asking(f"{self} did not answer the query", sql.exc.SQLAlchemyError), connection:
                rows = self._answer(connection)
                if not rows.returns_rows:
                    raise DataError("the query gives no rows: write a SELECT")
                yield _of_rows(list(rows.keys()), rows.partitions(ROWS))
        finally:
            engine.dispose()

    def _engine(self, sql: Any, url: Any) -> Any:
        try:
            return sql.create_engine(url)
        except ModuleNotFoundError as error:
            raise DataError(f"{self} needs the package {error.name}, which is not installed") from None

    def _answer(self, connection: Any) -> Any:
        match connection.dialect.name:
            case "sqlite":
                connection.exec_driver_sql("PRAGMA query_only = ON")
            case "postgresql":
                connection = connection.execution_options(postgresql_readonly=True)
            case _:
                pass  # nothing is committed
        options = {"stream_results": True, "max_row_buffer": ROWS, "no_parameters": True}
        return connection.execution_options(**options).exec_driver_sql(self.query)


@dataclass(frozen=True)
class DuckDb:
    """What a query finds in a DuckDB file, or with no file in the files that it names."""

    path: str
    query: str

    def __str__(self) -> str:
        return f"duckdb:{self.path}"

    @contextmanager
    def open(self) -> Generator[Opened]:
        """The table that the query gives."""
        duckdb = needed("duckdb", "duckdb")
        if self.path:
            check_file(Path(self.path))
        with _asking(f"{self} cannot be opened", duckdb.Error):
            connection = duckdb.connect(self.path or ":memory:", read_only=bool(self.path))
        try:
            with _asking(f"{self} did not answer the query", duckdb.Error):
                answer = connection.execute(self.query)
                names = [column[0] for column in answer.description or ()]
                yield _of_rows(names, iter(lambda: answer.fetchmany(ROWS), []))
        finally:
            connection.close()


@contextmanager
def _asking(failed: str, wrong: type[Exception]) -> Generator[None]:
    """What a database says as a DataError, where it speaks of the query and not of what is in a row."""
    try:
        yield
    except wrong as error:
        raise DataError(f"{failed}: {_said(error)}") from None


def _said(error: Exception) -> str:
    original = getattr(error, "orig", None) or error
    kind = type(original).__name__
    state = getattr(original, "sqlstate", None)
    text = " ".join(str(original).split("\n")[0].split())
    if "password" in text.lower() or (state or "").startswith("28"):
        return f"user or password were refused ({kind})"
    if (state or "").startswith(("42", "3D")) or text.startswith(("no such ", "near ")) or kind in ABOUT_THE_QUERY:
        return text
    return f"{kind}{f' ({state})' if state else ''}"


ABOUT_THE_QUERY = ("BinderException", "CatalogException", "ParserException")
"""Errors of DuckDB that quote the query and never a row."""


def _of_rows(names: list[str], rows: Iterator[Sequence[Sequence[Any]]]) -> Opened:
    if len(set(names)) < len(names):
        raise DataError("two columns of the query's answer have the same name: write  SELECT ... AS name")

    def parts(wanted: Mapping[str, bool]) -> Iterator[Part]:
        for some in rows:
            columns = dict(zip(names, zip(*some, strict=True), strict=True))
            yield {name: _array(columns[name]) for name in wanted}

    return Opened(names, parts)


def _array(values: Sequence[Any]) -> np.ndarray[Any, Any]:
    """Values of a database as an array: numbers with NaN where there is none, or objects."""
    kinds = set(map(type, values))
    try:
        if kinds <= {bool} or kinds <= {int}:
            return np.array(values)
        if kinds <= {int, float, bool, Decimal, type(None)}:
            return np.array(values, np.float64)
    except OverflowError:
        pass  # a whole number that no float holds
    array = np.empty(len(values), object)
    array[:] = values
    return array


def whole(opened: Opened, wanted: Mapping[str, bool]) -> Part:
    """All parts of a table as one; DataError if it has no rows."""
    parts = list(opened.parts(wanted))
    if not sum(len(next(iter(part.values()))) for part in parts):
        raise DataError("there are no rows")
    return {name: np.concatenate([part[name] for part in parts]) for name in wanted}
