"""Sets of clients as bits: client i of a session is bit i % 8, from the lowest, of byte i // 8."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from shoal.errors import SecureSumError


def bitmap(chosen: Iterable[int], clients: int) -> bytes:
    """The set as bytes, of a session with so many clients.

    >>> bitmap([0, 9], 10)
    b'\\x01\\x02'
    """
    bits = np.zeros(clients, np.uint8)
    bits[list(chosen)] = 1
    return np.packbits(bits, bitorder="little").tobytes()


def members(bits: bytes, clients: int) -> tuple[int, ...]:
    """The set that the bytes are, in order; SecureSumError for another length, and for bits after the last client.

    >>> members(b"\\x01\\x02", 10)
    (0, 9)
    """
    if len(bits) != (clients + 7) // 8:
        raise SecureSumError(f"a set of {clients} clients has {(clients + 7) // 8} bytes, this one has {len(bits)}")
    found = np.flatnonzero(np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little"))
    if len(found) and found[-1] >= clients:
        raise SecureSumError(f"a set of {clients} clients has a bit for one that is not there")
    return tuple(found.tolist())
