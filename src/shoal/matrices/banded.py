"""Noise that takes back noise of the last few rounds, each with its own number."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shoal.key import Key
from shoal.matrices.matrix import Matrix
from shoal.matrices.toeplitz import Column, best_bands, error, sensitivity, summed_inverse
from shoal.settings import settle, whole
from shoal.vector import Vector, namespace


@dataclass(frozen=True)
class Banded(Matrix):
    """The banded Toeplitz matrix with the least noise: BandMF (Choquette-Choo et al. 2023), the most exact.

    `bands` is how far noise reaches back, `separation` at most and unless said; bands - 1 vectors are remembered.

    >>> noise = Banded(200, 20)
    >>> round(noise.error, 1), round(noise.sensitivity, 1)
    (10.0, 5.3)
    """

    bands: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        most = min(self.rounds, self.separation)
        rule = f"bands are from 1 to {most} here, so that a client comes once in as many rounds; 0 for all of them"
        settle(self, bands=whole(self.bands, rule, least=0, most=most) or most)

    @cached_property
    def column(self) -> Column:
        """The first column of the matrix, without its zeros."""
        return best_bands(self.rounds, self.bands)

    @property
    def sensitivity(self) -> float:
        """How long one client's part of C x can be."""
        return sensitivity(self.column, rounds=self.rounds, separation=self.separation)

    @property
    def error(self) -> float:
        """The deviation of the noise in a model, over the rounds."""
        return error(summed_inverse(self.column, self.rounds)) * self.sensitivity

    def begin(self, size: int) -> Any:
        """The noise of the last rounds, none yet, and where that of the next goes."""
        return np.zeros((self.bands - 1, size), np.float32), np.int32(0)

    def row(self, key: Key, like: Vector, memory: Any) -> tuple[Vector, Any]:
        """z_t - sum over k of c_k * the noise of round t - k."""
        xp = namespace(like)
        past, place = xp.asarray(memory[0]), memory[1]
        kept = self.bands - 1
        noise = key.normal(like)
        if not kept:
            return noise, memory
        ago = xp.asarray(self.column[1:], "float32")[(place - 1 - np.arange(kept)) % kept]
        noise = noise - weighted(ago, past)
        return noise, (_put(past, place, noise), (place + np.int32(1)) % np.int32(kept))


def weighted(weights: Vector, rows: Any) -> Vector:
    """The sum of rows times weights, in all digits on every device."""
    return jnp.matmul(weights, rows, precision="highest") if isinstance(rows, jax.Array) else weights @ rows


def _put(rows: Any, place: Any, row: Vector) -> Any:
    """The rows with another one at a place."""
    if isinstance(rows, jax.Array):
        return rows.at[place].set(row)
    rows = rows.copy()
    rows[place] = row
    return rows
