"""Checking settings where they are given: a number of the wrong kind or size gets a sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

from shoal.errors import SettingError


def number(value: Any, rule: str, holds: Callable[[float], bool]) -> float:
    """The value as a float; SettingError with the rule if it is no number, not finite, or does not hold.

    >>> number(1, "a clipping norm is over 0", lambda v: v > 0)
    1.0
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise SettingError(f"{rule}, not {value!r}")
    if not (math.isfinite(value) and holds(float(value))):
        raise SettingError(f"{rule}, not {value}")
    return float(value)


def whole(value: Any, rule: str, *, least: int, most: float = math.inf) -> int:
    """The value as an int; SettingError with the rule if it is no whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise SettingError(f"{rule}, not {value!r}")
    settled = int(value)
    if not least <= settled <= most:
        raise SettingError(f"{rule}, not {settled}")
    return settled


def settle(instance: Any, **values: Any) -> None:
    """Puts checked values into a frozen dataclass while it is made."""
    for name, value in values.items():
        object.__setattr__(instance, name, value)
