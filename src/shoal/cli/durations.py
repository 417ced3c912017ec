"""Durations as people write them: 90s, 30m, 1h, 7d."""

from __future__ import annotations

import re

from shoal.errors import SettingError

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def seconds(text: str) -> float:
    """A duration in seconds; SettingError if it is none.

    >>> seconds("90"), seconds("1.5h"), seconds("1h30m")
    (90.0, 5400.0, 5400.0)
    """
    if re.fullmatch(r"\d+(\.\d+)?", text):
        text += "s"
    if not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        raise SettingError(f"a duration is such as 90s, 30m, 1h or 7d, not {text!r}")
    return sum(float(number) * _SECONDS[unit] for number, unit in re.findall(r"([\d.]+)([smhd])", text))
