"""What every matrix of correlated noise does.

With independent noise in each round, a model that has added up t rounds has the noise of all t in it. The matrix
mechanism (Denisov, McMahan, Rush, Smith and Thakurta 2022, "Improved differential privacy for SGD via optimal private
linear operators on adaptive streams") adds C^-1 z instead of z: what a round adds partly takes back what earlier ones
added. All rounds together give away as much as C x + z, x being the rounds' sums: one Gaussian mechanism, whose
sensitivity is how long one client's part of C x can be.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from shoal.key import Key
from shoal.settings import settle, whole
from shoal.vector import Vector


@dataclass(frozen=True)
class Matrix(ABC):
    """A matrix C of `rounds` columns, for clients that come again after `separation` rounds at the earliest."""

    rounds: int
    separation: int

    def __post_init__(self) -> None:
        settle(
            self,
            rounds=whole(self.rounds, "a matrix of noise is for at least one round", least=1),
            separation=whole(self.separation, "a client comes again after at least one round", least=1),
        )

    @property
    @abstractmethod
    def sensitivity(self) -> float:
        """The most that one client adds to C x in L2 norm, where its part of each round's sum is at most 1."""

    @property
    @abstractmethod
    def error(self) -> float:
        """The noise of a model that has added up the rounds so far: its deviation in one number, over the rounds.

        The root of its mean square, with a noise multiplier of 1 and clients' parts of at most 1.
        """

    @abstractmethod
    def begin(self, size: int) -> Any:
        """What is remembered before the first round, for vectors of a size: arrays."""

    @abstractmethod
    def row(self, key: Key, like: Vector, memory: Any) -> tuple[Vector, Any]:
        """A round's row of C^-1 z in the shape of `like`, z standard normal, and what is remembered for the next."""
