"""Noise in shares: each client adds a little, and only the sum has enough."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from shoal.aggregation.kinds import Grid, Kind, Shares
from shoal.aggregation.payload import Update
from shoal.aggregation.step import Step
from shoal.errors import SettingError
from shoal.key import Key
from shoal.vector import Layout, Vector


@dataclass(frozen=True)
class NoiseShare(Step[Grid, Shares]):
    """Adds one client's part of noise worth `multiplier` times the sensitivity, if `at_least` clients answer.

    Symmetric Skellam noise, the difference of two Poisson draws (Agarwal, Kairouz and Liu 2021, section 2):
    shares of variance (multiplier * bound / unit)**2 / at_least add up to one of the whole variance, or
    more when more clients answer. Drawn from the run's key: simulated noise.

    >>> NoiseShare(1.0, at_least=80).at_least
    80
    """

    multiplier: float
    at_least: int
    takes: ClassVar[tuple[Kind, ...]] = (Grid,)
    gives: ClassVar[Kind | None] = Shares

    def __post_init__(self) -> None:
        if not 0 < self.multiplier < float("inf"):
            raise SettingError(f"a noise multiplier is over 0, not {self.multiplier}")
        if self.at_least < 1:
            raise SettingError(f"noise is shared by at least one client, not {self.at_least}")

    def encode(self, update: Update, state: Any, key: Key) -> tuple[Update, Any]:
        """Adds the share."""
        variance = (self.multiplier * update.bound / update.unit) ** 2 / self.at_least
        up, down = (key.split(way).poisson(variance / 2, update.value) for way in ("up", "down"))
        return replace(update, value=update.value + (up - down)), state

    def decode(self, total: Vector) -> Vector:
        """The sum as it is, noise included."""
        return total

    def bound(self, before: float, layout: Layout) -> float:
        """The bound before: sensitivity is about the value, not the noise."""
        return before
