"""What a plan expects of the tables at the sites: which columns become `x` and `y`, and what they may hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, cast

import numpy as np

from shoal.cells import Column, matches, read
from shoal.errors import DataError, SettingError
from shoal.frames import array_of, check_there, names_of
from shoal.settings import number, settle, whole

Table = Mapping[str, Any]
"""Columns by name: a dict of arrays, or a frame of pandas or Polars, or a pyarrow Table."""


@dataclass(frozen=True)
class Schema:
    """Which columns of a table become `x` and `y`, in which order, and what they may hold.

    `x` has names, or a `Column` for what is no plain number; a row of `x` is float32. `y` is a name or a `Column`: a
    plain name holds numbers (float32), with `classes` whole numbers from 0 to `classes` - 1 (int32). `also` are
    further columns that an algorithm reads, under their own names. `where` keeps the rows in which columns hold some
    text or number. `standardize` has a mean and a deviation for each number of a row of `x`, as in a `Standardizer`:
    x = (x - mean) / deviation.

    >>> schema = Schema(["age", Column("pain", "indicators", of=("none", "typical"))], "ill", classes=2)
    >>> table = {"age": [61, 47], "pain": ["typical", "none"], "ill": [1, 0], "name": ["A.", "B."]}
    >>> for name, column in schema.columns(table).items():
    ...     print(name, column.dtype, column.tolist())
    x float32 [[61.0, 0.0, 1.0], [47.0, 1.0, 0.0]]
    y int32 [1, 0]
    """

    x: Any
    y: Any = None
    also: Any = field(default=(), kw_only=True)
    where: Any = field(default=(), kw_only=True)
    classes: int | None = field(default=None, kw_only=True)
    standardize: Any = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, x=_columns("x", self.x), also=_columns("also", self.also))
        if not self.x:
            raise SettingError("x has at least one column")
        settle(self, y=self._settled_y(), where=_conditions(self.where))
        names = [column.name for column in self.used]
        if len(set(names)) < len(names):
            raise SettingError("a column is in one place only: in x, in y or in also, and one is named twice")
        if {"x", "y"} & {column.name for column in self.also}:
            raise SettingError("columns of also keep their names, and x and y are taken: rename them at the sites")
        if self.standardize is not None:
            settle(self, standardize=self._scale(self.standardize))

    def _settled_y(self) -> Column | None:
        y, classes = self.y, self.classes
        if classes is not None:
            classes = whole(classes, "classes is how many there are, at least 2", least=2)
            settle(self, classes=classes)
        if isinstance(y, str):
            return Column(y) if classes is None else Column(y, "whole", least=0, most=classes - 1)
        if y is None and classes is None:
            return None
        if not isinstance(y, Column) or y.kind == "indicators":
            raise SettingError("y is the name of a column, or a Column of numbers or of one category")
        held = len(y.of) if y.kind == "category" else y.most
        if classes is not None and held != (classes if y.kind == "category" else classes - 1):
            raise SettingError(f"y holds {y.expected}, and that are not {classes} classes: leave one of them out")
        return y

    def _scale(self, given: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
        width = sum(column.width for column in self.x)
        rule = f"standardize is (means, deviations), {width} numbers each, one for each number of a row of x"
        try:
            means, deviations = (tuple(map(float, part)) for part in given)
        except (TypeError, ValueError) as error:
            raise SettingError(rule) from error
        if not len(means) == len(deviations) == width or not np.isfinite([*means, *deviations]).all():
            raise SettingError(f"{rule}, not {len(means)} and {len(deviations)}")
        if min(deviations) <= 0:
            raise SettingError("deviations are over 0; that of a number that is always the same is 1")
        return means, deviations

    @property
    def used(self) -> tuple[Column, ...]:
        """Every column of which something becomes part of the data."""
        return (*self.x, *(() if self.y is None else (self.y,)), *self.also)

    @property
    def wanted(self) -> dict[str, bool]:
        """Every column that is read, and whether it is read as texts."""
        filters = {name: isinstance(value, str) for name, value in self.where}
        return filters | {column.name: column.coded for column in self.used}

    def columns(self, table: Table) -> dict[str, np.ndarray[Any, Any]]:
        """`x`, `y` and the other columns of a table; DataError, with all that is wrong by column, never a value."""
        return self.gather([table])

    def gather(self, parts: Iterable[Table]) -> dict[str, np.ndarray[Any, Any]]:
        """The same of a table that comes in parts, one after another, each with some of the rows."""
        reading = _Reading(self)
        for part in parts:
            reading.take(part)
        return reading.done()

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterator[str]:
        """What it says, for people."""
        yield "x: " + ", ".join(map(_in_words, self.x)) + ("" if self.standardize is None else "; standardised")
        if self.y is not None:
            yield f"y: {_in_words(self.y)}"
        if self.also:
            yield "also: " + ", ".join(map(_in_words, self.also))
        if self.where:
            yield "rows where " + " and ".join(f"{name} is {value!r}" for name, value in self.where)


class _Reading:
    """The rows of a table, part by part, and what is wrong with them."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._parts: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in self._names()}
        self._wrong: dict[str, Counter[str]] = {column.name: Counter() for column in schema.used}
        self._rows = self._seen = 0

    def _names(self) -> list[str]:
        schema = self._schema
        return ["x", *([] if schema.y is None else ["y"]), *(column.name for column in schema.also)]

    def take(self, table: Table) -> None:
        """Reads some rows."""
        values = _values(table, self._schema.wanted)
        rows = len(next(iter(values.values())))
        kept = np.ones(rows, bool)
        for name, wanted in self._schema.where:
            kept &= matches(values[name], wanted)
        self._seen += rows
        self._rows += int(kept.sum())
        if not kept.all():
            values = {name: column[kept] for name, column in values.items()}
        read = {column.name: self._read(column, values[column.name]) for column in self._schema.used}
        self._keep(read)

    def _read(self, column: Column, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        cells = read(column, values)
        self._wrong[column.name].update(cells.wrong)
        return cells.numbers

    def _keep(self, read: dict[str, np.ndarray[Any, Any]]) -> None:
        if any(self._wrong.values()):
            self._parts = {name: [] for name in self._parts}  # nothing comes of it: only what else is wrong
            return
        schema = self._schema
        self._parts["x"].append(self._scaled(np.concatenate([read[c.name] for c in schema.x], axis=1)))
        if schema.y is not None:
            self._parts["y"].append(_typed(schema.y, read[schema.y.name]))
        for column in schema.also:
            self._parts[column.name].append(_typed(column, read[column.name]))

    def _scaled(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        rows = rows.astype(np.float32)
        if self._schema.standardize is None:
            return rows
        mean, deviation = map(np.array, self._schema.standardize)
        return ((rows - mean) / deviation).astype(np.float32)  # as Standardizer.transform does it, to the bit

    def done(self) -> dict[str, np.ndarray[Any, Any]]:
        """All columns; DataError if something was wrong."""
        problems = [
            f"column {column.name!r}: expected {column.expected}, found "
            + ", ".join(f"{what} in {count} of {self._rows} rows" for what, count in self._wrong[column.name].items())
            for column in self._schema.used
            if self._wrong[column.name]
        ]
        if problems:
            raise DataError("; ".join(problems))
        if not self._rows:
            where = " and ".join(f"{name} is {value!r}" for name, value in self._schema.where)
            raise DataError(
                f"none of the {self._seen} rows is one where {where}" if self._seen else "there are no rows"
            )
        return {name: np.concatenate(parts) for name, parts in self._parts.items()}


def _values(table: Table, wanted: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
    """The columns that are read, as arrays of equal length."""
    present = list(table) if isinstance(table, Mapping) else names_of(table)
    check_there(present, wanted)
    values: dict[str, np.ndarray[Any, Any]] = {}
    for name in wanted:
        values[name] = array_of(table[name])
        if values[name].ndim != 1:
            raise DataError(f"column {name!r}: expected one value a row, found shape {values[name].shape}")
    if len({len(column) for column in values.values()}) > 1:
        lengths = ", ".join(f"{name!r} {len(column)}" for name, column in values.items())
        raise DataError(f"columns have different numbers of rows: {lengths}")
    return values


def _typed(column: Column, numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Numbers as an algorithm gets them: whole ones and categories int32, all others float32."""
    if column.kind == "indicators":
        return numbers.astype(np.float32)
    return numbers[:, 0].astype(np.float32 if column.kind == "number" else np.int32)


def _columns(place: str, given: Any) -> tuple[Column, ...]:
    if isinstance(given, str | Column) or not isinstance(given, Sequence):
        raise SettingError(f"{place} is a list of columns, such as ['age', Column('sex', 'category', of=('f', 'm'))]")
    columns = [Column(one) if isinstance(one, str) else one for one in cast("Sequence[Any]", given)]
    if wrong := next((one for one in columns if not isinstance(one, Column)), None):
        raise SettingError(f"{place} has names of columns and Columns, not a {type(wrong).__name__}")
    return tuple(columns)


def _conditions(given: Any) -> tuple[tuple[str, str | float], ...]:
    rule = "where has a text or a number by the name of a column, such as {'set': 'train'}"
    pairs = cast("Any", given).items() if isinstance(given, Mapping) else given
    try:
        conditions = sorted((name, value) for name, value in pairs)
    except (TypeError, ValueError) as error:
        raise SettingError(rule) from error
    if len({name for name, _ in conditions}) < len(conditions):
        raise SettingError("where has one value for a column")
    for name, value in conditions:
        if not isinstance(name, str) or not isinstance(value, str | Real):
            raise SettingError(rule)
    return tuple((name, value if isinstance(value, str) else number(value + 0, rule, lambda _: True))
                 for name, value in conditions)  # fmt: skip


def _in_words(column: Column) -> str:
    return column.name if column.expected == "numbers" else f"{column.name} ({column.expected})"
