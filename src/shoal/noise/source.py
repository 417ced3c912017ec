"""Noise that nobody can predict or draw again: for everything that is not a simulation."""

from __future__ import annotations

import os
import secrets
from typing import Any

import numpy as np

from shoal.noise.laplace import laplace
from shoal.noise.normal import normal
from shoal.noise.tables import wide_gaussian, wide_skellam
from shoal.noise.words import KEY_BYTES, Words


class SecureNoise:
    """Noise from 32 bytes of the operating system, stretched by AES-256 in counter mode.

    It takes no seed, has no state that could be saved, and a process that is forked gets bytes of its own. Its methods
    are those of `Key`, so a finish takes one or the other; the arrays are NumPy's.

    >>> SecureNoise().discrete_gaussian(3.0, np.zeros(4, np.int32)).dtype
    dtype('int32')
    """

    def __init__(self) -> None:
        self._process, self._words = os.getpid(), _seeded()

    def normal(self, like: Any) -> Any:
        """Standard normal numbers in the shape and dtype of `like`, a float array; computed in float64."""
        return normal(self._fresh(), like.size).reshape(like.shape).astype(like.dtype)

    def laplace(self, like: Any) -> Any:
        """Laplace numbers of scale 1 in the shape and dtype of `like`, a float array; computed in float64."""
        return laplace(self._fresh(), like.size).reshape(like.shape).astype(like.dtype)

    def coins(self, parts: int, like: Any) -> Any:
        """For each number of `like` a coin that is True with probability parts / 2**32 exactly, 0 <= parts < 2**32."""
        return (self._fresh().take(like.size) >> np.uint64(32) < np.uint64(parts)).reshape(like.shape)

    def discrete_gaussian(self, deviation: float, like: Any) -> Any:
        """Discrete Gaussian numbers in the shape of `like` (int32); SettingError for a deviation over 524,288."""
        return _shaped(wide_gaussian(self._fresh(), like.size, deviation=deviation), like)

    def skellam(self, variance: float, like: Any) -> Any:
        """Symmetric Skellam numbers in the shape of `like` (int32); SettingError for a deviation over 32,768."""
        return _shaped(wide_skellam(self._fresh(), like.size, variance=variance), like)

    def _fresh(self) -> Words:
        """The words of this process."""
        if self._process != os.getpid():
            self._process, self._words = os.getpid(), _seeded()
        return self._words


def _seeded() -> Words:
    return Words(secrets.token_bytes(KEY_BYTES))


def _shaped(drawn: Any, like: Any) -> Any:
    return drawn.reshape(like.shape).astype(np.int32)
