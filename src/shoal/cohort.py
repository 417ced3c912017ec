"""Who takes part in a round.

A sampler is a value: it is printed in the plan, and the accountant prices it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral, Real
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from shoal.errors import SettingError, UnsupportedError
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


@dataclass(frozen=True)
class Rotation:
    """`clients` clients in each round, one after the other around a circle: for populations that cannot be sampled.

    Nobody takes part twice within `separation` rounds, which is what noise that is correlated between rounds rests on.
    The circle is shuffled once for the run, and goes on where the round before ended.

    >>> rotation = Rotation(2, separation=3)
    >>> [rotation.turn(number, Key.from_seed(0), 6).tolist() for number in range(4)]
    [[0, 5], [1, 2], [3, 4], [0, 5]]
    """

    clients: int
    separation: int

    def __post_init__(self) -> None:
        settle(
            self,
            clients=whole(self.clients, "a cohort has at least one client", least=1),
            separation=whole(self.separation, "a client comes again after at least one round", least=1),
        )

    def turn(self, number: int, key: Key, population: int) -> Int[np.ndarray, " cohort"]:
        """Positions of those whose turn it is in a round, counted from 0; the key is the run's, not the round's."""
        first = number * self.most(population)
        circle = _circle(int(key.high), int(key.low), population)
        return np.sort(circle[np.arange(first, first + self.clients) % population])

    def draw(self, key: Key, population: int) -> Int[np.ndarray, " cohort"]:
        """Not by itself: whose turn it is depends on the round."""
        raise UnsupportedError(f"{self}: whose turn it is depends on the round, which only a simulation goes by so far")

    def most(self, population: int) -> int:
        """The number of clients; SettingError if the population is too small for the separation."""
        if self.clients * self.separation > population:
            raise SettingError(
                f"{self.clients} clients in each round, and none of them again within {self.separation} rounds, are "
                f"{self.clients * self.separation} clients, and the population has {population}: ask for fewer"
            )
        return self.clients


@lru_cache(maxsize=4)
def _circle(high: int, low: int, population: int) -> np.ndarray[Any, Any]:
    """All positions in the order in which they take turns."""
    return Key(high, low).generator().permutation(population)


def separation(sampler: Sampler) -> int:
    """After how many rounds, at the earliest, a sampler draws the same client again.

    >>> separation(Rotation(10, separation=20)), separation(Poisson(0.01))
    (20, 1)
    """
    return sampler.separation if isinstance(sampler, Rotation) else 1


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
