"""Clipping: the step that bounds what one client can say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from shoal.aggregation.kinds import Bounded, Free, Kind
from shoal.aggregation.payload import Update
from shoal.aggregation.step import Step
from shoal.key import Key
from shoal.settings import number, settle
from shoal.vector import Layout, Vector, namespace, norm

# A scaled float32 vector can come out longer than asked by the roundings of its norm, its factor and its
# numbers; shrinking by this much more keeps the promise.
_SLACK = 1 - 2.0**-18
# A factor below 2**-126 has too few bits left to keep it.
_MOST, _LARGEST = 2.0**100, float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Clip(Step[Free, Bounded]):
    """Scales a contribution down to an L2 norm of at most `norm`; shorter ones stay as they are.

    value * min(1, norm / ||value||), McMahan et al. 2018, "Learning differentially private recurrent language
    models", section 3 (flat clipping). No result is longer than `norm`, rounding included; a contribution with
    a number that is not finite, or 2**100 times as long as `norm`, becomes zeros.

    >>> from shoal.vector import Layout, Part
    >>> Clip(2.0).bound(float("inf"), Layout((Part("w", (3,)),)))
    2.0
    """

    norm: float
    gives: ClassVar[Kind | None] = Bounded

    def __post_init__(self) -> None:
        settle(self, norm=number(self.norm, "a clipping norm is over 0 and finite", lambda v: v > 0))

    def encode(self, update: Update, state: Any, key: Key) -> tuple[Update, Any]:
        """Clips the value."""
        xp = namespace(update.value)
        length = norm(update.value)
        limit = self.norm * _SLACK
        value = xp.where(length <= min(self.norm * _MOST, _LARGEST), update.value, 0)  # not if it is not a number
        factor = xp.where(length > limit, limit / xp.where(length > limit, length, 1), 1)
        return replace(update, value=value * factor.astype(np.float32)), state

    def decode(self, total: Vector) -> Vector:
        """The sum as it is."""
        return total

    def bound(self, before: float, layout: Layout) -> float:
        """`norm`, or less if less was known."""
        return min(before, self.norm)
