"""What a secure sum is about: everything that the masks are bound to before any key is known."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import msgspec

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
"""A SHA-256."""
Count = Annotated[int, msgspec.Meta(ge=0, lt=2**40)]

VERSION = 1
COMPLETE = 128
"""Up to so many clients each one shares keys with all others; above, with neighbours on a graph."""
CORRUPT = 0.05
"""The fraction of clients that may work together with the server, unless more is said."""
CLIENTS = 100_000
"""No session has more clients."""


class Terms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, array_like=True):
    """What a session is about. Two clients that were told different terms have masks that do not cancel.

    `session` is 32 bytes that the server draws for this session alone. `model` and `plan` are digests of what clients
    train from and of what they do; each client computes them from what it was really given. Vectors have `size`
    entries modulo 2**`bits`, and `slots` more modulo 2**64 for weights, counts and metrics. The sum shows itself once
    `threshold` clients are in it, or never. `corrupt` is the fraction of clients that may work together with the
    server, for graphs that are not complete.
    """

    federation: Name
    run: Name
    session: Digest
    round: Count
    attempt: Count
    model: Digest
    plan: Digest
    size: Annotated[int, msgspec.Meta(ge=1, lt=2**40)]
    bits: Literal[16, 32, 64]
    slots: Annotated[int, msgspec.Meta(ge=0, lt=2**20)]
    threshold: Annotated[int, msgspec.Meta(ge=2, le=CLIENTS)]
    corrupt: Annotated[float, msgspec.Meta(ge=0.0, lt=0.5)] = CORRUPT
    version: Literal[1] = VERSION

    @property
    def digest(self) -> bytes:
        """SHA-256 of the terms, 32 bytes: what the keys of a session are signed for."""
        return hashlib.sha256(b"shoal-1 secure terms\0" + msgspec.msgpack.encode(self)).digest()

    @property
    def body_bytes(self) -> int:
        """How many bytes a masked contribution has: its entries, then its slots, little-endian."""
        return self.size * self.bits // 8 + 8 * self.slots


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asks of every session, whatever the server says: the data owner's own limits.

    At least `clients` in the sum, and a threshold of at least the fraction `threshold` of those whose keys are known.
    Where the graph is drawn for a fraction of corrupt clients, for `corrupt` at least.
    """

    clients: Annotated[int, msgspec.Meta(ge=2)] = 3
    threshold: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.5
    corrupt: Annotated[float, msgspec.Meta(ge=0.0, lt=0.5)] = CORRUPT
