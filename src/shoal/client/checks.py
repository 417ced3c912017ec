"""Checks of a policy's values: each gives the value as it is kept, or says what is allowed there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, cast

from shoal.errors import SettingError
from shoal.settings import number, whole

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_TIME = r"([01]\d|2[0-3]):[0-5]\d"


def flag(name: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise SettingError(f"{name} is true or false, not {value!r}")
    return value


def some(name: str, value: Any) -> int:
    """A whole number, 0 or more."""
    return whole(value, f"{name} is a whole number, 0 or more", least=0)


def more_than_zero(name: str, value: Any) -> float:
    """A number over 0."""
    return number(value, f"{name} is a number over 0", lambda v: v > 0)


def fraction(name: str, value: Any) -> float:
    """A number over 0 and at most 1."""
    return number(value, f"{name} is a number over 0 and at most 1", lambda v: 0 < v <= 1)


def probability(name: str, value: Any) -> float:
    """A number over 0 and under 1."""
    return number(value, f"{name} is a number over 0 and under 1", lambda v: 0 < v < 1)


def window(name: str, value: Any) -> str:
    """A time of day to another, as HH:MM-HH:MM."""
    if not isinstance(value, str) or not re.fullmatch(rf"{_TIME}-({_TIME}|24:00)", value) or value[:5] == value[6:]:
        raise SettingError(f'{name} is a window of the day such as "20:00-06:00", not {value!r}')
    return value


def days(name: str, value: Any) -> tuple[str, ...]:
    """Days of the week."""
    given = _texts(value)
    if not given or not set(given) <= set(DAYS):
        raise SettingError(f"{name} is a list of {', '.join(DAYS)}, not {value!r}")
    return given


def allowed(name: str, value: Any) -> Literal["any"] | tuple[str, ...]:
    """ "any", or digests and names with * in them."""
    if value == "any":
        return "any"
    given = _texts(value)
    if given is None or not all(given) or "any" in given:
        raise SettingError(f'{name} is "any", or a list of digests ("sha256:...") and names ("heart-*"), not {value!r}')
    for entry in given:
        if entry.startswith("sha256:") and not re.fullmatch("sha256:[0-9a-f]{64}", entry):
            raise SettingError(f"{name}: a digest is sha256: and 64 digits of 0-9 and a-f, which {entry!r} is not")
    return given


def _texts(value: Any) -> tuple[str, ...] | None:
    if not isinstance(value, list | tuple):
        return None
    texts = tuple(cast("Sequence[Any]", value))
    return texts if all(isinstance(text, str) for text in texts) else None
