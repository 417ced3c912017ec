"""The stages of a secure sum at the server: what each takes, when it may close, and what clients are told next."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeAlias, TypeVar

import msgspec
import numpy as np

from shoal.errors import SecureSumError
from shoal.secure import keys, parameters, ring, shamir
from shoal.secure.bitmap import bitmap
from shoal.secure.group import Group, group_of
from shoal.secure.masks import add_masks
from shoal.secure.messages import (
    Advertised,
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
from shoal.secure.terms import Terms
from shoal.secure.unmasking import jobs, needed, rebuilt

Body: TypeAlias = "np.ndarray[Any, Any] | bytes | bytearray | memoryview"
Signed = TypeVar("Signed", Advertisement, Shares, Masked, Confirmation, Answer)

PROBE = keys.private_key(bytes(32))
"""Any private key: with a public key that is worth nothing none of them agrees on a secret."""


@dataclass(frozen=True, eq=False)
class Sum:
    """The sum of the contributions of `clients`; `culprits` answered with wrong shares, which it did without."""

    value: ring.Ring
    slots: ring.Ring
    clients: tuple[str, ...]
    culprits: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Session:
    """What all stages know: the terms, everybody's identity, the shape if it was given, and the sums so far."""

    terms: Terms
    roster: Mapping[str, bytes]
    shape: Shape | None
    threads: int
    value: ring.Ring
    slots: ring.Ring


class Stage(Protocol):
    """A stage that is open. `expected` may send it one message each, `came` is what they have sent."""

    @property
    def expected(self) -> frozenset[str]: ...

    @property
    def came(self) -> Mapping[str, Any]: ...

    def take(self, client: str, message: bytes, body: Body | None, digest: bytes | None) -> None:
        """Checks a message that is its client's first and notes what it says; SecureSumError for a wrong one."""
        ...

    def message_for(self, client: str) -> bytes:
        """What a client that is expected needs for its message of this stage."""
        ...

    def close(self) -> Stage | Sum:
        """The stage after this one, or SecureSumError if too few have come."""
        ...


@dataclass(frozen=True, eq=False)
class Advertising:
    """Clients advertise their keys."""

    session: Session
    expected: frozenset[str]
    came: dict[str, Advertisement] = field(default_factory=dict[str, Advertisement])
    public: set[bytes] = field(default_factory=set[bytes])

    def take(self, client: str, message: bytes, body: Body | None, digest: bytes | None) -> None:
        del body, digest
        sent = _own(message, Advertisement, client=client)
        text = keys.advertise_text(self.session.terms, client, sent.box_key, sent.mask_key)
        _check(self.session, sent, text)
        if sent.box_key == sent.mask_key or not self.public.isdisjoint((sent.box_key, sent.mask_key)):
            raise SecureSumError("it advertises a key that is there already")
        for key in (sent.box_key, sent.mask_key):
            keys.agree(PROBE, keys.public_key(key), owner=client)
        self.came[client] = sent
        self.public.update((sent.box_key, sent.mask_key))

    def message_for(self, client: str) -> bytes:
        raise SecureSumError("this stage is the first: clients are told the terms before it, and nothing else")

    def close(self) -> Sharing:
        terms = self.session.terms
        advertisements = tuple(self.came[name] for name in sorted(self.came))
        _least(len(advertisements), terms.threshold, did="advertised keys")
        shape = self.session.shape or parameters.shape(
            len(advertisements), threshold=terms.threshold, corrupt=terms.corrupt
        )
        told = encode(Advertised(advertisements))
        group = group_of(advertisements, shape=shape, context=keys.context(terms, shape, told))
        return Sharing(self.session, group, told)


@dataclass(frozen=True, eq=False)
class Sharing:
    """Clients that know all keys share their secrets."""

    session: Session
    group: Group
    told: bytes
    came: dict[str, Shares] = field(default_factory=dict[str, Shares])

    @property
    def expected(self) -> frozenset[str]:
        return frozenset(self.group.names)

    def take(self, client: str, message: bytes, body: Body | None, digest: bytes | None) -> None:
        del body, digest
        sent = _own(message, Shares, client=client)
        holders = len(self.group.holders[self.group.number[client]])
        if not len(sent.boxes) == len(sent.commitments) == holders:
            raise SecureSumError(f"it shares with {len(sent.boxes)} clients, and {holders} are to hold its shares")
        _check(self.session, sent, keys.shares_text(self.group.context, sent))
        self.came[client] = sent

    def message_for(self, client: str) -> bytes:
        return self.told

    def close(self) -> Masking:
        shared = {self.group.number[name]: sent for name, sent in self.came.items()}
        _least(len(shared), self.session.terms.threshold, did="shared their secrets")
        _holders(self.group, shared, shared, did="shared their secrets")
        return Masking(self.session, self.group, shared)


@dataclass(frozen=True, eq=False)
class Masking:
    """Clients that hold each other's shares contribute."""

    session: Session
    group: Group
    shared: Mapping[int, Shares]
    came: dict[str, None] = field(default_factory=dict[str, None])

    @property
    def expected(self) -> frozenset[str]:
        return self.group.called(self.shared)

    def take(self, client: str, message: bytes, body: Body | None, digest: bytes | None) -> None:
        sent = _own(message, Masked, client=client)
        _check(self.session, sent, keys.masked_text(self.group.context, client, sent.body))
        if body is None:
            raise SecureSumError("its contribution has no body")
        terms, data = self.session.terms, np.frombuffer(body, np.uint8)
        value, slots = ring.views(data, size=terms.size, bits=terms.bits, slots=terms.slots)
        if (digest or hashlib.sha256(data.data).digest()) != sent.body:
            raise SecureSumError("the body is not the one that was signed for")
        np.add(self.session.value, value, out=self.session.value)
        np.add(self.session.slots, slots, out=self.session.slots)
        self.came[client] = None

    def message_for(self, client: str) -> bytes:
        own = self.group.number[client]
        dealers = self.group.held(own, self.shared)
        places = [self.group.points[dealer][own] - 1 for dealer in dealers]
        sent = [self.shared[dealer] for dealer in dealers]
        return encode(
            Inbox(
                bitmap(self.shared, len(self.group.names)),
                tuple(one.boxes[place] for one, place in zip(sent, places, strict=True)),
                tuple(one.commitments[place] for one, place in zip(sent, places, strict=True)),
            )
        )

    def close(self) -> Confirming:
        survivors = frozenset(self.group.number[name] for name in self.came)
        _least(len(survivors), self.session.terms.threshold, did="contributed")
        _holders(self.group, needed(self.group, self.shared, survivors), survivors, did="contributed")
        without_boxes = {client: msgspec.structs.replace(sent, boxes=()) for client, sent in self.shared.items()}
        return Confirming(self.session, self.group, without_boxes, survivors)


@dataclass(frozen=True, eq=False)
class Confirming:
    """Clients in the sum confirm who they were told is in it."""

    session: Session
    group: Group
    shared: Mapping[int, Shares]
    survivors: frozenset[int]
    came: dict[str, bytes] = field(default_factory=dict[str, bytes])

    @property
    def expected(self) -> frozenset[str]:
        return self.group.called(self.survivors)

    @cached_property
    def bits(self) -> bytes:
        return bitmap(self.survivors, len(self.group.names))

    def take(self, client: str, message: bytes, body: Body | None, digest: bytes | None) -> None:
        del body, digest
        sent = _own(message, Confirmation, client=client)
        _check(self.session, sent, keys.confirm_text(self.group.context, client, self.bits))
        self.came[client] = sent.signature

    def message_for(self, client: str) -> bytes:
        return encode(Survivors(self.bits))

    def close(self) -> Answering:
        confirmed = {self.group.number[name]: signature for name, signature in self.came.items()}
        least = self.group.shape.threshold
        asked = frozenset(one for one in confirmed if len(self.group.held(one, confirmed)) >= least)
        dealers = needed(self.group, self.shared, self.survivors)
        _holders(self.group, dealers, confirmed, did="confirmed the survivors")
        _holders(self.group, dealers, asked, did="confirmed the survivors and have enough others who did")
        return Answering(self.session, self.group, self.shared, self.survivors, confirmed, asked)


@dataclass(frozen=True, eq=False)
class Answering:
    """Clients that were all told the same answer with shares; then the masks are taken off."""

    session: Session
    group: Group
    shared: Mapping[int, Shares]
    survivors: frozenset[int]
    confirmed: Mapping[int, bytes]
    asked: frozenset[int]
    came: dict[str, ring.Ring] = field(default_factory=dict[str, ring.Ring])

    @property
    def expected(self) -> frozenset[str]:
        return self.group.called(self.asked)

    def take(self, client: str, message: bytes, body: Body | None, digest: bytes | None) -> None:
        del body, digest
        sent = _own(message, Answer, client=client)
        held = len(self.group.held(self.group.number[client], self.shared))
        if len(sent.shares) != held:
            raise SecureSumError(f"it answers with {len(sent.shares)} shares and holds {held}")
        _check(self.session, sent, keys.answer_text(self.group.context, sent))
        self.came[client] = shamir.unpack(b"".join(sent.shares))

    def message_for(self, client: str) -> bytes:
        # a client checks all that it is sent, and its threshold is enough
        signers = sorted(self.group.held(self.group.number[client], self.confirmed))[: self.group.shape.threshold]
        return encode(
            Confirmations(bitmap(signers, len(self.group.names)), tuple(self.confirmed[signer] for signer in signers))
        )

    def close(self) -> Sum:
        session, group = self.session, self.group
        answers = {group.number[name]: shares for name, shares in self.came.items()}
        dealers = needed(group, self.shared, self.survivors)
        _holders(group, dealers, answers, did="answered")
        done = rebuilt(group, self.shared, self.survivors, answers=answers)
        secrets = dict(zip(dealers, done.secrets, strict=True))
        add_masks(jobs(group, secrets, self.survivors), session.value, session.slots, threads=session.threads)
        return Sum(session.value, session.slots, tuple(sorted(group.called(self.survivors))), done.culprits)


def _own(message: bytes, kind: type[Signed], *, client: str) -> Signed:
    sent = decode(message, kind)
    if sent.client != client:
        raise SecureSumError(f"it sends the {kind.__name__} of another client")
    return sent


def _check(session: Session, sent: Signed, text: bytes) -> None:
    if not keys.verify(session.roster[sent.client], sent.signature, text):
        raise SecureSumError(f"its {type(sent).__name__} was changed, or is of another session or another client")


def _least(came: int, least: int, *, did: str) -> None:
    if came < least:
        raise SecureSumError(f"{came} clients {did} and it takes {least}: nothing is summed")


def _holders(group: Group, dealers: Collection[int], came: Collection[int], *, did: str) -> None:
    """SecureSumError if one of the dealers has too few who hold its shares among those who came."""
    least = group.shape.threshold
    if group.complete:
        _least(len(came), least, did=did)
    fewest = min(len(group.held(dealer, came)) for dealer in dealers)
    if fewest < least:
        raise SecureSumError(
            f"{fewest} of the clients that hold the shares of one {did} and it takes {least}: nothing is summed"
        )
