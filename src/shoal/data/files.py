"""CSV and Parquet files as streams of batches. Messages name columns and files, never what is in a row."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from shoal.errors import DataError, SettingError
from shoal.extras import needed

BATCH = 2**16
"""At most so many rows of a Parquet file are in memory at a time."""
VALUES = 2**20
"""At most so many of its values."""
BLOCK_BYTES = 2**22
"""How much of a CSV file is in memory at a time."""


class Source(Protocol):
    """A file that can be read from its beginning, as often as needed."""

    @property
    def path(self) -> Path:
        """Where it lies."""
        ...

    @property
    def types(self) -> Mapping[str, Any]:
        """The columns' pyarrow types by name."""
        ...

    def readable(self, name: str, *, text: bool) -> Any:
        """The type to read a column as, which may hold texts or should hold numbers."""
        ...

    def batches(self, types: Mapping[str, Any]) -> Iterator[Any]:
        """Record batches of the named columns, each of the type given."""
        ...


@dataclass(frozen=True)
class ParquetSource:
    """A Parquet file, whose columns have their types."""

    path: Path

    @property
    def types(self) -> Mapping[str, Any]:
        """The columns' types, from the file's end."""
        return self._types

    @cached_property
    def _types(self) -> Mapping[str, Any]:
        with self._open() as file:
            return _by_name(self.path, file.schema_arrow)

    def readable(self, name: str, *, text: bool) -> Any:
        """The column's own type."""
        return self.types[name]

    def batches(self, types: Mapping[str, Any]) -> Iterator[Any]:
        """Batches of some columns."""
        with self._open() as file, _reading(self.path, "Parquet"):
            rows = max(1, min(BATCH, VALUES // len(types)))
            yield from file.iter_batches(batch_size=rows, columns=list(types))

    @contextmanager
    def _open(self) -> Generator[Any]:
        parquet = needed("pyarrow.parquet", "arrow")
        check_file(self.path)
        with _reading(self.path, "Parquet"):
            # Buffered, because else whole column chunks are read ahead, and a chunk may be as large as the file.
            file = parquet.ParquetFile(self.path, buffer_size=2**20, pre_buffer=False)
        with file:
            yield file


@dataclass(frozen=True)
class CsvSource:
    """A CSV file with its columns' names in the first line. Types are what the first rows look like."""

    path: Path
    delimiter: str = field(default=",", kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.delimiter, str) or len(self.delimiter) != 1 or self.delimiter in "\r\n":
            raise SettingError(f"a delimiter is one character, such as ';', not {self.delimiter!r}")

    @property
    def types(self) -> Mapping[str, Any]:
        """The columns' types, from the first rows."""
        return self._types

    @cached_property
    def _types(self) -> Mapping[str, Any]:
        with _reading(self.path, "CSV"), self._open({}, None) as file:
            return _by_name(self.path, file.schema)

    def readable(self, name: str, *, text: bool) -> Any:
        """Text, or float64 where the first rows hold numbers: a later one may have a fraction."""
        arrow = needed("pyarrow", "arrow")
        if text:
            return arrow.string()
        found = self.types[name]
        return arrow.float64() if str(found) in ("int64", "double", "null") else found

    def batches(self, types: Mapping[str, Any]) -> Iterator[Any]:
        """Batches of some columns, read as the types given."""
        names = list(self.types)
        with _reading(self.path, "CSV", names), self._open(types, list(types)) as file:
            yield from file

    @contextmanager
    def _open(self, types: Mapping[str, Any], names: Sequence[str] | None) -> Generator[Any]:
        csv = needed("pyarrow.csv", "arrow")
        check_file(self.path)
        with csv.open_csv(
            self.path,
            read_options=csv.ReadOptions(block_size=BLOCK_BYTES),
            parse_options=csv.ParseOptions(delimiter=self.delimiter),
            convert_options=csv.ConvertOptions(column_types=types, include_columns=names),
        ) as file:
            yield file


def check_file(path: Path) -> None:
    """DataError unless there is a file at the path that is not empty and may be read."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; a file is wanted")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if empty:
        raise DataError(f"{path} is empty")


@contextmanager
def _reading(path: Path, kind: str, names: Sequence[str] = ()) -> Generator[None]:
    """What goes wrong in pyarrow as a DataError. Its own message may quote a row, so it goes no further."""
    arrow = needed("pyarrow", "arrow")
    try:
        yield
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} {_reason(kind, error, names)}") from None


def _reason(kind: str, error: Exception, names: Sequence[str]) -> str:
    text = str(error)
    if isinstance(error, UnicodeDecodeError) or "invalid UTF8" in text:
        return "is not in UTF-8, in which files are read: save it again with that encoding"
    if found := re.search(r"column #(\d+): (?:Row #\d+: )?CSV conversion error to (\w+)", text):
        wanted = "truth value" if found[2] == "bool" else "number"
        return (
            f"has rows whose {names[int(found[1])]!r} is no {wanted}, which the first rows are: clean that column, or "
            "name the features to use"
        )
    if re.search(r"Expected \d+ columns", text):
        return "is no CSV file that can be read: its rows have different numbers of columns"
    return f"is no {kind} file that can be read ({type(error).__name__})"


def _by_name(path: Path, schema: Any) -> Mapping[str, Any]:
    if len(set(schema.names)) < len(schema.names):
        raise DataError(f"two columns of {path} have the same name: rename one")
    return {name: schema.field(name).type for name in schema.names}
