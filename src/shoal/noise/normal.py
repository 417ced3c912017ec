"""Normal numbers from uniform words."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64

from shoal.noise.words import PIECE, Words


def normal(words: Words, count: int) -> Float64[np.ndarray, " count"]:
    """Standard normal numbers: sqrt(-2 ln u) cos(2 pi v) and sqrt(-2 ln u) sin(2 pi v), Box and Muller 1958.

    u = (word + 1/2) / 2**64, so that the longest is 9.5; every number takes as many operations as every other.

    >>> normal(Words(bytes(32)), 2).shape
    (2,)
    """
    drawn = np.empty(count)
    for start in range(0, count, PIECE):
        piece = drawn[start : start + PIECE]
        half = (piece.size + 1) // 2
        bits = words.take(2 * half)
        angle = np.multiply(bits[half:], 2 * math.pi / 2**64)
        length = np.add(bits[:half], 0.5)
        np.multiply(length, 2.0**-64, out=length)
        np.log(length, out=length)
        np.multiply(length, -2, out=length)
        np.sqrt(length, out=length)
        np.multiply(length, np.cos(angle), out=piece[:half])
        rest = piece.size - half
        np.multiply(length[:rest], np.sin(angle[:rest]), out=piece[half:])
    return drawn
