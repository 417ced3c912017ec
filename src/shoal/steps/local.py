"""Local differential privacy: each client makes its contribution private before anybody sees it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from shoal.aggregation.kinds import Bounded, Free, Kind
from shoal.aggregation.payload import Update
from shoal.aggregation.step import Randomizes
from shoal.key import Key
from shoal.settings import number, settle
from shoal.steps.clip import shortened
from shoal.vector import Layout, Vector, norm1

_EPSILON = "the epsilon of one contribution is from 1e-6 to 50"
_LEAST, _MOST = 1e-6, 50


@dataclass(frozen=True)
class LocalGaussian(Randomizes[Bounded]):
    """Adds normal noise with which one contribution gives away `epsilon` at `delta` of its client, whoever sees it.

    Any contribution may be replaced by any other, which moves it by up to twice its bound. The noise has the least
    deviation for that: the analytic Gaussian mechanism of Balle and Wang 2018 ("Improving the Gaussian mechanism for
    differential privacy", algorithm 1). Drawn from the run's key: simulated noise; and in floats, whose last bits tell
    a little of what was added up (Mironov 2012).

    >>> round(LocalGaussian(1.0, 1e-6).multiplier, 3)
    4.225
    """

    epsilon: float
    delta: float
    takes: ClassVar[tuple[Kind, ...]] = (Bounded,)

    def __post_init__(self) -> None:
        settle(
            self,
            epsilon=number(self.epsilon, _EPSILON, lambda v: _LEAST <= v <= _MOST),
            delta=number(self.delta, "delta is under 1, and at least 1e-100", lambda v: 1e-100 <= v < 1),
        )

    @property
    def multiplier(self) -> float:
        """The deviation of the noise over twice the bound."""
        return _least_noise(self.epsilon, self.delta)

    def encode(self, update: Update, state: Any, key: Key) -> tuple[Update, Any]:
        """Adds the noise."""
        noise = np.float32(self._deviation(update.bound)) * key.normal(update.value)
        return replace(update, value=update.value + noise), state

    def decode(self, total: Vector) -> Vector:
        """The sum as it is, noise included."""
        return total

    def bound(self, before: float, layout: Layout) -> float:
        """The bound before: sensitivity is about the value, not the noise."""
        return before

    def deviation(self, bound: float, layout: Layout) -> float:
        """multiplier * 2 * bound."""
        return self._deviation(bound)

    def _deviation(self, bound: float) -> float:
        return self.multiplier * 2 * bound


@dataclass(frozen=True)
class LocalLaplace(Randomizes[Free]):
    """Scales a contribution down to an L1 norm of at most `norm`, and adds Laplace noise of scale 2 * norm / epsilon.

    One contribution then gives away `epsilon` of its client, with no delta (Dwork, McSherry, Nissim and Smith 2006,
    "Calibrating noise to sensitivity in private data analysis", proposition 1): replaced by any other it moves by up
    to 2 * norm in L1. A contribution that is not finite, or 2**100 times as long, counts as zeros. Noise as that of
    `LocalGaussian`.

    >>> LocalLaplace(2.0, norm=1.0).scale
    1.0
    """

    epsilon: float
    norm: float

    def __post_init__(self) -> None:
        settle(
            self,
            epsilon=number(self.epsilon, _EPSILON, lambda v: _LEAST <= v <= _MOST),
            norm=number(self.norm, "a clipping norm is over 0 and finite", lambda v: v > 0),
        )

    @property
    def scale(self) -> float:
        """The scale of the noise."""
        return 2 * self.norm / self.epsilon

    def encode(self, update: Update, state: Any, key: Key) -> tuple[Update, Any]:
        """Clips the value, and adds the noise."""
        value = shortened(update.value, norm1(update.value), limit=self.norm)
        return replace(update, value=value + np.float32(self.scale) * key.laplace(value)), state

    def decode(self, total: Vector) -> Vector:
        """The sum as it is, noise included."""
        return total

    def bound(self, before: float, layout: Layout) -> float:
        """`norm`, or less if less was known: no vector is longer in L2 than in L1."""
        return min(before, self.norm)

    def deviation(self, bound: float, layout: Layout) -> float:
        """sqrt(2) * scale."""
        return math.sqrt(2) * self.scale


@lru_cache(maxsize=256)
def _least_noise(epsilon: float, delta: float) -> float:
    """The least deviation of normal noise, over the sensitivity, that gives away `epsilon` at `delta`.

    delta falls with the noise, and is what Balle and Wang 2018, theorem 8, say; so it is searched for.
    """

    def enough(noise: float) -> bool:
        here, there = (_below(way / (2 * noise) - epsilon * noise) for way in (1, -1))
        return here - math.exp(epsilon) * there <= delta

    most = 1.0
    while not enough(most):
        most *= 2
    least = most / 2
    while enough(least):
        least, most = least / 2, least
    while most / least > 1 + 1e-12:
        middle = math.sqrt(least * most)
        least, most = (least, middle) if enough(middle) else (middle, most)
    return most


def _below(number: float) -> float:
    """The probability that a standard normal number is below another."""
    return math.erfc(-number / math.sqrt(2)) / 2
