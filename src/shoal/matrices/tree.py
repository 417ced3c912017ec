"""Noise of sums over spans of rounds: each span of 1, 2, 4, 8, ... rounds has noise of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shoal.key import Key
from shoal.matrices.matrix import Matrix
from shoal.matrices.spans import sensitivity_squared
from shoal.vector import Vector, namespace


@dataclass(frozen=True)
class Tree(Matrix):
    """The binary tree of DP-FTRL (Kairouz et al. 2021, "Practical and private (deep) learning without sampling").

    A span's noise is made more exact by that of the spans in it (Honaker 2015, "Efficient use of differentially private
    binary trees", as far as it can be done online). It needs no fit, and adds more noise than the other two.

    >>> noise = Tree(200, 20)
    >>> round(noise.error, 2), round(noise.sensitivity, 2)
    (18.38, 12.29)
    """

    @property
    def sensitivity(self) -> float:
        """How long one client's part of C x can be; spans that end after the last round do not count."""
        return float(np.sqrt(sensitivity_squared(self.rounds, self.separation)))

    @property
    def error(self) -> float:
        """The deviation of the noise in a model, over the rounds."""
        spans = np.arange(1, self.rounds + 1)[:, None] >> np.arange(self._levels) & 1
        variances = 2.0 ** np.arange(self._levels) / (2.0 ** np.arange(1, self._levels + 1) - 1)
        return float(np.sqrt(np.mean(spans @ variances))) * self.sensitivity

    @property
    def _levels(self) -> int:
        return self.rounds.bit_length()

    def begin(self, size: int) -> Any:
        """The noise of each level's last span, where it is not in a longer one yet; and the round's number."""
        return np.zeros((self._levels, size), np.float32), np.int32(0)

    def row(self, key: Key, like: Vector, memory: Any) -> tuple[Vector, Any]:
        """The noise of the spans that the rounds so far are made of, less that of the round before."""
        spans, number = namespace(like).asarray(memory[0]), memory[1]
        taken = _carried_traced if isinstance(like, jax.Array) else _carried
        level, noise, replaced, spans = taken(key.split("span"), like, spans, number)
        spans = spans.at[level].set(noise) if isinstance(spans, jax.Array) else _with(spans, level, noise)
        return noise - replaced, (spans, number + np.int32(1))


def _carried(key: Key, like: Vector, spans: Any, number: Any) -> tuple[Any, Vector, Vector, Any]:
    """The level of the longest span that ends now, its noise, that of the spans it is made of, and the others."""
    level, noise, replaced = 0, key.split(0).normal(like), np.zeros_like(like)
    while int(number) >> level & 1:
        replaced = replaced + spans[level]
        noise = _longer(key, like, level, spans[level] + noise)
        spans = _with(spans, level, np.zeros_like(like))
        level += 1
    return level, noise, replaced, spans


def _carried_traced(key: Key, like: Vector, spans: Any, number: Any) -> tuple[Any, Vector, Vector, Any]:
    """`_carried` inside a compiled call: two draws a round on average, however many levels there are."""

    def ends(carry: Any) -> Any:
        return jnp.right_shift(number, carry[0]) & 1 == 1

    def join(carry: Any) -> Any:
        level, noise, replaced, spans = carry
        noise, replaced = _longer(key, like, level, spans[level] + noise), replaced + spans[level]
        return level + 1, noise, replaced, spans.at[level].set(0)

    first = (jnp.int32(0), key.split(0).normal(like), jnp.zeros_like(like), spans)
    return jax.lax.while_loop(ends, join, first)


def _longer(key: Key, like: Vector, level: Any, halves: Vector) -> Vector:
    """The noise of a span of the next level: its own, and that of its halves, by the inverse of their variances."""
    own = np.float32(2) ** (level + 1) / (np.float32(2) ** (level + 2) - np.float32(1))
    return own * key.split(level + 1).normal(like) + (np.float32(1) - own) * halves


def _with(spans: Any, level: int, noise: Vector) -> Any:
    spans = spans.copy()
    spans[level] = noise
    return spans
