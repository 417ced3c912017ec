"""A site's data: read when a policy has said yes, checked against what the plan expects, before anything is learned.

Every error says which file or database, which column, what was expected and what was found, and never a value.
"""

from __future__ import annotations

import importlib
import re
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from shoal.client.places import DuckDb, File, Place, Sql, whole
from shoal.data.files import CsvSource, ParquetSource
from shoal.errors import DataError, SettingError, ShoalError
from shoal.frames import Categories, check_there, chosen, features_of, names_of, numbers_of
from shoal.plan import Plan
from shoal.schema import Schema

FORMS = (
    'a file.csv or file.parquet, the URL of a database or "duckdb:FILE" with a query, or a function as '
    '"file.py:function" or "module:function"'
)


@dataclass(frozen=True)
class Loader:
    """A Python function that gives the data: a dict of columns, a frame, or (x, y)."""

    function: str | Callable[[], Any]

    def __str__(self) -> str:
        return self.function if isinstance(self.function, str) else getattr(self.function, "__name__", "the loader")

    def call(self) -> Any:
        """What the function returns; DataError if it is not there or raises."""
        try:
            return (self._found(self.function) if isinstance(self.function, str) else self.function)()
        except ShoalError:
            raise
        except Exception as error:
            raise DataError(f"the function raised {type(error).__name__}") from error

    @staticmethod
    def _found(text: str) -> Callable[[], Any]:
        where, _, name = text.rpartition(":")
        if not where.endswith(".py"):
            found = getattr(importlib.import_module(where), name, None)
        elif Path(where).is_file():
            found = _run(Path(where)).get(name)
        else:
            raise DataError(f"there is no file {where}")
        if not callable(found):
            raise DataError(f"there is no function {name} in {where}")
        return found


def _run(path: Path) -> dict[str, Any]:
    """The names of a Python file, which may import what lies beside it."""
    folder = str(path.parent.resolve())
    sys.path.insert(0, folder)
    try:
        return runpy.run_path(str(path), run_name="data")
    finally:
        sys.path.remove(folder)


@dataclass(frozen=True)
class Source:
    """Where a site's data lie, and without a plan's schema which columns are meant. Made by `source`."""

    place: Place | Loader
    features: Sequence[str] | None = None
    label: str | None = None
    categories: Categories = field(default_factory=dict[Any, Any])

    def __str__(self) -> str:
        return str(self.place)

    def load(self, plan: Plan) -> Any:
        """The data for a plan, by the plan's schema if it has one: a dict of columns, `x` and `y` among them.

        A function may also give what else an algorithm takes; that comes as it is. DataError if anything is not as
        expected.
        """
        if plan.data is not None and (self.features, self.label, self.categories) != (None, None, {}):
            raise SettingError("the plan's schema says which columns are meant: leave out features, label, categories")
        try:
            return self._loaded(plan.data) if isinstance(self.place, Loader) else self._read(self.place, plan.data)
        except DataError as error:
            text = str(error)
            raise DataError(text if str(self) in text else f"{self}: {text}") from error.__cause__

    def _read(self, place: Place, schema: Schema | None) -> Any:
        with place.open() as table:
            if schema is None:
                wanted = {name: name in self.categories for name in self._wanted(table.names)}
                return self._named(whole(table, wanted))
            check_there(table.names, schema.wanted)
            return schema.gather(table.parts(schema.wanted))

    def _loaded(self, schema: Schema | None) -> Any:
        given = cast("Loader", self.place).call()
        if schema is not None:
            return schema.columns(_table(given, schema))
        if isinstance(given, tuple) and len(given) == 2:
            return dict(zip("xy", map(np.asarray, given), strict=True))
        if isinstance(given, Mapping):
            return given if self.features is None and self.label is None else self._named(given)
        return self._named(given) if _is_frame(given) else given

    def _wanted(self, present: Sequence[str]) -> list[str]:
        features = chosen(present, label=self.label, features=self.features, categories=self.categories)
        return [*features, *([] if self.label is None else [self.label])]

    def _named(self, table: Any) -> dict[str, np.ndarray[Any, Any]]:
        """`x` and `y` of a table by the names that were given, as `read_csv` makes them."""
        present = list(cast("Mapping[str, Any]", table)) if isinstance(table, Mapping) else names_of(table)
        features = chosen(present, label=self.label, features=self.features, categories=self.categories)
        x = features_of(table, features, self.categories)
        return (
            {"x": x} if self.label is None else {"x": x, "y": _labels(numbers_of(table, self.label, self.categories))}
        )


def source(
    given: str | Path | Callable[[], Any],
    *,
    query: str | None = None,
    features: Sequence[str] | None = None,
    label: str | None = None,
    categories: Categories | None = None,
    delimiter: str = ",",
) -> Source:
    """A site's data by where they lie: a file, a database with a query, or a function. Nothing is read yet.

    `features`, `label` and `categories` are for plans without a schema, and mean what they mean in `shoal.read_csv`.

    >>> print(source("patients.csv"), source("postgresql://me:secret@db/ward", query="SELECT age, ill FROM patients"))
    patients.csv postgresql+psycopg://db/ward
    """
    place = _place(given, query, delimiter)
    return Source(place, None if features is None else tuple(features), label, categories or {})


def _place(given: str | Path | Callable[[], Any], query: str | None, delimiter: str) -> Place | Loader:
    if isinstance(given, str | Path):
        text, end = str(given), Path(given).suffix.lower()
        if text.startswith("duckdb:") and not text.startswith("duckdb://"):
            return DuckDb(text.removeprefix("duckdb:"), _query(query))
        if "://" in text:
            place = Sql(text, _query(query))
            str(place)  # so that a URL that cannot be read is told now
            return place
        if query is not None:
            raise SettingError("a query is for a database, and this is none")
        if end == ".parquet":
            return File(ParquetSource(Path(given)))
        if end in (".csv", ".tsv", ".txt"):
            return File(CsvSource(Path(given), delimiter="\t" if (end, delimiter) == (".tsv", ",") else delimiter))
        if re.fullmatch(r".+:[^\W\d]\w*", text):
            return Loader(text)
    elif callable(given):
        return Loader(given)
    raise SettingError(f"data are {FORMS}; this is none of them")


def _query(query: str | None) -> str:
    if not query or not query.strip():
        raise SettingError("a database needs a query: SELECT age, ill FROM patients")
    return query


def _is_frame(given: Any) -> bool:
    return type(given).__module__.partition(".")[0] in ("pandas", "polars", "pyarrow")


def _table(given: Any, schema: Schema) -> Any:
    """What a function gave, as a table with the schema's names."""
    if isinstance(given, Mapping) or _is_frame(given):
        return given
    if not isinstance(given, tuple) or len(given) != 2 or schema.y is None or schema.also or schema.where:
        raise DataError("the function gives a dict of columns or a frame, so that the schema finds them by name, or "
                        f"(x, y) where no more is needed, and not a {type(given).__name__}")  # fmt: skip
    x, y = map(np.asarray, given)
    if x.ndim != 2 or x.shape[1] != len(schema.x):
        raise DataError(f"x: expected rows of {len(schema.x)} columns in the schema's order, found shape {x.shape}")
    return {**{column.name: x[:, place] for place, column in enumerate(schema.x)}, schema.y.name: y}


def _labels(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Labels, as int64 if all are whole numbers."""
    if values.dtype.kind == "O" or values.dtype.kind not in "biuf":
        raise DataError(f"labels are numbers, and these are not (found: {values.dtype}): give their categories")
    return values.astype(np.int64) if values.dtype.kind != "f" or bool((values % 1 == 0).all()) else values
