"""A client's side of a secure sum: it is given the server's messages, checks each, and says what to send.

The server is not trusted with anything but the delivery. Whose keys are whose is known from the client's own roster,
how many must take part from its owner's demand, and that all were told the same from signatures of those that it
shares masks with. Whatever is not as it must be ends the session, and nothing more is said in it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from shoal.errors import SecureSumError
from shoal.secure import keys, ring, shamir
from shoal.secure.admission import Seat, admit
from shoal.secure.bitmap import members
from shoal.secure.masks import Job, add_masks
from shoal.secure.messages import (
    Advertisement,
    Answer,
    Confirmation,
    Confirmations,
    Inbox,
    Masked,
    Shares,
    Survivors,
    decode,
    encode,
)
from shoal.secure.parameters import Shape
from shoal.secure.shamir import SHARE_BYTES
from shoal.secure.terms import Demand, Terms

Stage = Literal["advertise", "share", "mask", "confirm", "answer", "done", "aborted"]

UNSIGNED = bytes(64)
"""In the place of a signature while the message that it is for is made."""


class ClientSession:
    """One client in one secure sum. Each method is a stage, called once and in this order: it is given the server's
    message and returns the client's.

    `sign` signs with the client's Ed25519 identity; `roster` has everybody's, 32 bytes by name, as this client knows
    them. `entropy` is 32 bytes from the operating system, for this session alone. `shape` takes the place of the rule
    by which clients share with all others or with some; the server must be given the same.

    A SecureSumError says what was wrong, and names a `culprit` where a client's message was. It ends the session, as
    any other error does, and so does a method called out of its turn: the stage is "aborted" from then on.

    Secrets go as soon as they have served: what shares are made from with `share`, the keys of masks with `mask`, and
    all others with `answer`, an error or `close`. The seed, both private keys and the shares of others are overwritten
    here, and what `cryptography` keeps of a parsed key OpenSSL clears when it is freed. Agreed secrets, the keys of
    masks and boxes, copies that pass through other libraries and the caller's `entropy` are Python's bytes, which
    cannot be overwritten: they are let go, and stay in memory until it is used again.
    """

    def __init__(
        self,
        terms: Terms,
        *,
        name: str,
        sign: Callable[[bytes], bytes],
        roster: Mapping[str, bytes],
        demand: Demand,
        entropy: bytes,
        shape: Shape | None = None,
    ) -> None:
        self._terms, self._name, self._sign = terms, name, sign
        self._roster, self._demand, self._shape = roster, demand, shape
        self._stage: Stage = "advertise"
        self._secrets = keys.secrets_of(entropy, terms, name)
        self._mask_key: X25519PrivateKey | None = None
        self._own: Advertisement | None = None
        self._seat: Seat | None = None
        self._opening: dict[int, bytes] = {}
        self._held: dict[int, bytearray] = {}
        self._shared: frozenset[int] = frozenset()
        self._survivors: frozenset[int] = frozenset()
        self._told = b""

    @property
    def stage(self) -> Stage:
        """The method whose turn it is; "done" after the last, "aborted" after an error or an early end."""
        return self._stage

    def advertise(self) -> bytes:
        """The Advertisement: this client's keys for the session, signed."""
        with self._turn("advertise", "share"):
            self._mask_key = keys.private_key(self._secrets.mask_key)
            mask = keys.public_bytes(self._mask_key)
            box = keys.public_bytes(keys.private_key(self._secrets.box_key))
            signature = self._sign(keys.advertise_text(self._terms, self._name, box, mask))
            self._own = Advertisement(self._name, box, mask, signature)
            return encode(self._own)

    def share(self, advertised: bytes) -> bytes:
        """The Shares of this client's two secrets, one box for each holder."""
        with self._turn("share", "mask"):
            assert self._own is not None, "its turn comes after that of advertise"
            self._seat = admit(
                advertised,
                self._own,
                terms=self._terms,
                roster=self._roster,
                demand=self._demand,
                shape=self._shape,
            )
            unsigned = self._dealt(self._seat)
            signature = self._sign(keys.shares_text(self._seat.context, unsigned))
            return encode(msgspec.structs.replace(unsigned, signature=signature))

    def mask(self, inbox: bytes, value: np.ndarray[Any, Any], slots: np.ndarray[Any, Any]) -> tuple[bytes, bytearray]:
        """The Masked message, and the body that follows it: `value` and then `slots`, copied, under all masks."""
        with self._turn("mask", "confirm"):
            seat, message = self._place, decode(inbox, Inbox)
            self._shared = seat.among(message.shared, range(len(seat.names)), what="have shared")
            self._open(seat, message)
            body, entries, more = ring.blank(self._terms.size, self._terms.bits, self._terms.slots)
            _copy(value, entries)
            _copy(slots, more)
            add_masks(self._jobs(seat), entries, more)
            self._mask_key = None
            keys.erase(self._secrets.seed)
            digest = hashlib.sha256(body).digest()
            signature = self._sign(keys.masked_text(seat.context, self._name, digest))
            return encode(Masked(self._name, digest, signature)), body

    def confirm(self, survivors: bytes) -> bytes:
        """The Confirmation of the clients whose contributions the server says are in the sum."""
        with self._turn("confirm", "answer"):
            seat = self._place
            self._told = decode(survivors, Survivors).masked
            self._survivors = seat.among(self._told, self._shared, what="are in the sum")
            signature = self._sign(keys.confirm_text(seat.context, self._name, self._told))
            return encode(Confirmation(self._name, signature))

    def answer(self, confirmations: bytes) -> bytes:
        """The Answer: for each client held for one share, of a survivor's seed, or of the mask key of one that left."""
        with self._turn("answer", "done"):
            seat = self._place
            self._check(seat, decode(confirmations, Confirmations))
            kept = tuple(_half(both, dealer in self._survivors) for dealer, both in self._held.items())
            unsigned = Answer(self._name, kept, UNSIGNED)
            signature = self._sign(keys.answer_text(seat.context, unsigned))
            self._erase()
            return encode(msgspec.structs.replace(unsigned, signature=signature))

    def close(self) -> None:
        """Ends the session, wherever it is, and erases its secrets. Twice is once.

        Another thread that is in a stage meanwhile gets an error, and no message made of erased secrets.
        """
        if self._stage != "done":
            self._stage = "aborted"
        self._erase()

    @contextmanager
    def _turn(self, stage: Stage, following: Stage) -> Generator[None]:
        """A stage: an error in it, of any kind, ends the session."""
        try:
            if self._stage != stage:
                raise SecureSumError(f"this client's secure sum is at {self._stage!r}: it is not the turn of {stage!r}")
            yield
            if self._stage != stage:
                raise SecureSumError(f"this client's secure sum was ended while it was at {stage!r}")
        except BaseException:
            self.close()
            raise
        self._stage = following

    @property
    def _place(self) -> Seat:
        assert self._seat is not None, "its turn comes after that of share"
        return self._seat

    def _erase(self) -> None:
        self._secrets.erase()
        for both in self._held.values():
            keys.erase(both)
        self._held.clear()
        self._opening.clear()
        self._mask_key = None

    def _dealt(self, seat: Seat) -> Shares:
        """The shares for all holders, each in its box."""
        name, secrets, context, threshold = self._name, self._secrets, seat.context, seat.shape.threshold
        box_key = keys.private_key(secrets.box_key)
        agreed = [keys.agree(box_key, keys.public_key(one.box_key), owner=one.client) for one in seat.advertisements]
        drawn = keys.randomness(secrets.dealing, context, shamir.randomness_bytes(2, threshold))
        shared = [bytes(secrets.seed), bytes(secrets.mask_key)]
        dealt = shamir.share(shared, holders=len(seat.holders), threshold=threshold, randomness=drawn)
        boxes: list[bytes] = []
        commitments: list[bytes] = []
        for place, (secret, holder) in enumerate(zip(agreed, seat.advertisements, strict=True)):
            self._opening[seat.holders[place]] = keys.box_key(secret, context, holder.client, name)
            both = shamir.pack(dealt[:, place])
            boxes.append(keys.seal(keys.box_key(secret, context, name, holder.client), both, name, holder.client))
            commitments.append(keys.commitments(both, context, name, holder.client))
        digest = keys.seed_digest(secrets.seed, context, name)
        for spent in (secrets.box_key, secrets.mask_key, secrets.dealing):
            keys.erase(spent)
        return Shares(name, digest, tuple(boxes), tuple(commitments), UNSIGNED)

    def _open(self, seat: Seat, message: Inbox) -> None:
        """Opens the boxes of all that this client holds for, and checks that they hold what was committed to."""
        dealers = seat.held(self._shared)
        if not len(dealers) == len(message.boxes) == len(message.commitments):
            raise SecureSumError(
                f"the server sent {len(message.boxes)} boxes and {len(message.commitments)} commitments, and this "
                f"client holds shares of {len(dealers)} that have shared"
            )
        for dealer, box, commitments in zip(dealers, message.boxes, message.commitments, strict=True):
            name = seat.names[dealer]
            both = keys.unseal(self._opening[dealer], box, name, self._name)
            self._held[dealer] = both
            if not hmac.compare_digest(keys.commitments(both, seat.context, name, self._name), commitments):
                raise SecureSumError(f"the shares of {name!r} are not those that it committed itself to", culprit=name)
            try:
                shamir.unpack(both)
            except SecureSumError as error:
                raise SecureSumError(f"what {name!r} dealt is no share: {error}", culprit=name) from None
        self._opening.clear()

    def _jobs(self, seat: Seat) -> list[Job]:
        """Its own mask, and one with each neighbour that has shared, which the later one of the two subtracts."""
        assert self._mask_key is not None, "its turn comes after that of advertise"
        jobs = [(keys.self_key(self._secrets.seed, seat.context, self._name), 1)]
        for number, other in zip(seat.holders, seat.advertisements, strict=True):
            if number in self._shared and number != seat.number:
                agreed = keys.agree(self._mask_key, keys.public_key(other.mask_key), owner=other.client)
                key = keys.pair_key(agreed, seat.context, self._name, other.client)
                jobs.append((key, 1 if seat.number < number else -1))
        return jobs

    def _check(self, seat: Seat, message: Confirmations) -> None:
        """Enough of those who hold for this client have signed that they were told of the same survivors."""
        confirmed = members(message.confirmed, len(seat.names))
        if not self._survivors.intersection(seat.holders).issuperset(confirmed):
            raise SecureSumError("the server sent confirmations of clients that are not in the sum, or hold no shares")
        if len(confirmed) != len(message.signatures):
            raise SecureSumError(f"the server sent {len(message.signatures)} signatures of {len(confirmed)} clients")
        if len(confirmed) < seat.shape.threshold:
            raise SecureSumError(
                f"{len(confirmed)} of those who hold shares of this client have confirmed who is in the sum, and it "
                f"takes {seat.shape.threshold}"
            )
        for number, signature in zip(confirmed, message.signatures, strict=True):
            name = seat.names[number]
            if not keys.verify(self._roster[name], signature, keys.confirm_text(seat.context, name, self._told)):
                raise SecureSumError(
                    f"{name!r} has not confirmed these survivors: the server told it of others, or changed what it said"
                )


def _copy(given: np.ndarray[Any, Any], room: np.ndarray[Any, Any]) -> None:
    if given.shape != room.shape or given.dtype != room.dtype:
        raise SecureSumError(
            f"a contribution to this sum has {room.shape} of {room.dtype}, not {given.shape} of {given.dtype}"
        )
    room[:] = given


def _half(both: bytearray, survives: bool) -> bytes:
    """The one share of the two that is given away."""
    return bytes(both[:SHARE_BYTES] if survives else both[SHARE_BYTES:])
