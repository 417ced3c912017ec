"""Decimal rounding, as tutorials do it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from shoal.aggregation.payload import Update
from shoal.aggregation.step import Compresses
from shoal.key import Key
from shoal.settings import settle, whole
from shoal.vector import Layout, Vector, namespace


@dataclass(frozen=True)
class Round(Compresses):
    """Rounds every number to `decimals` decimals, half to even.

    It saves no byte before an entropy coder, is biased, and erases updates smaller than half its step; wrap it
    in `Remember` to send later what was rounded away. `Quantize` is the step that saves.

    >>> Round(2).decimals
    2
    """

    decimals: int

    def __post_init__(self) -> None:
        settle(self, decimals=whole(self.decimals, "a float32 has 0 to 7 decimals to round to", least=0, most=7))

    def encode(self, update: Update, state: Any, key: Key) -> tuple[Update, Any]:
        """Rounds the value."""
        xp = namespace(update.value)
        fine = xp.abs(update.value) < 2.0**24  # larger ones have no decimals, and could overflow on the way
        rounded = xp.round(xp.where(fine, update.value, 0), self.decimals)
        return replace(update, value=xp.where(fine, rounded, update.value)), state

    def decode(self, total: Vector) -> Vector:
        """The sum as it is."""
        return total

    def bound(self, before: float, layout: Layout) -> float:
        """Half a rounding step more in every coordinate; a float32 that is too large to round stays itself."""
        return before * (1 + 1e-6) + 0.5 * 10.0**-self.decimals * math.sqrt(layout.size)

    def upload_bytes(self, layout: Layout) -> int:
        """As many as without it."""
        return layout.size_bytes
