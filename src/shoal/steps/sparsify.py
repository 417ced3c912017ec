"""Sparsification: only the largest numbers are sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shoal.aggregation.payload import Update
from shoal.aggregation.step import Compresses
from shoal.key import Key
from shoal.settings import number, settle
from shoal.vector import Array, Layout, Vector


@dataclass(frozen=True)
class TopK(Compresses):
    """Keeps the `fraction` of the numbers that are largest in size, at least one, and zeroes the others.

    Aji and Heafield 2017, "Sparse communication for distributed gradient descent". Numbers equal to the
    smallest kept count by their place, the first first. `Remember(TopK(...))` sends what was left out in later rounds.

    >>> TopK(0.1).kept(1000)
    100
    """

    fraction: float

    def __post_init__(self) -> None:
        rule = "the fraction that is kept is over 0 and at most 1"
        settle(self, fraction=number(self.fraction, rule, lambda v: 0 < v <= 1))

    def kept(self, size: int) -> int:
        """How many of `size` numbers are kept."""
        return max(1, int(self.fraction * size + 1e-9)) if size else 0

    def encode(self, update: Update, state: Any, key: Key) -> tuple[Update, Any]:
        """Zeroes what is below the smallest kept."""
        value = update.value
        kept = self.kept(value.shape[0])
        if kept == value.shape[0]:
            return update, state
        if isinstance(value, jax.Array):
            return replace(update, value=jnp.where(_largest(value, kept), value, 0)), state
        sparse = np.zeros_like(value)
        places = np.argsort(-np.abs(value), kind="stable")[:kept]
        sparse[places] = value[places]
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


def _largest(value: Array, k: int) -> Array:
    """Which k numbers are largest in size; of equals the first.

    Their bits are integers of the same order, and the k-th largest is found a bit at a time, and so is the last
    of the equals that still has room: some fifty passes of counting. XLA's sort on a CPU takes a hundred times
    as long for a million numbers.
    """
    bits = jax.lax.bitcast_convert_type(jnp.abs(value), jnp.int32)
    smallest = _highest(31, lambda floor: jnp.sum(bits >= floor) >= k)
    equal, place = bits == smallest, jnp.arange(value.shape[0])
    room = k - jnp.sum(bits > smallest)
    end = _highest(value.shape[0].bit_length(), lambda end: jnp.sum(equal & (place < end)) <= room)
    return (bits > smallest) | (equal & (place < end))


def _highest(width: int, holds: Callable[[Array], Array]) -> Array:
    """The highest integer of so many bits for which a condition holds that holds for all below it."""

    def settle_bit(passed: Any, floor: Array) -> Array:
        higher = floor | (jnp.int32(1) << (width - 1 - passed))
        return jnp.where(holds(higher), higher, floor)

    return jax.lax.fori_loop(0, width, settle_bit, jnp.int32(0))
