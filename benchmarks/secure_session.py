"""A secure sum played in one process, and what it cost each side: CPU seconds and bytes."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shoal.secure import keys
from shoal.secure.client import ClientSession
from shoal.secure.graph import Graph
from shoal.secure.messages import Confirmations, decode
from shoal.secure.parameters import Shape
from shoal.secure.server import ServerSession
from shoal.secure.terms import Demand, Terms

SLOTS = 6
"""The clients, the weight, and two metrics of two numbers."""
STAGES = ("advertise", "share", "mask", "confirm", "answer")


@dataclass(frozen=True)
class Sized:
    """How large a session is. Of its clients the last `dropped` share their keys and do not contribute."""

    clients: int
    size: int
    dropped: int
    shape: Shape

    @property
    def names(self) -> list[str]:
        """The clients, in the order of their names."""
        return [f"client-{number:05d}" for number in range(self.clients)]

    @property
    def terms(self) -> Terms:
        """What the session is about. It takes two thirds of the clients."""
        digests = {name: _digest(name) for name in ("session", "model", "plan")}
        return Terms(
            federation="benchmark", run="0123456789abcdef", round=7, attempt=0, size=self.size, bits=32, slots=SLOTS,
            threshold=2 * self.clients // 3 + 1, **digests,
        )  # fmt: skip


@dataclass
class Cost:
    """What a session cost, CPU seconds: a client on average, of that its signatures, and the server.

    `receiving_s` is for one upload; `ending_s` from the last upload to the sum, of that `checking_s` for the signatures
    of confirmations and answers, and `unmasking_s` from the last answer. `streams` were expanded in it. `wire_bytes` is
    all that the first client was sent and sent.
    """

    client_s: float = 0.0
    signatures_s: float = 0.0
    receiving_s: float = 0.0
    ending_s: float = 0.0
    checking_s: float = 0.0
    unmasking_s: float = 0.0
    streams: int = 0
    wire_bytes: int = 0


@dataclass
class Meter:
    """CPU seconds by what they were spent on."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def __call__(self, what: str) -> Generator[None]:
        before = time.process_time()
        yield
        self.seconds[what] += time.process_time() - before


def played(sized: Sized) -> Cost:
    """The cost of one session, whose sum is compared with the plain one."""
    play = _Play(sized)
    for stage in STAGES:
        play.stage(stage)
    play.check()
    return play.cost()


class _Play:
    def __init__(self, sized: Sized) -> None:
        self.sized, self.meter, self.wire = sized, Meter(), 0
        self.terms, names = sized.terms, sized.names
        identities = {name: Ed25519PrivateKey.from_private_bytes(_digest(name)) for name in names}
        roster = {name: identity.public_key().public_bytes_raw() for name, identity in identities.items()}
        self.server = ServerSession(self.terms, invited=names, roster=roster, shape=sized.shape)
        self.clients = {
            name: ClientSession(
                self.terms, name=name, sign=identities[name].sign, roster=roster, demand=Demand(),
                entropy=_digest("entropy", name), shape=sized.shape,
            )
            for name in names
        }  # fmt: skip
        self.identity, self.roster = identities[names[0]], roster
        self.value = np.arange(sized.size, dtype=np.uint32) * np.uint32(2_654_435_761)
        self.slots = np.arange(SLOTS, dtype=np.uint64)
        self.told: dict[str, bytes] = {}
        self.streams = self.verified = 0

    def stage(self, stage: str) -> None:
        """All that is sent and told in a stage."""
        if stage == "mask":
            for name in self.sized.names[self.sized.clients - self.sized.dropped :]:
                self.clients.pop(name).close()
        for name in self.clients:
            self._up(stage, name)
        with self.meter("closing" if stage == "answer" else stage + " ended"):
            self.server.advance()
        if stage == "answer":
            return
        for name in self.clients:
            with self.meter(stage + " ended"):
                self.told[name] = self.server.message_for(name)
            self._count(name, self.told[name])
        if stage == "advertise":
            self._graph(self.told[next(iter(self.told))])
        if stage == "confirm":
            self.verified += len(decode(self.told[next(iter(self.told))], Confirmations).signatures)

    def check(self) -> None:
        """RuntimeError unless the sum is that of the contributions."""
        total, count = self.server.result(), self.sized.clients - self.sized.dropped
        right = np.array_equal(total.value, self.value * np.uint32(count))
        if not (right and np.array_equal(total.slots, self.slots * np.uint64(count)) and len(total.clients) == count):
            raise RuntimeError("the secure sum is not the plain one")

    def cost(self) -> Cost:
        """The averages."""
        spent, there = self.meter.seconds, self.sized.clients - self.sized.dropped
        both = sum(spent["client " + stage] / self.sized.clients for stage in STAGES[:2])
        rest = sum(spent["client " + stage] / there for stage in STAGES[2:])
        ending = spent["mask ended"] + spent["confirm"] + spent["confirm ended"] + spent["answer"] + spent["closing"]
        made, checked = self._signatures()
        return Cost(
            client_s=both + rest,
            signatures_s=len(STAGES) * made + self.verified * checked,
            receiving_s=spent["mask"] / there,
            ending_s=ending,
            checking_s=2 * there * checked,
            unmasking_s=spent["closing"],
            streams=self.streams,
            wire_bytes=self.wire + len(msgspec.msgpack.encode(self.terms)),
        )

    def _up(self, stage: str, name: str) -> None:
        session, body = self.clients[name], None
        with self.meter("client " + stage):
            if stage == "advertise":
                message = session.advertise()
            elif stage == "mask":
                message, body = session.mask(self.told[name], self.value, self.slots)
            else:
                message = getattr(session, stage)(self.told[name])
        with self.meter(stage):
            self.server.receive(name, message, body=body)
        self._count(name, message, body or b"")

    def _count(self, name: str, *sent: bytes | bytearray) -> None:
        if name == self.sized.names[0]:
            self.wire += sum(map(len, sent))

    def _graph(self, advertised: bytes) -> None:
        """Counts the streams: one of each survivor, and those that it shared with the dropped."""
        names, there = self.sized.names, self.sized.clients - self.sized.dropped
        graph = Graph(tuple(names), self.sized.shape, keys.context(self.terms, self.sized.shape, advertised))
        shared = [sum(other < there for other in graph.neighbours(one)) for one in range(there, len(names))]
        self.streams = there + sum(shared)
        self.verified = self.sized.shape.neighbours

    def _signatures(self) -> tuple[float, float]:
        """CPU seconds of making a signature, and of checking one."""
        text = b"text" * 50
        signature, public = self.identity.sign(text), self.roster[self.sized.names[0]]
        return _seconds(lambda: self.identity.sign(text)), _seconds(lambda: keys.verify(public, signature, text))


def _seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call: the median of many."""
    taken: list[float] = []
    for _ in range(200):
        begun = time.process_time()
        work()
        taken.append(time.process_time() - begun)
    return statistics.median(taken)


def _digest(*words: str) -> bytes:
    return hashlib.sha256("/".join(words).encode()).digest()
