"""What one column of a site's table holds: its values as numbers or as places of categories, and what is wrong there.

Nothing here says what a value is: only of which kind, and in how many rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from numbers import Real
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

from shoal.errors import SettingError
from shoal.frames import LISTED, MISSING, places_of
from shoal.settings import number, settle

Values = np.ndarray[Any, Any]
Kind = Literal["number", "whole", "category", "indicators"]

LARGEST = float(np.finfo(np.float32).max)
MOST_WHOLE = 2**31 - 1
NUMBERS = (Real, Decimal, np.bool_, type(None))
"""What may stand in a column of numbers: databases give decimals, and None where there is nothing."""


@dataclass(frozen=True)
class Column:
    """A column of a site's table, and what it may hold.

    `kind` is "number"; "whole", a whole number; "category", one of the texts `of`, which becomes its place in that
    list; or "indicators", the same as a column of 0 and 1 for each text. Numbers lie from `least` to `most`, if these
    are given. A missing value is an error, unless `fill` says what stands in its place: a number, or one of the texts.

    >>> Column("age", "whole", least=0, most=120).width, Column("pain", "indicators", of=("none", "typical")).width
    (1, 2)
    """

    name: str
    kind: Kind = "number"
    of: tuple[str, ...] = field(default=(), kw_only=True)
    least: float | None = field(default=None, kw_only=True)
    most: float | None = field(default=None, kw_only=True)
    fill: float | str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise SettingError(f"a column has a name, a text, not {self.name!r}")
        if self.kind not in get_args(Kind):
            raise SettingError(
                f"the kind of column {self.name!r} is one of {', '.join(get_args(Kind))}, not {self.kind!r}"
            )
        if self.coded:
            self._settle_texts()
        else:
            self._settle_numbers()

    def _settle_texts(self) -> None:
        of = () if isinstance(self.of, str) else tuple(self.of)
        if not of or not all(isinstance(text, str) for text in of) or len(set(of)) < len(of):
            raise SettingError(f"a {self.kind} column has the texts that it may hold: of=(...), different ones, and "
                               f"column {self.name!r} has not")  # fmt: skip
        if (self.least, self.most) != (None, None):
            raise SettingError(f"least and most are of numbers, and column {self.name!r} holds texts")
        if self.fill is not None and self.fill not in of:
            raise SettingError(f"fill is one of the texts of column {self.name!r}, not {self.fill!r}")
        settle(self, of=of)

    def _settle_numbers(self) -> None:
        if tuple(self.of):
            raise SettingError(f"of has the texts of a category, and column {self.name!r} holds numbers")
        settle(self, of=())
        for name in ("least", "most", "fill"):
            if (given := getattr(self, name)) is not None:
                rule = f"{name} of column {self.name!r} is a number"
                settle(self, **{name: number(given, rule, lambda value: abs(value) <= LARGEST)})
        if self.least is not None and self.most is not None and self.least > self.most:
            raise SettingError(f"least is at most most, and column {self.name!r} goes from {self.least} to {self.most}")

    @property
    def coded(self) -> bool:
        """Whether it holds texts."""
        return self.kind in ("category", "indicators")

    @property
    def width(self) -> int:
        """How many numbers a row has of it."""
        return len(self.of) if self.kind == "indicators" else 1

    @property
    def expected(self) -> str:
        """What it may hold, in words."""
        if self.coded:
            return f"one of {', '.join(map(repr, self.of[:LISTED]))}" + (" ..." if len(self.of) > LISTED else "")
        kind = "whole numbers" if self.kind == "whole" else "numbers"
        match self.least, self.most:
            case None, None:
                return kind
            case least, None:
                return f"{kind} from {least:g}"
            case None, most:
                return f"{kind} to {most:g}"
            case least, most:
                return f"{kind} from {least:g} to {most:g}"


@dataclass(frozen=True)
class Cells:
    """Some rows of a column: float64 numbers, one or more a row, and how many rows are wrong in which way."""

    numbers: Float[np.ndarray, "rows width"]
    wrong: dict[str, int]


def read(column: Column, values: Values) -> Cells:
    """The rows of a column. What is wrong with a row is told in the order of what to look at first, and once."""
    numbers, checks = _texts(column, values) if column.coded else _numbers(column, values)
    wrong: dict[str, int] = {}
    fine = np.ones(len(values), bool)
    for what, check in checks.items():
        bad = check() & fine
        fine &= ~bad
        if count := int(bad.sum()):
            wrong[what] = count
    if column.kind == "indicators":
        numbers = numbers[:, None] == np.arange(len(column.of))
    return Cells(numbers.reshape(len(values), column.width).astype(np.float64), wrong)


def matches(values: Values, wanted: str | float) -> Bool[np.ndarray, " rows"]:
    """The rows that hold a text or a number."""
    return places_of(values, [wanted]) == 0 if isinstance(wanted, str) else _as_numbers(values)[0] == wanted


Checks = dict[str, Callable[[], Bool[np.ndarray, " rows"]]]


def _texts(column: Column, values: Values) -> tuple[Values, Checks]:
    places = places_of(_whole_as_whole(values), column.of)
    if column.fill is not None:
        places[np.isnan(places)] = column.of.index(str(column.fill))
    return places, {"nothing": lambda: np.isnan(places), "a text that is none of them": lambda: places < 0}


def _numbers(column: Column, values: Values) -> tuple[Values, Checks]:
    numbers, strange = _as_numbers(values)
    if column.fill is not None:
        numbers[np.isnan(numbers) & ~strange] = column.fill
    low = -np.inf if column.least is None else column.least
    high = np.inf if column.most is None else column.most
    checks: Checks = {
        _found(values[strange]): lambda: _told(values, strange),
        "nothing": lambda: np.isnan(numbers) & ~strange,
        "an infinite number": lambda: np.abs(numbers) > LARGEST,
    }
    if column.kind == "whole":
        checks["a fraction"] = lambda: numbers % 1 != 0
        checks["a number of more than 31 bits"] = lambda: np.abs(numbers) > MOST_WHOLE
    checks["a number outside"] = lambda: (numbers < low) | (numbers > high)
    return numbers, checks


def _as_numbers(values: Values) -> tuple[Values, Values]:
    """Values as float64, NaN where there is none, and which of them are something else than numbers."""
    if values.dtype.kind in "biuf":
        return values.astype(np.float64), np.zeros(len(values), bool)
    if values.dtype.kind != "O":
        missing = np.array([str(value) in MISSING for value in values], bool)
        return np.full(len(values), np.nan), ~missing
    nothing = np.array([value is None or (isinstance(value, str) and value in MISSING) for value in values], bool)
    strange = np.array([not isinstance(value, NUMBERS) for value in values], bool) & ~nothing
    numbers = np.full(len(values), np.nan)
    numbers[~nothing & ~strange] = [_float(value) for value in values[~nothing & ~strange]]
    return numbers, strange


def _told(values: Values, strange: Values) -> Values:
    """Of the rows that hold something else those that no number is written in, if there are any.

    One such row makes a whole column of a CSV file texts; the others are not what is wrong.
    """
    unreadable = strange.copy()
    unreadable[strange] = [not _reads(value) for value in values[strange]]
    return unreadable if unreadable.any() else strange


def _reads(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return np.inf
    except ValueError:  # a signalling NaN
        return np.nan


def _whole_as_whole(values: Values) -> Values:
    """Codes that became floats because some are missing, as whole numbers again."""
    if values.dtype.kind != "f":
        return values
    return np.array([int(value) if value % 1 == 0 else value for value in values.tolist()], object)


def _found(values: Values) -> str:
    """What values are that are no numbers, in words."""
    match values.dtype.kind:
        case "M":
            return "a date"
        case "m":
            return "a duration"
        case "c":
            return "a complex number"
        case "U" | "T" | "S":
            return "a text"
        case _:
            kinds = set(map(type, values))
            names = {"a text" if kind is str else f"a {kind.__name__}" for kind in kinds}
            return " or ".join(sorted(names))
