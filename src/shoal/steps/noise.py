"""Noise in shares: each client adds a little, and only the sum has enough."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from shoal.aggregation.payload import Update
from shoal.aggregation.step import Noises
from shoal.key import Key
from shoal.settings import number, settle, whole
from shoal.vector import Layout, Vector


@dataclass(frozen=True)
class NoiseShare(Noises):
    """Adds one client's part of noise worth `multiplier` times the sensitivity, if `at_least` clients answer.

    Symmetric Skellam noise, the difference of two Poisson draws (Agarwal, Kairouz and Liu 2021, section 2):
    shares of variance (multiplier * bound / unit)**2 / at_least add up to one of the whole variance, or
    more when more clients answer. A site draws it from the operating system, a simulation from the run's key.

    >>> NoiseShare(1.0, at_least=80).at_least
    80
    """

    multiplier: float
    at_least: int

    def __post_init__(self) -> None:
        settle(
            self,
            multiplier=number(self.multiplier, "a noise multiplier is over 0", lambda v: v > 0),
            at_least=whole(self.at_least, "noise is shared by at least one client", least=1),
        )

    def encode(self, update: Update, state: Any, key: Key) -> tuple[Update, Any]:
        """Adds the share."""
        noise = key.skellam(self.deviation(update.bound / update.unit) ** 2, update.value)
        return replace(update, value=update.value + noise), state

    def deviation(self, bound: float) -> float:
        """multiplier * bound / sqrt(at_least)."""
        return self.multiplier * bound / math.sqrt(self.at_least)

    def decode(self, total: Vector) -> Vector:
        """The sum as it is, noise included."""
        return total

    def bound(self, before: float, layout: Layout) -> float:
        """The bound before: sensitivity is about the value, not the noise."""
        return before
