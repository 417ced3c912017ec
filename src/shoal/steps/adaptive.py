"""Clipping to a norm that finds itself: a quantile of the clients' norms, learned from round to round."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from shoal.aggregation.kinds import Bounded, Free, Kind
from shoal.aggregation.payload import Update
from shoal.aggregation.step import Adapts
from shoal.key import Key
from shoal.settings import number, settle
from shoal.steps.clip import shortened
from shoal.vector import Layout, Part, Vector, namespace, norm

_SMALLEST, _LARGEST = 1e-20, 1e20


@dataclass(frozen=True)
class AdaptiveClip(Adapts[Free, Bounded]):
    """Clips to a norm that goes where a `quantile` of the clients' contributions is shorter; `norm` is the first.

    Andrew, Thakkar, McMahan and Ramaswamy 2021, "Differentially private learning with adaptive clipping", algorithm 1:
    after each round norm * exp(-rate * (fraction - quantile)), where the fraction of clients who were not clipped is
    released with noise of its own. It rides in the value as one more number, so any noise after it covers both, and
    `share` is the part of the squared sensitivity that it takes: the value's noise grows by 1 / sqrt(1 - share), as in
    their theorem 1. What follows is in units of the norm, in which no client's value is longer than 1.

    >>> AdaptiveClip(0.1).bound(float("inf"), Layout((Part("w", (3,)),)))
    1.0
    """

    norm: float
    quantile: float = field(default=0.5, kw_only=True)
    rate: float = field(default=0.2, kw_only=True)
    share: float = field(default=0.01, kw_only=True)
    gives: ClassVar[Kind | None] = Bounded
    setting_name: ClassVar[str] = "clipping norm"

    def __post_init__(self) -> None:
        settle(
            self,
            norm=number(self.norm, "a clipping norm is from 1e-20 to 1e20", lambda v: _SMALLEST <= v <= _LARGEST),
            quantile=number(self.quantile, "a quantile is over 0 and under 1", lambda v: 0 < v < 1),
            rate=number(self.rate, "the rate of a norm is over 0 and at most 1", lambda v: 0 < v <= 1),
            share=number(self.share, "the share of the quantile is from 1e-6 to 0.999", lambda v: 1e-6 <= v <= 0.999),
        )

    def begin(self) -> Any:
        """The first norm."""
        return np.float32(self.norm)

    def encode(self, update: Update, state: Any, key: Key) -> tuple[Update, Any]:
        """The value in units of the norm, clipped, and whether it was as short as that."""
        xp, setting = namespace(update.value), _possible(update.setting, update.value)
        length, scale = norm(update.value), self._part / setting
        value = shortened(update.value, length * scale, limit=float(self._part)) * scale
        told = xp.where(length <= setting, 1 - self.quantile, -self.quantile) * self._weight
        return replace(update, value=xp.concatenate([value, told.astype(value.dtype)[None]])), state

    def decode(self, total: Vector) -> Vector:
        """The sum, still in units of the norm."""
        return total

    def settle(self, result: Vector, setting: Any) -> tuple[Vector, Any]:
        """The result in units of training, and the next norm."""
        xp = namespace(result)
        over = xp.clip(result[-1] / self._weight, -1, 1)
        following = _possible(setting * xp.exp(-np.float32(self.rate) * over), result)
        return result[:-1] * (setting / self._part), following

    def after(self, layout: Layout) -> Layout:
        """One number more."""
        return Layout((*layout.parts, Part("not clipped", (1,), layout.dtype)), layout.dtype)

    def bound(self, before: float, layout: Layout) -> float:
        """1, in units of the norm."""
        return 1.0

    @property
    def coarsest(self) -> float:
        """A quarter of the smaller of the two numbers that a client tells."""
        return min(self.quantile, 1 - self.quantile) * float(self._weight) / 4

    @property
    def _part(self) -> np.float32:
        """How long a value of the norm is."""
        return np.float32(math.sqrt(1 - self.share))

    @property
    def _weight(self) -> np.float32:
        """What one client of all says about the quantile is worth: their fraction's length is at most sqrt(share)."""
        return np.float32(math.sqrt(self.share) / max(self.quantile, 1 - self.quantile) * (1 - 2.0**-18))


def _possible(setting: Any, like: Vector) -> Any:
    """The setting as a number to divide by, whatever a server sent."""
    xp = namespace(like)
    setting = xp.asarray(setting, "float32")
    return xp.clip(xp.where(setting > _SMALLEST, setting, np.float32(_SMALLEST)), max=np.float32(_LARGEST))
