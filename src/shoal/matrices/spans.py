"""How much one client can add to the sums over a tree's spans."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

Scores = np.ndarray[Any, Any]

_MANY = 64
"""More turns of one client than this are not searched through, but bounded."""
_FINE = 64
"""A separation of more rounds than this is first made coarser: by whole powers of two if it can, else rounded down."""


@lru_cache(maxsize=64)
def sensitivity_squared(rounds: int, separation: int) -> int:
    """The most that the squares of a client's turns within each span can sum up to, over all whole spans.

    Spans are those of 1, 2, 4, ... rounds that begin at a multiple of their length and end within the rounds. Exact for
    up to 64 turns, unless the separation is over 64 and no multiple of a power of two; else a bound from above.

    >>> sensitivity_squared(2048, 512), sensitivity_squared(2000, 100)
    (64, 425)
    """
    turns = -(-rounds // separation)
    if turns > _MANY:
        return _bound(rounds, separation, turns)
    within = 0  # levels of spans so short that no client has two turns in one
    while separation > _FINE or (separation % 2 == 0 and rounds % 2 == 0):
        rounds, separation, within = -(-rounds // 2), separation // 2, within + 1
    return _searched(rounds, separation, within)


def _bound(rounds: int, separation: int, turns: int) -> int:
    """Level by level: no span has more turns than fit, and all of them together have all turns."""
    total = 0
    for level in range(rounds.bit_length()):
        fit = -(-(1 << level) // separation)
        total += min((rounds >> level) * fit * fit, turns * fit)
    return total


def _searched(rounds: int, separation: int, within: int) -> int:
    """The best turns, from left to right over the spans that the rounds are made of.

    `best[turns, free]` is the most that so many turns score if the last of them leaves `free` rounds before the end.
    """
    best = np.zeros((1, separation))
    for level in reversed(range(rounds.bit_length())):
        if rounds >> level & 1:
            best = _followed(best, level, separation, within)
    return int(best[:, 0].max())


def _followed(best: Scores, level: int, separation: int, within: int) -> Scores:
    """`best` after one more span, all of whose own spans count."""
    span = _span(level, separation, within)
    after = np.full((len(best) + len(span) - 1, separation), -np.inf)
    length = 1 << level
    for before, scores in enumerate(best):
        for turns, table in enumerate(span):
            if not turns:  # those before leave so many rounds more
                found = scores[np.maximum(0, np.arange(separation) - length)]
            elif not before:
                found = table[0]
            else:
                found = (scores[:, None] + table[::-1]).max(axis=0)
            after[before + turns] = np.maximum(after[before + turns], found)
    return after


@lru_cache(maxsize=64)
def _span(level: int, separation: int, within: int) -> Scores:
    """The most that turns in one span score: [turns, first, free], the first turn not before `first`.

    Negative infinity where so many do not fit. First and free are under the separation: more makes no difference.
    """
    length = 1 << level
    if length <= separation:
        ends = np.arange(separation)[:, None] + np.arange(separation)
        one = np.where(ends < length, within + level + 1.0, -np.inf)
        return np.stack([np.zeros_like(one), one])
    half = _span(level - 1, separation, within)
    length //= 2
    table = np.full((2 * len(half) - 1, separation, separation), -np.inf)
    far = np.maximum(0, np.arange(separation) - length)
    for left, first in enumerate(half):
        for right, last in enumerate(half):
            if not right:
                found = first[:, far]
            elif not left:
                found = last[far]
            else:  # the left one leaves `free`, so the right one's first turn is not before separation - 1 - free
                found = (first[:, :, None] + last[::-1][None]).max(axis=1)
            table[left + right] = np.maximum(table[left + right], found)
    return table + np.arange(len(table))[:, None, None] ** 2.0
