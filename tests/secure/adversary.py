"""A server that says to each client what it likes, and keeps everything that it is told."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from shoal.errors import SecureSumError
from shoal.secure.bitmap import bitmap
from shoal.secure.client import ClientSession
from shoal.secure.graph import Graph
from shoal.secure.keys import context
from shoal.secure.messages import (
    Advertised,
    Advertisement,
    Answer,
    Confirmation,
    Confirmations,
    Inbox,
    Shares,
    Survivors,
    decode,
    encode,
)
from shoal.secure.parameters import Shape

from .session import Clients


class Adversary:
    """Plays with clients as it likes. `names` are those whose keys it lists."""

    def __init__(self, group: Clients, names: Collection[str] | None = None) -> None:
        self.group = group
        self.names = sorted(names or group.names)
        self.clients: dict[str, ClientSession] = {name: group.client(name) for name in self.names}
        self.advertisements = {name: decode(one.advertise(), Advertisement) for name, one in self.clients.items()}
        self.shares: dict[str, Shares] = {}
        self.bodies: dict[str, bytes] = {}
        self.signatures: dict[tuple[bytes, str], bytes] = {}

    @property
    def advertised(self) -> bytes:
        return encode(Advertised(tuple(self.advertisements[name] for name in self.names)))

    @property
    def shape(self) -> Shape:
        count = len(self.names)
        return self.group.shape or Shape(count - 1, max(self.group.terms.threshold, count // 2 + 1))

    @property
    def context(self) -> bytes:
        return context(self.group.terms, self.shape, self.advertised)

    def holders(self, name: str) -> list[str]:
        graph = Graph(tuple(self.names), self.shape, self.context)
        return [self.names[i] for i in graph.holders(self.names.index(name))]

    def bits(self, names: Iterable[str]) -> bytes:
        return bitmap([self.names.index(name) for name in names], len(self.names))

    def share(self, names: Iterable[str] | None = None) -> None:
        """All keys to these clients, and their shares."""
        for name in names or self.names:
            self.shares[name] = decode(self.clients[name].share(self.advertised), Shares)

    def inbox(self, name: str, shared: Collection[str] | None = None) -> bytes:
        dealers = [dealer for dealer in self.holders(name) if dealer in (shared or self.shares)]
        places = [self.holders(dealer).index(name) for dealer in dealers]
        return encode(
            Inbox(
                self.bits(shared or self.shares),
                tuple(self.shares[dealer].boxes[at] for dealer, at in zip(dealers, places, strict=True)),
                tuple(self.shares[dealer].commitments[at] for dealer, at in zip(dealers, places, strict=True)),
            )
        )

    def mask(self, names: Iterable[str] | None = None) -> None:
        for name in names or self.names:
            value, slots = self.group.value(name), self.group.slots(name)
            self.bodies[name] = bytes(self.clients[name].mask(self.inbox(name), value, slots)[1])

    def confirm(self, name: str, survivors: Iterable[str]) -> None:
        """Tells one client of survivors, and keeps its signature."""
        bits = self.bits(survivors)
        message = decode(self.clients[name].confirm(encode(Survivors(bits))), Confirmation)
        self.signatures[bits, name] = message.signature

    def confirmations(self, survivors: Iterable[str], signers: Iterable[str]) -> bytes:
        """The message of signatures of these signers, over these survivors where there is one, else over others."""
        bits, signers = self.bits(survivors), sorted(signers)
        others = {name: signature for (_, name), signature in self.signatures.items()}
        signatures = tuple(self.signatures.get((bits, name), others.get(name, bytes(64))) for name in signers)
        return encode(Confirmations(self.bits(signers), signatures))

    def answers(
        self, names: Iterable[str], survivors: Iterable[str], signers: Iterable[str]
    ) -> tuple[dict[str, tuple[bytes, ...]], dict[str, str]]:
        """The shares in the answers of these clients, by name, and the sentences of those that gave none."""
        given: dict[str, tuple[bytes, ...]] = {}
        said: dict[str, str] = {}
        for name in names:
            try:
                message = self.clients[name].answer(self.confirmations(survivors, signers))
                given[name] = decode(message, Answer).shares
            except SecureSumError as error:
                said[name] = str(error)
        return given, said
