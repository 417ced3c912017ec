"""A whole secure sum in one process: every client, the server, and between them a network that may lose and change.

What simulations, test vectors and tests run. Its entropy is given, so a rehearsal protects nobody: each client of a
deployment draws its own.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shoal.errors import SecureSumError
from shoal.secure.client import ClientSession
from shoal.secure.parameters import Shape
from shoal.secure.ring import Ring
from shoal.secure.server import ServerSession
from shoal.secure.stages import Sum
from shoal.secure.terms import Demand, Terms

Stage = Literal["advertise", "share", "mask", "confirm", "answer"]
STAGES: tuple[Stage, ...] = ("advertise", "share", "mask", "confirm", "answer")
"""What each client does, in order, and is told something after each but the last."""


@dataclass(frozen=True, eq=False)
class Sent:
    """A message of one client's stage: to the server, or if `down` the one that the server ends the stage with.

    `body` follows the message in which a contribution is announced.
    """

    stage: Stage
    client: str
    message: bytes
    down: bool = False
    body: Any = None


Network = Callable[[Sent], Sent | None]
"""What arrives of what was sent: the same, another one, or nothing, and then that client is gone."""


@dataclass(frozen=True, eq=False)
class Rehearsed:
    """What came of it: the `sum`, or why the server stopped; and what each client or its message was refused for."""

    sum: Sum | None
    stopped: SecureSumError | None
    refused: Mapping[str, SecureSumError]


def arrives(sent: Sent) -> Sent:
    """What was sent: a network that loses and changes nothing."""
    return sent


def rehearse(
    terms: Terms,
    contributions: Mapping[str, tuple[Ring, Ring]],
    *,
    entropy: bytes,
    gone: Mapping[str, Stage] | None = None,
    demand: Demand | None = None,
    shape: Shape | None = None,
    threads: int = 1,
    network: Network = arrives,
) -> Rehearsed:
    """The secure sum of contributions, entries and slots by client.

    `gone` says of clients that drop out with which stage they do no more. Every message passes `network`. Clients
    demand no more than the terms promise, unless a `demand` is given.

    >>> import numpy as np
    >>> terms = Terms(
    ...     federation="f", run="r", session=bytes(32), round=0, attempt=0, model=bytes(32), plan=bytes(32), size=2,
    ...     bits=16, slots=1, threshold=2,
    ... )
    >>> mine = np.array([1, 2**16 - 1], np.uint16), np.array([7], np.uint64)
    >>> done = rehearse(terms, {"a": mine, "b": mine, "c": mine}, entropy=bytes(32), gone={"b": "mask"})
    >>> done.sum.clients, done.sum.value, done.sum.slots
    (('a', 'c'), array([    2, 65534], dtype=uint16), array([14], dtype=uint64))
    """
    fraction = terms.threshold / max(len(contributions), terms.threshold)
    asked = demand or Demand(clients=2, threshold=fraction, corrupt=terms.corrupt)
    play = _Play(
        terms, contributions, entropy=entropy, demand=asked, shape=shape, threads=threads, network=network
    )  # fmt: skip
    return play.run(gone or {})


class _Play:
    """One rehearsal: the server, and the clients that are still there."""

    def __init__(
        self, terms: Terms, contributions: Mapping[str, tuple[Ring, Ring]], *, entropy: bytes, demand: Demand,
        shape: Shape | None, threads: int, network: Network,
    ) -> None:  # fmt: skip
        identities = {
            name: Ed25519PrivateKey.from_private_bytes(secret(entropy, "identity", name)) for name in contributions
        }
        roster = {name: identity.public_key().public_bytes_raw() for name, identity in identities.items()}
        self._contributions, self._network = contributions, network
        self._server = ServerSession(terms, invited=roster, roster=roster, shape=shape, threads=threads)
        self._clients = {
            name: ClientSession(
                terms, name=name, sign=identities[name].sign, roster=roster, demand=demand,
                entropy=secret(entropy, "session", name), shape=shape,
            )
            for name in sorted(contributions)
        }  # fmt: skip
        self._told: dict[str, bytes] = {}
        self._refused: dict[str, SecureSumError] = {}

    def run(self, gone: Mapping[str, Stage]) -> Rehearsed:
        """Every stage in order."""
        try:
            for stage in STAGES:
                for name in [*self._clients]:
                    if gone.get(name) == stage or not self._up(stage, name):
                        self._clients.pop(name).close()
                self._server.advance()
                for name in [*self._clients] if stage != STAGES[-1] else ():
                    if not self._down(stage, name):
                        self._clients.pop(name).close()
        except SecureSumError as stopped:
            return Rehearsed(None, stopped, self._refused)
        finally:
            for client in self._clients.values():
                client.close()
        return Rehearsed(self._server.result(), None, self._refused)

    def _up(self, stage: Stage, name: str) -> bool:
        """Whether the client did what it does in a stage, and the server took it."""
        try:
            message, body = self._done(stage, name)
            sent = self._network(Sent(stage, name, message, body=body))
            if sent is not None:
                self._server.receive(name, sent.message, body=sent.body)
        except SecureSumError as error:
            self._refused[name] = error
            return False
        return sent is not None

    def _done(self, stage: Stage, name: str) -> tuple[bytes, Any]:
        client = self._clients[name]
        match stage:
            case "advertise":
                return client.advertise(), None
            case "share":
                return client.share(self._told[name]), None
            case "mask":
                value, slots = self._contributions[name]
                return client.mask(self._told[name], value, slots)
            case "confirm":
                return client.confirm(self._told[name]), None
            case "answer":
                return client.answer(self._told[name]), None

    def _down(self, stage: Stage, name: str) -> bool:
        """Whether the client goes on, and was told what it is told after a stage."""
        if name in self._server.missing:  # on a graph some are not asked any more: too few of their neighbours stayed
            sent = self._network(Sent(stage, name, self._server.message_for(name), down=True))
            if sent is not None:
                self._told[name] = sent.message
                return True
        return False


def secret(entropy: bytes, *names: str) -> bytes:
    """32 bytes for a purpose, from a rehearsal's entropy."""
    return hmac.digest(entropy, "\0".join(names).encode(), "sha256")
