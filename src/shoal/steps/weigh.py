"""Weighing: a client counts by its examples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from shoal.aggregation.payload import Update
from shoal.aggregation.step import Weighs
from shoal.key import Key
from shoal.settings import number, settle
from shoal.vector import Layout, Vector, namespace


@dataclass(frozen=True)
class Weigh(Weighs):
    """Scales a contribution by its number of examples over `cap`, so that `Mean` weighs it by them.

    A client with more examples than the cap counts as one with `cap`. Because the factor is at most 1 no
    weight can make a bounded contribution longer.

    >>> from shoal.aggregation import Mean, PlainSum
    >>> (Weigh(cap=500) >> PlainSum() >> Mean()).cap
    500.0
    """

    cap: float

    def __post_init__(self) -> None:
        settle(self, cap=number(self.cap, "the cap of a weight is at least 1 example", lambda v: v >= 1))

    def encode(self, update: Update, state: Any, key: Key) -> tuple[Update, Any]:
        """Scales the value, and sets the weight that will be sent."""
        xp = namespace(update.value)
        weight = xp.clip(xp.asarray(update.examples, np.float32), 0, np.float32(self.cap))
        value = update.value * (weight * np.float32(1 / self.cap)).astype(update.value.dtype)
        return replace(update, value=value, weight=weight), state

    def decode(self, total: Vector) -> Vector:
        """The sum as it is: the total weight divides it in the finish."""
        return total

    def bound(self, before: float, layout: Layout) -> float:
        """The bound before."""
        return before
