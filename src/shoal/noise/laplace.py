"""Laplace numbers from uniform words."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from shoal.noise.words import PIECE, Words


def laplace(words: Words, count: int) -> Float64[np.ndarray, " count"]:
    """Laplace numbers of scale 1: -ln u with a random sign, the logarithm of a uniform number being exponential.

    The sign is a word's last bit, u = (the other bits + 1/2) / 2**63, so that the longest is 44.4.

    >>> laplace(Words(bytes(32)), 2).shape
    (2,)
    """
    drawn = np.empty(count)
    for start in range(0, count, PIECE):
        piece = drawn[start : start + PIECE]
        bits = words.take(piece.size)
        np.add(bits >> np.uint64(1), 0.5, out=piece)
        np.log(np.multiply(piece, 2.0**-63, out=piece), out=piece)
        np.copysign(piece, (bits & np.uint64(1)).astype(np.float64) - 0.5, out=piece)
    return drawn
