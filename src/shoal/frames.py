"""Tables of other packages as NumPy columns: pandas, Polars and pyarrow mean the same here.

Numbers come with NaN where one is missing; a text becomes the place of its category in a list that is given.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
from jaxtyping import Float

from shoal.errors import DataError

Column = np.ndarray[Any, Any]
Categories = Mapping[Any, Sequence[str]]
"""The texts that a column may hold, by the column's name."""

LISTED = 20
"""At most so many column names are listed in a message."""
MISSING = frozenset(
    ("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "N/A", "NA", "NULL",
     "NaN", "n/a", "nan", "null")
)  # fmt: skip
"""Texts that say that there is none, as pyarrow and pandas read them; a category of that name is one all the same."""


def names_of(table: Any) -> list[Any]:
    """The names of a table's columns; DataError if it is no table, or two columns have the same name."""
    match type(table).__module__.partition(".")[0], type(table).__name__:
        case "pyarrow", "Table" | "RecordBatch":
            names = list(table.schema.names)
        case "pandas" | "polars", "DataFrame":
            names = list(table.columns)
        case "polars", "LazyFrame":
            raise DataError("a lazy frame holds no rows yet: call its collect() first")
        case _, kind:
            raise DataError(f"a frame is one of pandas or Polars, or a pyarrow Table, not a {kind}")
    if len(set(names)) < len(names):
        raise DataError("two columns of the frame have the same name: rename one")
    return names


def chosen(
    present: Sequence[Any], *, client: Any = None, label: Any, features: Sequence[Any] | None, categories: Categories
) -> list[Any]:
    """The features among the columns that are present: those named, or all but client and label.

    DataError, with what there is, if a column is not there.
    """
    if isinstance(features, str):
        raise DataError(f"features is a list of columns: write [{features!r}]")
    if not isinstance(categories, Mapping):
        kind = type(categories).__name__
        raise DataError(f"categories is a dict, the texts that a column may hold by its name, not a {kind}")
    features = [n for n in present if n not in (client, label)] if features is None else list(features)
    wanted = [*(name for name in (client, label) if name is not None), *features]
    check_there(present, (*wanted, *categories))
    if not features:
        raise DataError("there is no feature beside the client and the label")
    if len(set(wanted)) < len(wanted):
        raise DataError("client, label and features are different columns, and one of them is named twice")
    return features


def check_there(present: Sequence[Any], wanted: Iterable[Any]) -> None:
    """DataError, with the names that there are, if columns are not there."""
    if unknown := [name for name in wanted if name not in present]:
        raise DataError(f"there is no column {', '.join(map(repr, unknown))}; there are {_listed(present, unknown)}")


def values_of(table: Any, name: Hashable) -> Column:
    """A column of a table: numbers with NaN where one is missing, or what else it holds with None or NaN there."""
    return array_of(table[name])


def array_of(column: Any) -> Column:
    """A column of some package as an array, as in `values_of`; DataError if it is ragged."""
    match type(column).__module__.partition(".")[0]:
        case "pyarrow":
            return _arrow_values(column)
        case "polars":
            return _polars_values(column)
        case "pandas":
            return _pandas_values(column)
        case _ if isinstance(column, np.ma.MaskedArray):
            values = np.array(column.data, object)
            values[np.ma.getmaskarray(column)] = None
            return values
        case _:
            try:
                return np.asarray(column)
            except ValueError as error:
                raise DataError("a column is ragged: every row has one value") from error


def numbers_of(table: Any, name: Hashable, categories: Categories) -> Column:
    """A column as numbers: a text column by its categories. What is neither comes as it is."""
    values = values_of(table, name)
    return coded(values, name, categories[name]) if name in categories else values


def features_of(table: Any, names: Sequence[Any], categories: Categories) -> Float[np.ndarray, "rows features"]:
    """Columns side by side in float64; DataError, with all that are meant, if some are no numbers."""
    columns = [numbers_of(table, name, categories) for name in names]
    wrong = {name: column.dtype for name, column in zip(names, columns, strict=True) if column.dtype.kind not in "biuf"}
    if wrong:
        raise DataError(not_numbers(wrong))
    return np.stack([column.astype(np.float64) for column in columns], axis=1)


def not_numbers(wrong: Mapping[Any, Any]) -> str:
    """What is wrong with features that are no numbers, by name and type."""
    types = ", ".join(dict.fromkeys(map(str, wrong.values())))
    return (
        f"features are numbers, and {', '.join(map(repr, wrong))} are not (found: {types}): name the features to use, "
        "or give the texts that such a column may hold as categories={column: [text, ...]}, which makes them numbers, "
        "and those indicators by shoal.one_hot"
    )


def coded(values: Column, name: Hashable, categories: Sequence[str]) -> Column:
    """Texts as the places of their categories, NaN where one is missing; DataError if a text is no category."""
    if isinstance(categories, str) or len(set(map(str, categories))) < max(len(categories), 1):
        raise DataError(f"the categories of column {name!r} are a list of different texts, at least one")
    column = places_of(values, categories)
    if (unknown := int((column < 0).sum())) > 0:
        raise DataError(
            f"column {name!r} holds texts that are not among its {len(categories)} categories, in {unknown} of "
            f"{len(column)} rows: give every text that it may hold"
        )
    return column if np.isnan(column).any() else column.astype(np.int64)


def places_of(values: Column, categories: Sequence[str]) -> Float[np.ndarray, " rows"]:
    """Texts as the places of their categories, NaN where one is missing, -1 where it is no category."""
    places = {str(text): place for place, text in enumerate(categories)}
    kinds, rows = np.unique([_text(value) for value in values], return_inverse=True)
    missing = [str(kind) in MISSING and str(kind) not in places for kind in kinds]
    codes = np.array([np.nan if gone else places.get(str(k), -1) for k, gone in zip(kinds, missing, strict=True)])
    return codes[rows] if len(kinds) else np.zeros(0)


def _text(value: Any) -> str:
    try:
        missing = value is None or bool(value != value)
    except (TypeError, ArithmeticError):  # pandas' NA, a signalling NaN
        missing = True
    except ValueError:  # a list in one cell
        missing = False
    return "" if missing else str(value)


def _arrow_values(values: Any) -> Column:
    kind = str(values.type)
    if kind.startswith("dictionary"):
        values = values.cast(values.type.value_type)
    elif kind.startswith("decimal") or kind == "null" or (kind == "bool" and values.null_count):
        values = values.cast("float64")
    return values.to_numpy(zero_copy_only=False)


def _polars_values(values: Any) -> Column:
    kind = str(values.dtype)
    if kind.startswith("Decimal") or kind == "Null" or (kind == "Boolean" and values.null_count()):
        values = values.cast(float)
    return values.to_numpy()


def _pandas_values(values: Any) -> Column:
    if values.dtype == object:
        values = values.convert_dtypes()  # truth values of which some are missing, as pandas.read_csv gives them
    if values.dtype.kind not in "biuf":
        return values.to_numpy(object, na_value=None) if str(values.dtype).startswith("string") else values.to_numpy()
    if values.isna().any():
        return values.to_numpy(np.float64, na_value=np.nan)
    return values.to_numpy(getattr(values.dtype, "numpy_dtype", values.dtype))


def _listed(present: Sequence[Any], unknown: Sequence[Any]) -> str:
    more = f" and {len(present) - LISTED} more" if len(present) > LISTED else ""
    texts = list(map(str, present))
    near = [match for name in unknown for match in get_close_matches(str(name), texts, n=1)]
    meant = f"; is {' or '.join(map(repr, dict.fromkeys(near)))} meant?" if near else ""
    return ", ".join(texts[:LISTED]) + more + meant
