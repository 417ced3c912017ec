"""The messages of a secure sum, in the order in which they are sent.

    client                       server
    Advertisement  ------------>             two public keys, signed by the client's identity
                   <------------ Advertised  all of them: who may take part, the same list for everybody
    Shares         ------------>             of the client's two secrets, one box for each holder
                   <------------ Inbox       the boxes for this client, and who shared
    Masked         ------------>             the contribution under its masks; its body follows it
                   <------------ Survivors   whose contributions are in the sum
    Confirmation   ------------>             a signature over exactly these survivors
                   <------------ Confirmations    those of others: all were told the same
    Answer         ------------>             one share for each client held for: of its seed, or of its key

A message is an array in msgpack. Each has one encoding: bytes that decode to the same message and differ are refused.
Clients are in the order of their names, and a set of them is a bitmap over that order.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from shoal.errors import SecureSumError
from shoal.secure.terms import CLIENTS, Digest, Name

Key32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
Share = Annotated[bytes, msgspec.Meta(min_length=36, max_length=36)]
"""A share of 32 bytes: nine limbs of 30 bits, each a 32-bit little-endian integer below 2**31 - 1."""
Box = Annotated[bytes, msgspec.Meta(min_length=88, max_length=88)]
"""Two shares, of the seed and of the mask key, in a ChaCha20-Poly1305 box."""
Commitment = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
"""Of a box: the first 16 bytes of a SHA-256 of its share of the seed, then those of its share of the mask key.

Each is for itself, because an answer holds only one of the two, and that one is to be compared.
"""
Bitmap = Annotated[bytes, msgspec.Meta(max_length=(CLIENTS + 7) // 8)]
"""A set of clients: client i is bit i % 8, from the lowest, of byte i // 8. Bits after the last client are 0."""


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A message of a secure sum."""


class Advertisement(Message, frozen=True, tag=1):
    """A client's keys for this session: `box_key` for shares, `mask_key` for masks (X25519, 32 bytes each)."""

    client: Name
    box_key: Key32
    mask_key: Key32
    signature: Signature


class Advertised(Message, frozen=True, tag=2):
    """All advertisements, in the order of the clients' names."""

    advertisements: Annotated[tuple[Advertisement, ...], msgspec.Meta(max_length=CLIENTS)]


class Shares(Message, frozen=True, tag=3):
    """A client's shares for its holders, in their order, and what its secrets are compared with later.

    `seed` is the SHA-256 of the seed of its own mask, bound to the session; `commitments` are of the shares.
    """

    client: Name
    seed: Digest
    boxes: Annotated[tuple[Box, ...], msgspec.Meta(max_length=CLIENTS)]
    commitments: Annotated[tuple[Commitment, ...], msgspec.Meta(max_length=CLIENTS)]
    signature: Signature


class Inbox(Message, frozen=True, tag=4):
    """Who has shared, and the boxes for one client: of those that it holds for and that have shared, in order."""

    shared: Bitmap
    boxes: Annotated[tuple[Box, ...], msgspec.Meta(max_length=CLIENTS)]
    commitments: Annotated[tuple[Commitment, ...], msgspec.Meta(max_length=CLIENTS)]


class Masked(Message, frozen=True, tag=5):
    """Says what body follows, by its SHA-256: the contribution under its masks."""

    client: Name
    body: Digest
    signature: Signature


class Survivors(Message, frozen=True, tag=6):
    """Whose contributions are in the sum."""

    masked: Bitmap


class Confirmation(Message, frozen=True, tag=7):
    """A client was told of exactly these survivors: the signature is over the session and their bitmap."""

    client: Name
    signature: Signature


class Confirmations(Message, frozen=True, tag=8):
    """The signatures of some of those who hold shares with a client, `confirmed` says whose, in order."""

    confirmed: Bitmap
    signatures: Annotated[tuple[Signature, ...], msgspec.Meta(max_length=CLIENTS)]


class Answer(Message, frozen=True, tag=9):
    """For each client that has shared and that the sender holds for, in order, one share: of the seed if that client
    is among the survivors, else of its mask key."""

    client: Name
    shares: Annotated[tuple[Share, ...], msgspec.Meta(max_length=CLIENTS)]
    signature: Signature


M = TypeVar("M", bound=Message)


def encode(message: Message) -> bytes:
    """The message's one encoding.

    >>> decode(encode(Survivors(b"\\x03")), Survivors)
    Survivors(masked=b'\\x03')
    """
    return msgspec.msgpack.encode(message)


def decode(data: bytes, kind: type[M]) -> M:
    """The message of a kind; SecureSumError, never with a value, for anything else."""
    try:
        message = msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        raise SecureSumError(f"this is no {kind.__name__}: the bytes are damaged, or of another stage") from None
    if encode(message) != data:
        raise SecureSumError(f"this {kind.__name__} is written in another way than the one that there is")
    return message
