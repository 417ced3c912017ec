"""Who takes part in a round.

A sampler is a value: it is printed in the plan, and the accountant prices it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from shoal.errors import SettingError
from shoal.key import Key
from shoal.settings import number, settle, whole


@runtime_checkable
class Sampler(Protocol):
    """Draws the cohort of a round."""

    def draw(self, key: Key, population: int) -> Int[np.ndarray, " cohort"]:
        """Positions of the chosen clients, ascending, each at most once."""
        ...

    def most(self, population: int) -> int:
        """A size that no more than one cohort in a billion exceeds."""
        ...


@dataclass(frozen=True)
class Everyone:
    """Every client in every round.

    >>> Everyone().draw(Key.from_seed(0), 3)
    array([0, 1, 2])
    """

    def draw(self, key: Key, population: int) -> Int[np.ndarray, " cohort"]:
        """All positions."""
        return np.arange(population)

    def most(self, population: int) -> int:
        """The population."""
        return population


@dataclass(frozen=True)
class Fixed:
    """Exactly `clients` clients, drawn without replacement.

    >>> len(Fixed(2).draw(Key.from_seed(0), 5))
    2
    """

    clients: int

    def __post_init__(self) -> None:
        settle(self, clients=whole(self.clients, "a cohort has at least one client", least=1))

    def draw(self, key: Key, population: int) -> Int[np.ndarray, " cohort"]:
        """Positions drawn without replacement; SettingError if the population is smaller."""
        chosen = key.generator().choice(population, self.most(population), replace=False, shuffle=False)
        return np.sort(chosen)

    def most(self, population: int) -> int:
        """The number of clients; SettingError if the population is smaller."""
        if self.clients > population:
            raise SettingError(
                f"a cohort of {self.clients} is larger than the population of {population} clients: "
                f"ask for at most {population}, or cohort=1.0 for everyone"
            )
        return self.clients


@dataclass(frozen=True)
class Fraction:
    """A fraction of the population, at least one client, drawn without replacement.

    >>> len(Fraction(0.5).draw(Key.from_seed(0), 5))
    2
    """

    fraction: float

    def __post_init__(self) -> None:
        rule = "a fraction of the population is over 0 and at most 1"
        settle(self, fraction=number(self.fraction, rule, lambda v: 0 < v <= 1))

    def draw(self, key: Key, population: int) -> Int[np.ndarray, " cohort"]:
        """Positions drawn without replacement."""
        return Fixed(self.most(population)).draw(key, population)

    def most(self, population: int) -> int:
        """The fraction in clients, rounded to the nearest and at least one."""
        return max(1, round(self.fraction * population))


@dataclass(frozen=True)
class Poisson:
    """Each client by itself with probability `rate`: the sampling that amplifies privacy.

    A cohort may be empty; the round is then counted and changes nothing.

    >>> bool(len(Poisson(0.5).draw(Key.from_seed(0), 1000)) < 600)
    True
    """

    rate: float

    def __post_init__(self) -> None:
        settle(self, rate=number(self.rate, "a sampling rate is over 0 and at most 1", lambda v: 0 < v <= 1))

    def draw(self, key: Key, population: int) -> Int[np.ndarray, " cohort"]:
        """Positions of those whose coin fell right."""
        return np.flatnonzero(key.generator().random(population) < self.rate)

    def most(self, population: int) -> int:
        """The mean and seven standard deviations."""
        mean = self.rate * population
        return min(population, math.ceil(mean + 7 * math.sqrt(mean * (1 - self.rate)) + 7))


def sampler(cohort: int | float | Sampler | None) -> Sampler:
    """The sampler meant by a number of clients, a fraction, a sampler, or None for everyone.

    >>> sampler(10), sampler(0.1), sampler(None)
    (Fixed(clients=10), Fraction(fraction=0.1), Everyone())
    """
    match cohort:
        case None:
            return Everyone()
        case Integral() if not isinstance(cohort, bool):
            return Fixed(int(cohort))
        case Real() if not isinstance(cohort, bool):
            return Fraction(float(cohort))
        case Sampler():
            return cohort
        case _:
            raise SettingError(
                f"a cohort is a number of clients, a fraction, a sampler, or None for everyone, not {cohort!r}"
            )
