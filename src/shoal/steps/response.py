"""Randomized response: counts of yes and no in which no single answer can be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from shoal.aggregation.kinds import Free
from shoal.aggregation.payload import Update
from shoal.aggregation.step import Randomizes
from shoal.key import Key
from shoal.settings import number, settle, whole
from shoal.vector import Layout, Vector, namespace

_YES = 0.5
_PARTS = 2**32


@dataclass(frozen=True)
class RandomizedResponse(Randomizes[Free]):
    """Turns each number into a yes or a no, lies about each with some probability, and makes the sums right again.

    A number over 1/2 is a yes, and at most the first `ones` of them are. Two contributions then differ in at most
    m = min(2 * ones, size) answers, and each answer is the wrong one with probability f = 1 / (1 + e^(epsilon / m)), so
    that one contribution gives away `epsilon` of its client, with no delta: Warner 1965 for a single answer, symmetric
    unary encoding for several (Wang, Blocki, Li and Jha 2017, "Locally differentially private protocols for frequency
    estimation", section 4.2). What is sent is (answer - f) / (1 - 2 f), which on average is the true 0 or 1, with a
    deviation of sqrt(f (1 - f)) / (1 - 2 f).

    f is rounded up to a part of 2**32, and what is sent is one of two numbers, so nothing leaks through floats. The
    lies are drawn from the run's key: simulated.

    >>> round(RandomizedResponse(1.0).lie(1), 4), round(RandomizedResponse(1.0).lie(10), 4)
    (0.2689, 0.3775)
    """

    epsilon: float
    ones: int = 1

    def __post_init__(self) -> None:
        ones = whole(self.ones, "a contribution has at least one yes", least=1)
        rule = "the epsilon of one contribution is at most 50, and at least 2e-6 for each yes"
        settle(self, epsilon=number(self.epsilon, rule, lambda v: 2e-6 * ones <= v <= 50), ones=ones)

    def differing(self, size: int) -> int:
        """In how many of `size` answers two contributions differ at most."""
        return min(2 * self.ones, size)

    def lie(self, size: int) -> float:
        """The probability that one of `size` answers is the wrong one."""
        return self._parts(size) / _PARTS

    def encode(self, update: Update, state: Any, key: Key) -> tuple[Update, Any]:
        """Answers, and makes the answers right on average."""
        xp, size = namespace(update.value), update.value.shape[-1]
        true = update.value > _YES  # which no number is that is not one
        true = true & (xp.cumsum(true) <= self.ones)
        answer = true ^ key.coins(self._parts(size), update.value)
        lie = self.lie(size)
        no, yes = (np.asarray((said - lie) / (1 - 2 * lie), update.value.dtype) for said in (0, 1))
        return replace(update, value=xp.where(answer, yes, no)), state

    def decode(self, total: Vector) -> Vector:
        """The sum as it is."""
        return total

    def bound(self, before: float, layout: Layout) -> float:
        """sqrt(ones): sensitivity is about the true answers."""
        return math.sqrt(min(self.ones, layout.size))

    def deviation(self, bound: float, layout: Layout) -> float:
        """sqrt(f (1 - f)) / (1 - 2 f)."""
        lie = self.lie(layout.size)
        return math.sqrt(lie * (1 - lie)) / (1 - 2 * lie)

    def longest(self, bound: float, layout: Layout) -> float:
        """That of nothing but yes: what is sent is one of two numbers."""
        lie = self.lie(layout.size)
        return math.sqrt(layout.size) * (1 - lie) / (1 - 2 * lie)

    def _parts(self, size: int) -> int:
        """Of 2**32 parts, in how many an answer is the wrong one."""
        return math.ceil(_PARTS / (1 + math.exp(self.epsilon / max(self.differing(size), 1))))
