"""Vectors modulo 2**16, 2**32 or 2**64, and 64-bit slots beside them: as arrays, and as the bytes of a contribution."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from shoal.errors import SecureSumError

Bits = Literal[16, 32, 64]
Ring = np.ndarray[Any, Any]
"""A vector of unsigned integers, which wrap."""


def dtype(bits: Bits) -> np.dtype[Any]:
    """The little-endian unsigned integers of so many bits, which add modulo 2**bits.

    >>> dtype(16).str
    '<u2'
    """
    return np.dtype(f"<u{bits // 8}")


def blank(size: int, bits: Bits, slots: int) -> tuple[bytearray, Ring, Ring]:
    """The bytes of a contribution of zeros, and its entries and slots as views of these bytes."""
    body = bytearray(size * bits // 8 + 8 * slots)
    return (body, *views(body, size=size, bits=bits, slots=slots))


def views(body: Any, *, size: int, bits: Bits, slots: int) -> tuple[Ring, Ring]:
    """The entries and the slots in the bytes of a contribution, without a copy; SecureSumError for another length."""
    data = np.frombuffer(body, np.uint8)
    end = size * bits // 8
    if data.size != end + 8 * slots:
        raise SecureSumError(f"a contribution to this sum has {end + 8 * slots} bytes, this one has {data.size}")
    return data[:end].view(dtype(bits)), data[end:].view(dtype(64))
