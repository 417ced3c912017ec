"""A secure sum played in one process, with somebody on the line who may change, drop or swap what passes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from shoal.errors import SecureSumError
from shoal.secure.client import ClientSession
from shoal.secure.parameters import Shape
from shoal.secure.server import ServerSession, Sum
from shoal.secure.terms import Demand, Terms
from shoal.wire import signing

SENT = {
    "advertise": "advertisement",
    "share": "shares",
    "mask": "masked",
    "confirm": "confirmation",
    "answer": "answer",
}
"""What a client sends in each stage."""
TOLD = {"advertise": "advertised", "share": "inbox", "mask": "survivors", "confirm": "confirmations"}
"""What the server sends after each stage."""
STAGES = tuple(SENT)

Opens = Callable[[str, "Played"], None]
"""What happens at the start of a stage, given its name and what was played so far."""
Line = Callable[[str, str, bytes, bytes], tuple[bytes, bytes]]
"""From what is sent, by or to whom, the message and its body (empty but for `masked`): what comes out at the end."""


def digest(*words: Any) -> bytes:
    """32 bytes that are the same on every machine."""
    return hashlib.sha256("/".join(map(str, words)).encode()).digest()


@dataclass(frozen=True)
class Clients:
    """Clients of one session: who they are, what each one draws and what it contributes."""

    terms: Terms
    names: tuple[str, ...]
    shape: Shape | None = None
    demand: Demand = field(default_factory=lambda: Demand(clients=2))
    told: Mapping[str, Terms] = field(default_factory=dict)

    def identity(self, name: str) -> bytes:
        return digest("identity", name)

    @cached_property
    def roster(self) -> dict[str, bytes]:
        return {name: signing.public_key_of(self.identity(name)) for name in self.names}

    def entropy(self, name: str) -> bytes:
        return digest("entropy", self.terms.digest.hex(), name)

    def value(self, name: str) -> np.ndarray:
        drawn = np.random.Generator(np.random.PCG64(int.from_bytes(digest("value", name)[:8], "little")))
        return drawn.integers(0, 2**self.terms.bits, self.terms.size, np.uint64).astype(f"<u{self.terms.bits // 8}")

    def slots(self, name: str) -> np.ndarray:
        drawn = np.random.Generator(np.random.PCG64(int.from_bytes(digest("slots", name)[:8], "little")))
        return drawn.integers(0, 2**64, self.terms.slots, np.uint64)

    def client(self, name: str, **changes: Any) -> ClientSession:
        """The client's side of the session."""
        private = self.identity(name)
        settings = {
            "name": name, "sign": lambda text: signing.sign(private, text), "roster": self.roster,
            "demand": self.demand, "entropy": self.entropy(name), "shape": self.shape,
        }  # fmt: skip
        return ClientSession(self.told.get(name, self.terms), **{**settings, **changes})

    def server(self, **changes: Any) -> ServerSession:
        """The server's side of the session."""
        return ServerSession(
            self.terms, **{"invited": self.names, "roster": self.roster, "shape": self.shape, **changes}
        )

    def plain(self, names: tuple[str, ...]) -> tuple[list[int], list[int]]:
        """The sum of these clients in integers, entry by entry."""
        value = [sum(map(int, column)) % 2**self.terms.bits for column in zip(*map(self.value, names), strict=True)]
        slots = [sum(map(int, column)) % 2**64 for column in zip(*map(self.slots, names), strict=True)]
        return value, slots


def clients(
    count: int, *, bits: Any = 32, size: int = 5, slots: int = 2, threshold: int = 2, **changes: Any
) -> Clients:
    """So many clients, a, b, c and so on, of a session about nothing in particular."""
    terms = Terms(
        federation="vectors", run="run 1", session=digest("session", count, bits, threshold), round=3, attempt=1,
        model=digest("model"), plan=digest("plan"), size=size, bits=bits, slots=slots, threshold=threshold,
    )  # fmt: skip
    return Clients(
        terms,
        tuple(f"client {i:03d}" if count > 26 else "abcdefghijklmnopqrstuvwxyz"[i] for i in range(count)),
        **changes,
    )


@dataclass
class Played:
    """What came of a session: a sum or an error that stopped it, and everything that was refused on the way."""

    server: ServerSession
    sessions: dict[str, ClientSession]
    sum: Sum | None = None
    error: SecureSumError | None = None
    refused: list[tuple[str, str, SecureSumError]] = field(default_factory=list)

    @property
    def result(self) -> tuple[list[int], list[int]]:
        assert self.sum is not None, self.error
        return list(map(int, self.sum.value)), list(map(int, self.sum.slots))

    @property
    def said(self) -> list[str]:
        """Every error's sentence."""
        return [str(error) for _, _, error in self.refused] + ([str(self.error)] if self.error else [])


def untouched(what: str, client: str, message: bytes, body: bytes) -> tuple[bytes, bytes]:
    """A line that changes nothing."""
    return message, body


def nothing(stage: str, played: Played) -> None:
    """Does nothing at the start of a stage."""


def play(
    group: Clients, *, dropped: Mapping[str, str] | None = None, line: Line = untouched, opens: Opens = nothing
) -> Played:
    """Plays the session. A client that is dropped at a stage does not send that stage's message nor any after it.

    An error at a client drops it; one when the server takes a message drops its sender; one between stages ends it.
    `opens` is called at the start of each stage, and once more at the end, as "done".
    """
    dropped = dropped or {}
    played = Played(group.server(), {name: group.client(name) for name in group.names})
    told = dict.fromkeys(group.names, b"")
    for stage in STAGES:
        opens(stage, played)
        for name in sorted(told):
            if dropped.get(name) != stage:
                _turn(group, played, stage=stage, name=name, told=told[name], line=line)
        told = {name: b"" for name in told if name not in played.server.missing}
        try:
            played.server.advance()
        except SecureSumError as error:
            played.error = error
            assert played.server.stage == "aborted"
            return played
        if stage != "answer":
            told = {name: line(TOLD[stage], name, played.server.message_for(name), b"")[0] for name in told}
    played.sum = played.server.result()
    opens("done", played)
    return played


def _turn(group: Clients, played: Played, *, stage: str, name: str, told: bytes, line: Line) -> None:
    what = TOLD[STAGES[STAGES.index(stage) - 1]] if told else "start"
    try:
        message, body = act(group, played.sessions[name], stage=stage, name=name, told=told)
        what = SENT[stage]
        message, body = line(what, name, message, body)
        played.server.receive(name, message, **({"body": body} if stage == "mask" else {}))
    except SecureSumError as error:
        played.refused.append((what, name, error))


def act(group: Clients, session: ClientSession, *, stage: str, name: str, told: bytes) -> tuple[bytes, bytes]:
    """What a client does in a stage: its message, and its body."""
    if stage == "advertise":
        return session.advertise(), b""
    if stage == "mask":
        message, body = session.mask(told, group.value(name), group.slots(name))
        return message, bytes(body)
    return getattr(session, stage)(told), b""


def transcript(group: Clients) -> dict[tuple[str, str], bytes]:
    """Every message of a session in which all goes well, by what it is and by whom or for whom."""
    sent: dict[tuple[str, str], bytes] = {}

    def line(what: str, client: str, message: bytes, body: bytes) -> tuple[bytes, bytes]:
        sent[what, client] = message
        return message, body

    play(group, line=line)
    return sent
