"""Noise that takes back all earlier noise, more of what is recent, from a few sums that fade."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shoal.key import Key
from shoal.matrices.banded import weighted
from shoal.matrices.matrix import Matrix
from shoal.matrices.toeplitz import (
    Column,
    best_buffers,
    buffered_column,
    buffered_summed_inverse,
    error,
    sensitivity,
)
from shoal.settings import settle, whole
from shoal.vector import Vector, namespace


@dataclass(frozen=True)
class Blt(Matrix):
    """The buffered linear Toeplitz matrix with the least noise: BLT (McMahan, Xu and Zhang 2024), nearly as exact.

    It remembers `buffers` vectors, however many rounds there are between two turns of a client.

    >>> noise = Blt(200, 20)
    >>> round(noise.error, 1), round(noise.sensitivity, 1)
    (10.6, 5.6)
    """

    buffers: int = field(default=2, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, buffers=whole(self.buffers, "buffers are from 1 to 4", least=1, most=4))

    @property
    def weights(self) -> Column:
        """What each buffer counts."""
        return best_buffers(self.rounds, self.separation, self.buffers)[0]

    @property
    def decays(self) -> Column:
        """What is left of each buffer after a round."""
        return best_buffers(self.rounds, self.separation, self.buffers)[1]

    @property
    def sensitivity(self) -> float:
        """How long one client's part of C x can be."""
        column = buffered_column(self.weights, self.decays, self.rounds)
        return sensitivity(column, rounds=self.rounds, separation=self.separation)

    @property
    def error(self) -> float:
        """The deviation of the noise in a model, over the rounds."""
        return error(buffered_summed_inverse(self.weights, self.decays, self.rounds)) * self.sensitivity

    def begin(self, size: int) -> Any:
        """The buffers, empty."""
        return np.zeros((self.buffers, size), np.float32)

    def row(self, key: Key, like: Vector, memory: Any) -> tuple[Vector, Any]:
        """z_t less the buffers by their weights; then each fades, and the noise is added to all."""
        xp = namespace(like)
        past = xp.asarray(memory)
        noise = key.normal(like) - weighted(xp.asarray(self.weights, "float32"), past)
        return noise, xp.asarray(self.decays, "float32")[:, None] * past + noise
