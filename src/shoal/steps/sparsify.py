"""Sparsification: only the largest numbers are sent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shoal.aggregation.payload import Update
from shoal.aggregation.step import Compresses
from shoal.errors import SettingError
from shoal.key import Key
from shoal.vector import Array, Layout, Vector


@dataclass(frozen=True)
class TopK(Compresses):
    """Keeps the `fraction` of the numbers that are largest in size, at least one, and zeroes the others.

    Aji and Heafield 2017, "Sparse communication for distributed gradient descent". Numbers equal to the
    smallest kept are kept too. `Remember(TopK(...))` sends what was left out in later rounds.

    >>> TopK(0.1).kept(1000)
    100
    """

    fraction: float

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise SettingError(f"the fraction that is kept is over 0 and at most 1, not {self.fraction}")

    def kept(self, size: int) -> int:
        """How many of `size` numbers are kept."""
        return max(1, int(self.fraction * size)) if size else 0

    def encode(self, update: Update, state: Any, key: Key) -> tuple[Update, Any]:
        """Zeroes what is below the smallest kept."""
        value = update.value
        kept = self.kept(value.shape[0])
        if kept == value.shape[0]:
            return update, state
        if isinstance(value, jax.Array):
            sparse = jnp.where(_bits(value) >= _kth_largest(_bits(value), kept), value, 0)
        else:
            sizes = np.abs(value)
            sparse = np.where(sizes >= np.partition(sizes, -kept)[-kept], value, 0)
        return replace(update, value=sparse), state

    def decode(self, total: Vector) -> Vector:
        """The sum as it is."""
        return total

    def bound(self, before: float, layout: Layout) -> float:
        """The bound before: zeroing never lengthens."""
        return before

    def upload_bytes(self, layout: Layout) -> int:
        """A number and its place for each kept."""
        return self.kept(layout.size) * (np.dtype(layout.dtype).itemsize + 4)


def _bits(value: Vector) -> Array:
    """The sizes of float32 numbers as integers of the same order."""
    return jax.lax.bitcast_convert_type(jnp.abs(value), jnp.int32)


def _kth_largest(bits: Array, k: int) -> Array:
    """The k-th largest of non-negative integers, a bit at a time.

    31 passes of counting; XLA's sort on a CPU takes a hundred times as long for a million numbers.
    """

    def settle(place: Any, floor: Array) -> Array:
        higher = floor | (jnp.int32(1) << (30 - place))
        return jnp.where(jnp.sum(bits >= higher) >= k, higher, floor)

    return jax.lax.fori_loop(0, 31, settle, jnp.int32(0))
