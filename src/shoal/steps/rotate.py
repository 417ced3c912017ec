"""Rotation: every number of a vector becomes a bit of all numbers, so that none is large."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from shoal.aggregation.payload import Update
from shoal.aggregation.step import KeepsKind
from shoal.key import Key
from shoal.settings import settle, whole
from shoal.vector import Array, Layout, Vector, namespace

# Each of the two passes rounds a number fewer than fifty times, in float32 and there and back.
_SLACK = 1 + 1e-5
_UNLIKELY = 61 * math.log(2)
_RADIX = 16


@dataclass(frozen=True)
class Rotate(KeepsKind):
    """Turns a contribution, so that its length spreads over all its numbers; the sum is turned back.

    A randomised Hadamard transform, H D x, with public signs D from the seed (Suresh, Yu, Kumar and McMahan 2017,
    "Distributed mean estimation with limited communication", section 3): over the largest power of two of numbers
    from the start, then over as many up to the end, so that nothing is padded. Of a vector that was not made for
    these signs, no number is much larger than the others afterwards: a grid of 16 bits can be much finer.

    >>> from shoal.vector import Part
    >>> round(Rotate().entry(1.0, Layout((Part("w", (2**20,)),))), 4)
    0.0103
    """

    seed: int = 0

    def __post_init__(self) -> None:
        settle(self, seed=whole(self.seed, "a seed is a whole number from 0 to 2**64 - 1", least=0, most=2**64 - 1))

    def encode(self, update: Update, state: Any, key: Key) -> tuple[Update, Any]:
        """Turns the value."""
        value = update.value
        for place in _places(value.shape[-1]):
            value = _put(value, place, _mixed(value[..., place] * self._signs(place, value)))
        return replace(update, value=value), state

    def decode(self, total: Vector) -> Vector:
        """Turns the sum back."""
        for place in reversed(_places(total.shape[-1])):
            total = _put(total, place, _mixed(total[..., place]) * self._signs(place, total))
        return total

    def bound(self, before: float, layout: Layout) -> float:
        """The bound before: turning keeps a length, up to float32's rounding."""
        return before * _SLACK

    def entry(self, bound: float, layout: Layout) -> float:
        """The most that a number of a vector of such a norm is.

        Of vectors that were made without the signs, one in 2**60 has a larger one.
        """
        rare = _UNLIKELY + math.log(max(layout.size, 1))
        return bound * min(1.0, _SLACK * math.sqrt(2 * rare / _block(layout.size)))

    def _signs(self, place: slice, like: Vector) -> Vector:
        """The signs of a block over the square root of its length."""
        length = place.stop - place.start
        key = Key.from_seed(self.seed).split("rotate", "start" if place.start == 0 else "end")
        if not isinstance(like, jax.Array):
            return _drawn(key, length).astype(like.dtype)
        words = jax.lax.optimization_barrier(
            (np.uint32(key.high), np.uint32(key.low))
        )  # or XLA draws while it compiles
        return _draw(Key(*words), length).astype(like.dtype)


def _block(size: int) -> int:
    """The largest power of two up to a size."""
    return 1 << (max(size, 1).bit_length() - 1)


def _places(size: int) -> list[slice]:
    """The blocks that are turned, in order: from the start, and up to the end."""
    block = _block(size)
    return [slice(0, block), slice(size - block, size)][: 1 if size == block else 2] if size else []


def _put(value: Vector, place: slice, block: Vector) -> Vector:
    if isinstance(value, jax.Array):
        return value.at[..., place].set(block)
    value = value.copy()
    value[..., place] = block
    return value


def _mixed(block: Vector) -> Vector:
    """The Hadamard transform of the last axis, not scaled.

    The transform is the same for each bit of a place. Sixteen at most rows that differ in the highest bits are
    mixed, and these bits go to the other end: once all have been there, they are in order again.
    """
    xp, length, done = namespace(block), block.shape[-1], 1
    while done < length:
        rows = min(_RADIX, length // done)
        parts = block.reshape(*block.shape[:-1], rows, length // rows)
        turned = xp.matmul(parts.swapaxes(-1, -2), _hadamard(rows).astype(block.dtype), **_exactly(block))
        block, done = turned.reshape(block.shape), done * rows
    return block


def _exactly(block: Vector) -> dict[str, Any]:
    """Accelerators multiply in fewer bits unless they are asked not to."""
    return {"precision": "highest"} if isinstance(block, jax.Array) else {}


def _hadamard(rows: int) -> Any:
    """The Hadamard matrix of a power of two of rows, in the order of Sylvester."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < rows:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def _draw(key: Key, length: int) -> Array:
    signs = jax.random.rademacher(key.jax(), (length,), np.float32)
    return signs * np.float32(1 / math.sqrt(length))


@lru_cache(maxsize=4)
def _drawn(key: Key, length: int) -> Any:
    return np.asarray(_draw(key, length))
