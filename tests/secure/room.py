"""Clients of a secure sum, and a server that only passes on what they send, made from the messages alone."""

from __future__ import annotations

import gc
import hashlib
import types
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shoal.errors import SecureSumError
from shoal.secure import keys
from shoal.secure.client import ClientSession
from shoal.secure.graph import Graph
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
from shoal.secure.terms import Demand, Terms

STAGES = ("advertise", "share", "mask", "confirm", "answer")
SENT = dict(zip(STAGES, (Advertisement, Shares, Masked, Confirmation, Answer), strict=True))


def drawn(*words: object) -> bytes:
    """32 bytes that are the same on every machine."""
    return hashlib.sha256(repr(words).encode()).digest()


def bits(chosen: Collection[int], count: int) -> bytes:
    """A set of clients, by Python's integers."""
    return sum(1 << i for i in chosen).to_bytes((count + 7) // 8, "little")


def changed(message: Any, **fields: Any) -> Any:
    """The message with other fields."""
    return msgspec.structs.replace(message, **fields)


def reachable(start: object) -> set[bytes]:
    """All bytes that an object holds, itself or through others."""
    found: set[bytes] = set()
    seen: set[int] = set()
    waiting = [start]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, type | types.ModuleType | types.FunctionType):
            continue
        seen.add(id(one))
        if isinstance(one, bytes | bytearray):
            found.add(bytes(one))
        waiting.extend(gc.get_referents(one))
    return found


@dataclass
class Room:
    """Clients a, b, c and so on in one session. `told` has what each is told for its next stage, `sent` all it said."""

    count: int = 5
    threshold: int = 3
    bits: Any = 32
    size: int = 5
    shape: Shape | None = None
    demand: Demand = field(default_factory=Demand)
    told: dict[str, bytes] = field(default_factory=dict[str, bytes])
    sent: dict[str, dict[str, Any]] = field(default_factory=lambda: {stage: {} for stage in STAGES})
    bodies: dict[str, bytearray] = field(default_factory=dict[str, bytearray])
    present: dict[str, list[int]] = field(default_factory=dict[str, list[int]])

    def __post_init__(self) -> None:
        self.names = tuple("abcdefghijklmnopqrstuvwxyz"[: self.count])
        self.terms = Terms(
            federation="test", run="r", session=drawn("session"), round=1, attempt=0, model=drawn("model"),
            plan=drawn("plan"), size=self.size, bits=self.bits, slots=2, threshold=self.threshold,
        )  # fmt: skip
        self.identities = {name: Ed25519PrivateKey.from_private_bytes(drawn("id", name)) for name in self.names}
        self.roster = {name: private.public_key().public_bytes_raw() for name, private in self.identities.items()}
        self.sessions = {name: self.session(name) for name in self.names}
        self.told = dict.fromkeys(self.names, b"")

    def session(self, name: str, **settings: Any) -> ClientSession:
        given = {
            "name": name, "sign": self.identities[name].sign, "roster": self.roster, "demand": self.demand,
            "entropy": drawn("entropy", name), "shape": self.shape,
        }  # fmt: skip
        return ClientSession(settings.pop("terms", self.terms), **given | settings)

    def value(self, name: str) -> np.ndarray:
        raw = b"".join(drawn("value", name, i) for i in range(self.size))
        return np.frombuffer(raw, f"<u{self.bits // 8}")[: self.size].copy()

    def slots(self, name: str) -> np.ndarray:
        return np.frombuffer(drawn("slots", name)[:16], "<u8").copy()

    def do(self, name: str, told: bytes | None = None) -> Any:
        """The client's next stage, from what it is told, or from something else; what it says, decoded."""
        session = self.sessions[name]
        stage, message = session.stage, self.told[name] if told is None else told
        if stage == "advertise":
            said = session.advertise()
        elif stage == "mask":
            said, self.bodies[name] = session.mask(message, self.value(name), self.slots(name))
        else:
            said = getattr(session, stage)(message)
        self.sent[stage][name] = decode(said, SENT[stage])
        return self.sent[stage][name]

    def until(self, stage: str, *, lost: dict[str, str] | None = None) -> Room:
        """All clients up to this stage, which none has done; but those that are lost do theirs and nothing after it."""
        for now in STAGES[: STAGES.index(stage)]:
            for name in self.told:
                self.do(name)
            self.told = {name: told for name, told in self._after(now).items() if (lost or {}).get(name, stage) != now}
        return self

    def _after(self, stage: str) -> dict[str, bytes]:
        came = [name for name in self.names if name in self.sent[stage]]
        there = [self.names.index(name) for name in came]
        self.present[stage] = there
        if stage == "advertise":
            advertised = encode(Advertised(tuple(self.sent[stage][name] for name in came)))
            shape = self.shape or Shape(len(came) - 1, max(self.threshold, len(came) // 2 + 1))
            self.context = keys.context(self.terms, shape, advertised)
            self.names = tuple(came)
            self.graph = Graph(self.names, shape, self.context)
            return dict.fromkeys(came, advertised)
        if stage == "share":
            return {name: encode(self.inbox(name)) for name in came}
        if stage == "mask":
            return dict.fromkeys(came, encode(Survivors(bits(there, len(self.names)))))
        return {name: encode(self.confirmations(name)) for name in came}

    def inbox(self, name: str) -> Inbox:
        own, shared = self.names.index(name), self.present["share"]
        dealers = [one for one in self.graph.holders(own) if one in shared]
        dealt = [(self.sent["share"][self.names[one]], self.graph.holders(one).index(own)) for one in dealers]
        return Inbox(
            bits(shared, len(self.names)),
            tuple(shares.boxes[place] for shares, place in dealt),
            tuple(shares.commitments[place] for shares, place in dealt),
        )

    def confirmations(self, name: str) -> Confirmations:
        there = [one for one in self.graph.holders(self.names.index(name)) if one in self.present["confirm"]]
        signatures = tuple(self.sent["confirm"][self.names[one]].signature for one in there)
        return Confirmations(bits(there, len(self.names)), signatures)

    def openings(self, name: str) -> dict[str, bytes]:
        """The keys of the boxes that a client is sent, by dealer."""
        private = keys.private_key(keys.secrets_of(drawn("entropy", name), self.terms, name).box_key)
        found = {}
        for dealer in (self.names[one] for one in self.graph.holders(self.names.index(name))):
            agreed = keys.agree(private, keys.public_key(self.sent["advertise"][dealer].box_key), owner=dealer)
            found[dealer] = keys.box_key(agreed, self.context, dealer, name)
        return found

    def held(self, name: str) -> dict[str, tuple[bytes, bytes]]:
        """What the boxes that a client is sent hold: of each dealer a share of its seed and one of its key."""
        own, found = self.names.index(name), {}
        for dealer, key in self.openings(name).items():
            if (place := self.names.index(dealer)) in self.present["share"]:
                box = self.sent["share"][dealer].boxes[self.graph.holders(place).index(own)]
                both = bytes(keys.unseal(key, box, dealer, name))
                found[dealer] = both[:36], both[36:]
        return found


SPARSE = Shape(4, 3)


def sparse() -> Room:
    """Eleven clients on a ring."""
    return Room(count=11, threshold=4, shape=SPARSE, demand=Demand(threshold=0.3))


def stopped(room: Room, name: str, told: bytes | None = None) -> SecureSumError:
    """The error with which the client's next stage ends its session; its secrets are gone then."""
    held = [*room.sessions[name]._held.values()]
    with pytest.raises(SecureSumError) as caught:
        room.do(name, told)
    assert room.sessions[name].stage == "aborted"
    assert not any(any(both) for both in held)
    assert not reachable(room.sessions[name]) & secrets_of(room, name)
    return caught.value


def secrets_of(room: Room, name: str) -> set[bytes]:
    """All that nobody may find with a client after its session."""
    own = keys.secrets_of(drawn("entropy", name), room.terms, name)
    kept = {drawn("entropy", name), bytes(own.box_key), bytes(own.mask_key), bytes(own.seed), bytes(own.dealing)}
    if "advertise" in room.present:
        kept |= {*room.openings(name).values()}
    if "share" in room.present:
        kept |= {share for both in room.held(name).values() for share in (*both, b"".join(both))}
    return kept
