"""Noise that is correlated between rounds, for clients that cannot be sampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from shoal.aggregation.finish import Correlates, Sums
from shoal.aggregation.kinds import Bounded, Grid, Kind
from shoal.errors import SettingError
from shoal.key import Key
from shoal.matrices import Matrix
from shoal.settings import number, settle, whole
from shoal.vector import Layout, Vector


@dataclass(frozen=True)
class MatrixGaussian(Correlates[Bounded | Grid]):
    """Normal noise that partly takes back that of earlier rounds, then divided by a public number of `clients`.

    The matrix mechanism of DP-FTRL (Kairouz et al. 2021; Denisov et al. 2022). `multiplier` is for the run as a whole:
    before the `matrix` correlates it, the noise has `multiplier` times the deviation of what one client can add to C x
    in all rounds. So epsilon is that of one sum with normal noise, as long as no client comes again before the matrix's
    separation, which a plan holds its cohort to. Drawn from the run's key: simulated noise.

    >>> from shoal.matrices import Blt
    >>> MatrixGaussian(2.0, clients=100, matrix=Blt(200, 20))
    MatrixGaussian(multiplier=2.0, clients=100, matrix=Blt(rounds=200, separation=20, buffers=2))
    """

    multiplier: float
    clients: int
    matrix: Matrix
    takes: ClassVar[tuple[Kind, ...]] = (Bounded, Grid)

    def __post_init__(self) -> None:
        settle(
            self,
            multiplier=number(self.multiplier, "a noise multiplier is over 0", lambda v: v > 0),
            clients=whole(self.clients, "a sum is divided by at least one client", least=1),
        )
        if not isinstance(self.matrix, Matrix):
            raise SettingError(
                f"a matrix of noise is Blt(rounds, separation), Banded(...) or Tree(...), not {self.matrix!r}"
            )

    def begin(self, layout: Layout) -> Any:
        """What the matrix remembers."""
        return self.matrix.begin(layout.size)

    def follow(self, sums: Sums, key: Key, memory: Any) -> tuple[Vector, Any]:
        """(value + multiplier * sensitivity of the matrix and of the sum * its row of C^-1 z) / clients."""
        noise, memory = self.matrix.row(key, sums.value, memory)
        deviation = self.multiplier * self.matrix.sensitivity * sums.sensitivity
        return (sums.value + np.float32(deviation) * noise) * np.float32(1 / self.clients), memory

    def check_schedule(self, *, rounds: int, separation: int) -> None:
        """SettingError for more rounds than the matrix has, or clients who come again sooner than it allows."""
        if rounds > self.matrix.rounds:
            raise SettingError(
                f"the noise of {self.matrix} is for {self.matrix.rounds} rounds, and the plan has {rounds}: "
                f"say {type(self.matrix).__name__}({rounds}, {self.matrix.separation})"
            )
        if separation < self.matrix.separation:
            raise SettingError(
                f"the noise of {self.matrix} hides clients who come again after {self.matrix.separation} rounds, and "
                f"this cohort may bring one back after {separation}: cohort=Rotation(clients, "
                f"separation={self.matrix.separation}) keeps them apart"
            )
