"""Randomness as a value: a key is split by name, never advanced in place.

The generator is Threefry-2x32 with 20 rounds (Salmon, Moraes, Dror and Shaw 2011, "Parallel random
numbers: as easy as 1, 2, 3"), the one that JAX uses: a key's words are a JAX key's words. One function
computes it on Python integers, on traced values inside a compiled call and on whole arrays of keys, so a
client's key is the same number in every runtime.

Not for secrets: outside simulation, keys and noise come from the operating system.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shoal.errors import SettingError
from shoal.noise import tables
from shoal.settings import whole

Word = Any
"""A 32-bit word: a Python integer, or a uint32 array, concrete or traced."""

_MASK = 0xFFFFFFFF
_PARITY = 0x1BD11BDA
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Key:
    """A key of 64 bits. Whole arrays of words make an array of keys.

    >>> key = Key.from_seed(0)
    >>> key.split("round", 3, "client", "a") == key.split("round", 3).split("client", "a")
    True
    >>> float(key.generator().random()) == float(key.generator().random())
    True
    """

    high: Word
    low: Word

    @staticmethod
    def from_seed(seed: int) -> Key:
        """The key of a seed, 0 <= seed < 2**64."""
        seed = whole(seed, "a seed is a whole number from 0 to 2**64 - 1", least=0, most=2**64 - 1)
        return Key(seed >> 32, seed & _MASK)

    def split(self, *names: str | int | Word) -> Key:
        """The key of a name below this key: strings, and numbers below 2**32 that may be traced."""
        key = self
        for name in names:
            key = key.fold(*name_words(name)) if isinstance(name, str) else key.fold(0, name)
        return key

    def fold(self, high: Word, low: Word) -> Key:
        """The key of a 64-bit number below this key; arrays of numbers give an array of keys."""
        words = [_checked(word) for word in (self.high, self.low, high, low)]
        if all(isinstance(word, int) for word in words):
            return Key(*_threefry(*words))
        return Key(*_traced_threefry(*(np.uint32(word) if isinstance(word, int) else word for word in words)))

    def traceable(self) -> Key:
        """The same key as arrays: what a compiled call takes, so that it is not compiled for each key anew."""
        return Key(np.uint32(self.high), np.uint32(self.low))

    def jax(self) -> jax.Array:
        """The same key for `jax.random`."""
        words = jnp.stack([jnp.asarray(self.high, jnp.uint32), jnp.asarray(self.low, jnp.uint32)])
        return jax.random.wrap_key_data(words, impl="threefry2x32")

    def generator(self) -> np.random.Generator:
        """A NumPy generator (counter-based Philox) that starts at this key."""
        return np.random.Generator(np.random.Philox(key=(int(self.high) << 32) | int(self.low)))

    def uniform(self, like: Any) -> Any:
        """Numbers in [0, 1) in the shape of `like` (float32): the same ones as NumPy, as JAX and traced."""
        return _as(like, jax.random.uniform(self.jax(), like.shape, np.float32))

    def normal(self, like: Any) -> Any:
        """Standard normal numbers in the shape of `like` (float32)."""
        return _as(like, jax.random.normal(self.jax(), like.shape, np.float32))

    def laplace(self, like: Any) -> Any:
        """Laplace numbers of scale 1 in the shape of `like` (float32)."""
        return _as(like, jax.random.laplace(self.jax(), like.shape, np.float32))

    def coins(self, parts: int, like: Any) -> Any:
        """For each number of `like` a coin that is True with probability parts / 2**32 exactly, 0 <= parts < 2**32."""
        return _as(like, jax.random.bits(self.jax(), like.shape, np.uint32) < np.uint32(parts))

    def skellam(self, variance: float, like: Any) -> Any:
        """Symmetric Skellam numbers in the shape of `like` (int32), from the same tables as noise of real runs.

        The difference of two Poisson draws of mean variance / 2. Above a deviation of 1024, where the two differ by
        less than float32 can show, normal numbers rounded to integers.
        """
        if variance > tables.WIDEST**2:
            rounded = jnp.round(jax.random.normal(self.jax(), like.shape, np.float32) * np.float32(math.sqrt(variance)))
            return _as(like, rounded.astype(jnp.int32))
        return _as(like, _looked_up(tables.skellam(variance), *self._word_halves(like)))

    def discrete_gaussian(self, deviation: float, like: Any) -> Any:
        """Discrete Gaussian numbers in the shape of `like` (int32), from the same tables as noise of real runs.

        Above a deviation of 1024 normal numbers rounded to integers, of the variance that makes it the wanted one.
        """
        if deviation > tables.WIDEST:
            wide = jax.random.normal(self.jax(), like.shape, np.float32) * np.float32(math.sqrt(deviation**2 - 1 / 12))
            return _as(like, jnp.round(wide).astype(jnp.int32))
        return _as(like, _looked_up(tables.discrete_gaussian(deviation), *self._word_halves(like)))

    def _word_halves(self, like: Any) -> list[jax.Array]:
        """The upper and the lower 32 bits of a 64-bit word for each number of `like`."""
        return [jax.random.bits(self.split(half).jax(), like.shape, np.uint32) for half in ("high", "low")]

    def integer(self) -> int:
        """A number from 0 to 2**31 - 1, for libraries that want a seed."""
        return int(self.low) >> 1


def name_words(name: str) -> tuple[int, int]:
    """The two words that stand for a name: the start of its SHA-256, the first bit set.

    The first bit keeps names apart from numbers, whose high word is zero.
    """
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:4], "big") | 1 << 31, int.from_bytes(digest[4:8], "big")


def _as(like: Any, drawn: jax.Array) -> Any:
    return np.asarray(drawn) if isinstance(like, np.ndarray) else drawn


def _looked_up(table: tables.Table, high: jax.Array, low: jax.Array) -> jax.Array:
    """`Table.draw` from the two halves of words: JAX has no 64-bit integers unless it is told to."""
    column = high >> (32 - table.bits)
    top, bottom = (jnp.asarray((table.threshold >> shift).astype(np.uint32)) for shift in (np.uint64(32), np.uint64(0)))
    high = high & np.uint32((1 << (32 - table.bits)) - 1)
    limit = top[column]
    own = (high < limit) | ((high == limit) & (low < bottom[column]))
    return jnp.where(own, column.astype(jnp.int32), jnp.asarray(table.other)[column]) - table.reach


def _checked(word: Word) -> Word:
    if isinstance(word, int | np.integer):
        if not 0 <= int(word) <= _MASK:
            raise SettingError(f"a number in a key is from 0 to 2**32 - 1, not {word}")
        return int(word)
    return word.astype(np.uint32)


def _threefry(k0: Word, k1: Word, x0: Word, x1: Word) -> tuple[Word, Word]:
    """One block of Threefry-2x32-20 (Salmon et al. 2011, section 4.2)."""
    exact = isinstance(k0, int)  # Python integers do not wrap by themselves
    mask, parity = (_MASK, _PARITY) if exact else (np.uint32(_MASK), np.uint32(_PARITY))
    keys = (k0, k1, k0 ^ k1 ^ parity)
    x0, x1 = (x0 + k0) & mask, (x1 + k1) & mask
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x0 = (x0 + x1) & mask
            x1 = (((x1 << rotation) & mask) | (x1 >> (32 - rotation))) ^ x0
        x0 = (x0 + keys[(group + 1) % 3]) & mask
        x1 = (x1 + keys[(group + 2) % 3] + (group + 1)) & mask
    return x0, x1


_traced_threefry = jax.jit(_threefry)  # traced once, not at each of a program's many splits
