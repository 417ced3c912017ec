"""Sharing 32-byte secrets among holders so that `threshold` of them can rebuild them and fewer learn nothing.

Shamir 1979, over the integers modulo the prime 2**31 - 1. A secret is nine limbs of 30 bits, from the lowest; each is
the constant of a random polynomial of degree threshold - 1, and holder j has its value at j + 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int64, UInt32

from shoal.errors import SecureSumError

PRIME = 2**31 - 1
LIMBS = 9
LIMB_BITS = 30
TOP_BITS = 256 - 8 * LIMB_BITS
SECRET_BYTES = 32
SHARE_BYTES = 4 * LIMBS
DRAW_BYTES = 8
EXACT = 64
"""So many products of 31 by 16 bits add up to no more than 2**53: floats hold them exactly."""
BLOCK = 2**16
"""So many numbers are worked on at a time: they stay in the processor's cache."""


def randomness_bytes(secrets: int, threshold: int) -> int:
    """How many random bytes `share` takes.

    >>> randomness_bytes(2, threshold=67)
    9504
    """
    return DRAW_BYTES * secrets * LIMBS * (threshold - 1)


def share(
    secrets: Sequence[bytes], *, holders: int, threshold: int, randomness: bytes
) -> UInt32[np.ndarray, "secrets holders 9"]:
    """Each secret's share for each holder: any `threshold` holders' rebuild it, and fewer say nothing about it.

    `randomness` is `randomness_bytes(len(secrets), threshold)` uniform bytes that are used for nothing else. Each
    coefficient is eight of them modulo the prime: as 2**64 is 4 modulo it, a draw is within 2**-61 of uniform.

    >>> shares = share([bytes(32)], holders=3, threshold=2, randomness=bytes(range(72)))
    >>> rebuild(np.array([[1, 3]]), shares[:, [0, 2]]) == [bytes(32)]
    True
    """
    if any(len(secret) != SECRET_BYTES for secret in secrets):
        raise SecureSumError(f"a secret is {SECRET_BYTES} bytes: here one is longer or shorter")
    if not 1 <= threshold <= holders < PRIME:
        raise SecureSumError(f"a secret is shared so that 1 to all of its holders rebuild it: {threshold} of {holders}")
    needed = randomness_bytes(len(secrets), threshold)
    if len(randomness) != needed:
        raise SecureSumError(f"sharing takes {needed} random bytes, not {len(randomness)}")
    width = len(secrets) * LIMBS
    drawn = np.frombuffer(randomness, "<u8") % PRIME
    coefficients = np.concatenate([_limbs(secrets).ravel(), drawn.astype(np.int64)]).reshape(threshold, width)
    values = _product(_powers(holders, threshold), coefficients)
    shares = values.reshape(holders, len(secrets), LIMBS).transpose(1, 0, 2)
    return np.ascontiguousarray(shares, np.uint32)


def rebuild(points: Int[np.ndarray, "*secrets points"], shares: UInt32[np.ndarray, "secrets points 9"]) -> list[bytes]:
    """The secrets whose shares at `points` (a holder's is its place in order, plus 1) these are.

    `points` is one row for all secrets, or a row for each. A row has as many points as the threshold, or more; with
    fewer the result is a random one. Shares of one secret that do not belong together may give another secret, which
    the caller finds out by what it knows of it; SecureSumError if they give none, or are no shares.
    """
    if shares.shape[2:] != (LIMBS,) or (shares.size and shares.max() >= PRIME):
        raise SecureSumError(f"a share is {LIMBS} numbers below 2**31 - 1: here one is not")
    rows = np.broadcast_to(points, shares.shape[:2]).astype(np.int64)
    apart = np.diff(np.sort(rows, axis=1), axis=1, prepend=0, append=PRIME)
    if not shares.shape[1] or (apart < 1).any():
        raise SecureSumError("shares of a secret are at different points from 1 on: here they are not")
    limbs = _product(_at_zero(rows)[:, None, :], shares)[:, 0]
    if (limbs >> LIMB_BITS).any() or (limbs[:, -1] >> TOP_BITS).any():
        raise SecureSumError("these shares give no secret of 32 bytes: at least one of them is wrong")
    return _secrets(limbs)


def pack(shares: UInt32[np.ndarray, "*shares 9"]) -> bytes:
    """Shares as bytes, 36 for each: the limbs, little-endian, in 32 bits."""
    return shares.astype("<u4").tobytes()


def unpack(packed: bytes | bytearray) -> UInt32[np.ndarray, "shares 9"]:
    """The shares that `pack` wrote; SecureSumError if the bytes are not those of shares.

    >>> unpack(pack(np.arange(18, dtype=np.uint32).reshape(2, 9))).tolist()[1]
    [9, 10, 11, 12, 13, 14, 15, 16, 17]
    """
    if len(packed) % SHARE_BYTES:
        raise SecureSumError(f"a share is {SHARE_BYTES} bytes: {len(packed)} bytes are not some shares")
    shares = np.frombuffer(packed, "<u4").astype(np.uint32).reshape(-1, LIMBS)
    if shares.size and shares.max() >= PRIME:
        raise SecureSumError(f"a share is {LIMBS} numbers below 2**31 - 1: here one is not")
    return shares


def _limbs(secrets: Sequence[bytes]) -> Int64[np.ndarray, "secrets 9"]:
    numbers = [int.from_bytes(secret, "little") for secret in secrets]
    rows = [[number >> LIMB_BITS * limb & (1 << LIMB_BITS) - 1 for limb in range(LIMBS)] for number in numbers]
    return np.array(rows, np.int64).reshape(len(secrets), LIMBS)


def _secrets(limbs: Int64[np.ndarray, "secrets 9"]) -> list[bytes]:
    numbers = (sum(limb << LIMB_BITS * place for place, limb in enumerate(row)) for row in limbs.tolist())
    return [number.to_bytes(SECRET_BYTES, "little") for number in numbers]


def _powers(holders: int, count: int) -> Int64[np.ndarray, "holders count"]:
    """The first powers, from the zeroth, of 1 .. holders."""
    powers = np.ones((holders, count), np.int64)
    step = np.arange(1, holders + 1)[:, None]
    done = 1
    while done < count:
        more = min(done, count - done)
        powers[:, done : done + more] = powers[:, :more] * step % PRIME
        step = step * step % PRIME
        done += more
    return powers


def _product(left: Int[np.ndarray, "*n a b"], right: Int[np.ndarray, "*n b c"]) -> Int64[np.ndarray, "*n a c"]:
    """The product of matrices of numbers below the prime, modulo the prime, by products of floats that are exact."""
    high, low, right = ((left >> 16).astype(np.float64), (left & 0xFFFF).astype(np.float64), right.astype(np.float64))
    total = np.zeros(1, np.int64)
    for start in range(0, left.shape[-1], EXACT):
        some = slice(start, start + EXACT)
        upper = (high[..., some] @ right[..., some, :]).astype(np.int64) % PRIME
        lower = (low[..., some] @ right[..., some, :]).astype(np.int64)
        total = ((upper << 16) + lower + total) % PRIME
    return total


def _at_zero(rows: Int64[np.ndarray, "secrets points"]) -> Int64[np.ndarray, "secrets points"]:
    """By what each share counts in the value at 0 (Lagrange): worked out once for equal rows."""
    places: dict[bytes, int] = {}
    which = np.array([places.setdefault(row.tobytes(), len(places)) for row in rows], np.intp)
    distinct = np.frombuffer(b"".join(places), np.int64).reshape(len(places), rows.shape[1])
    size = max(1, BLOCK // rows.shape[1])
    weights = [_lagrange(distinct[start : start + size]) for start in range(0, len(distinct), size)]
    return np.concatenate(weights or [distinct])[which]


def _lagrange(rows: Int64[np.ndarray, "secrets points"]) -> Int64[np.ndarray, "secrets points"]:
    """The product over all other points m of m / (m - point), modulo the prime."""
    above, below, ahead = np.ones_like(rows[:, :1]), np.ones_like(rows), np.empty_like(rows)
    together = 31 // int(rows.max()).bit_length()  # points are small: many are multiplied before a slow remainder
    for place in range(rows.shape[1]):
        other = rows[:, place, None]
        np.subtract(other, rows, out=ahead)
        ahead[:, place] = rows[:, place]  # above stands the product of all points, so below stands the own one too
        above *= other
        below *= ahead
        if place % together == together - 1:
            above %= PRIME
            below %= PRIME
    return (above % PRIME) * _inverse(below % PRIME) % PRIME


def _inverse(numbers: Int64[np.ndarray, "*n"]) -> Int64[np.ndarray, "*n"]:
    """The power PRIME - 2 (Fermat)."""
    power, result = numbers, np.ones_like(numbers)
    exponent = PRIME - 2
    while exponent:
        if exponent & 1:
            result = result * power % PRIME
        power = power * power % PRIME
        exponent >>= 1
    return result
