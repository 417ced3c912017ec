"""Integer noise from tables: every draw is one 64-bit word, one look into a table and one comparison.

No draw takes longer than another, as draws by rejection do, so its time says nothing about its value. A table holds
a distribution in parts of 2**64, computed in integers, so it is the same on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import lru_cache
from itertools import pairwise

import numpy as np
from jaxtyping import Int32, Int64, UInt64

from shoal.errors import SettingError
from shoal.noise.words import PIECE, Words
from shoal.settings import number

WIDEST = 1024.0
"""The largest standard deviation of a table: its columns fit in a core's cache."""
LARGEST = WIDEST * 512
"""The largest standard deviation of discrete Gaussian noise, in steps of the grid."""
MOST_DRAWS = 1024
"""How many draws are added up at most for one Skellam number."""
LARGEST_SHARE = WIDEST * math.sqrt(MOST_DRAWS)
"""The largest standard deviation of Skellam noise, in steps of the grid."""

_BITS = 64
_EXACT = 192
"""Bits after the point while probabilities are computed: 2**128 times as fine as a table is."""


@dataclass(frozen=True, eq=False)
class Table:
    """A distribution on the integers from -`reach` to `reach`, as columns of equal weight (Walker 1977; Vose 1991).

    A word's first `bits` bits choose a column, the others are compared with its `threshold`: below it the draw is the
    column's own place, else its `other`; both are counted from -reach.
    """

    reach: int
    bits: int
    threshold: UInt64[np.ndarray, " columns"]
    other: Int32[np.ndarray, " columns"]

    def draw(self, words: Words, count: int) -> Int64[np.ndarray, " count"]:
        """So many independent draws.

        >>> discrete_gaussian(2.0).draw(Words(bytes(32)), 5).shape
        (5,)
        """
        drawn = np.empty(count, np.int64)
        shift, mask = np.uint64(_BITS - self.bits), np.uint64((1 << (_BITS - self.bits)) - 1)
        for start in range(0, count, PIECE):
            piece = drawn[start : start + PIECE]
            word = words.take(piece.size)
            column = (word >> shift).view(np.int64)
            own = (word & mask) < self.threshold.take(column)
            np.subtract(np.where(own, column, self.other.take(column)), self.reach, out=piece)
        return drawn


@lru_cache(maxsize=16)
def discrete_gaussian(deviation: float) -> Table:
    """The table of P(k) ~ exp(-k**2 / (2 deviation**2)), up to a deviation of `WIDEST` (Canonne et al. 2020).

    Less than 2**-64 is missing beyond its reach, and no probability is wrong by more than 2**-64.
    """
    deviation = number(deviation, "the deviation of a table of noise is over 0 and at most 1024", _fits)
    one = 1 << _EXACT
    with localcontext(prec=80):
        variance = Decimal(deviation) ** 2
        first, ratio = (int((-power / variance).exp() * one) for power in (Decimal("0.5"), Decimal(1)))
    tail, term = [one], one  # P(k + 1) / P(k) = first * ratio**k, with no power to round
    while term:
        term, first = term * first >> _EXACT, first * ratio >> _EXACT
        tail.append(term)
    return _table(tail)


@lru_cache(maxsize=16)
def skellam(variance: float) -> Table:
    """The table of the difference of two Poisson draws of mean variance / 2, up to a deviation of `WIDEST`.

    P(k) ~ I_k(variance), the modified Bessel functions, from I_(k-1) = I_(k+1) + (2 k / variance) I_k downwards, which
    is stable (Abramowitz and Stegun 1964, section 9.12). As exact as `discrete_gaussian`.
    """
    rule = "the variance of a table of noise is over 0 and at most 1024**2"
    variance = number(variance, rule, lambda v: v >= 2.0**-32 and _fits(math.sqrt(v)))
    over, under = variance.as_integer_ratio()
    reach = 40 + math.ceil(16 * math.sqrt(variance))
    weights, after = [1 << _EXACT], 0
    for k in range(reach, 0, -1):
        here = weights[-1]
        weights.append(after + 2 * k * under * here // over)
        after = here
    return _table(weights[::-1])


def wide_gaussian(words: Words, count: int, *, deviation: float) -> Int64[np.ndarray, " count"]:
    """Discrete Gaussian draws up to a deviation of `LARGEST`; SettingError beyond.

    Above `WIDEST` x + k y, of two draws of deviation / sqrt(1 + k**2): within 2**-60 of the distribution, as each is
    wider than 1.5 k (Micciancio and Peikert 2013, theorem 3.3; Poeppelmann, Ducas and Guneysu 2014, section 4).

    >>> wide_gaussian(Words(bytes(32)), 3, deviation=1e5).shape
    (3,)
    """
    if deviation > LARGEST:
        raise SettingError(
            f"discrete Gaussian noise has a deviation of at most {LARGEST:,.0f} steps of the grid, not "
            f"{deviation:,.0f}: use a coarser step"
        )
    k = _factor(deviation)
    table = discrete_gaussian(deviation / math.sqrt(1 + k**2))
    drawn = table.draw(words, count)
    return drawn + k * table.draw(words, count) if k else drawn


def wide_skellam(words: Words, count: int, *, variance: float) -> Int64[np.ndarray, " count"]:
    """Skellam draws of any variance up to `MOST_DRAWS` tables'; SettingError beyond.

    Sums of Skellam numbers are Skellam numbers, so above a table's variance draws are added up.

    >>> wide_skellam(Words(bytes(32)), 3, variance=1e7).shape
    (3,)
    """
    draws = max(1, math.ceil(variance / WIDEST**2))
    if draws > MOST_DRAWS:
        raise SettingError(
            f"Skellam noise has a deviation of at most {LARGEST_SHARE:,.0f} steps of the grid, not "
            f"{math.sqrt(variance):,.0f}: use a coarser step"
        )
    table = skellam(variance / draws)
    drawn = table.draw(words, count)
    for _ in range(1, draws):
        drawn += table.draw(words, count)
    return drawn


def _fits(deviation: float) -> bool:
    return 0 < deviation <= WIDEST


def _factor(deviation: float) -> int:
    """The least k for which deviation / sqrt(1 + k**2) has a table."""
    k = math.isqrt(max(0, math.ceil((deviation / WIDEST) ** 2) - 1))
    while deviation / math.sqrt(1 + k**2) > WIDEST:
        k += 1
    return k


def _table(weights: list[int]) -> Table:
    """The table of a symmetric distribution from its weights at 0, 1, 2, ...

    What is rounded is the tail's weight from each number on, so errors do not add up beyond the reach.
    """
    whole = 2 * sum(weights) - weights[0]
    tails, rest = list[int](), sum(weights)
    for weight in weights:
        rest -= weight
        tails.append(((rest << (_BITS + 1)) // whole + 1) // 2)  # of everything beyond this number
        if not tails[-1]:
            break
    beside = [beyond - further for beyond, further in pairwise(tails)]
    parts = [*reversed(beside), (1 << _BITS) - 2 * sum(beside), *beside]
    return _levelled(parts, reach=len(beside))


def _levelled(parts: list[int], *, reach: int) -> Table:
    """Parts of 2**64 in columns of equal weight: what a column lacks is filled up from one that has too much."""
    bits = max(1, (len(parts) - 1).bit_length())
    level = 1 << (_BITS - bits)
    left = [*parts, *[0] * ((1 << bits) - len(parts))]
    other = list(range(len(left)))
    threshold = [level] * len(left)
    high = [place for place, part in enumerate(left) if part > level]
    low = [place for place, part in enumerate(left) if part < level]
    for place in low:  # grows while it is gone through: who gives may lack afterwards
        giver = high[-1]
        threshold[place], other[place] = left[place], giver
        left[giver] -= level - left[place]
        if left[giver] <= level:
            high.pop()
            if left[giver] < level:
                low.append(giver)
    return Table(reach, bits, np.array(threshold, np.uint64), np.array(other, np.int32))
