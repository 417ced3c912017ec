"""What a client that does not keep to the protocol sends: signed by itself, so that only what it says is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from shoal.secure import keys, shamir
from shoal.secure.graph import Graph
from shoal.secure.messages import (
    Advertised,
    Advertisement,
    Answer,
    Confirmation,
    Masked,
    Message,
    Shares,
    decode,
    encode,
)
from shoal.secure.parameters import Shape
from shoal.wire import signing

from .session import Clients, Line

Change = Callable[[bytes], bytes]


def at(what: str, who: str, change: Change) -> Line:
    """A line on which one message is changed."""

    def line(sent: str, client: str, message: bytes, body: bytes) -> tuple[bytes, bytes]:
        return (change(message), body) if (sent, client) == (what, who) else (message, body)

    return line


def lines(*parts: Line) -> Line:
    """One line after the other."""

    def line(sent: str, client: str, message: bytes, body: bytes) -> tuple[bytes, bytes]:
        for part in parts:
            message, body = part(sent, client, message, body)
        return message, body

    return line


def edit(kind: type[Message], change: Callable[[Any], dict[str, Any]]) -> Change:
    """Some fields of a message in the place of others; `change` is given the message and says which."""

    def edited(message: bytes) -> bytes:
        decoded = decode(message, kind)
        return encode(replace(decoded, **change(decoded)))

    return edited


class Forger:
    """A client of a session that signs what it likes. It learns the context from a message of all keys."""

    def __init__(self, group: Clients, name: str) -> None:
        self.group, self.name = group, name
        self.secrets = keys.secrets_of(group.entropy(name), group.terms, name)
        self.everybody: tuple[Advertisement, ...] = ()
        self.context = b""

    def sees(self) -> Line:
        """A line on which it reads the list of keys."""

        def line(sent: str, client: str, message: bytes, body: bytes) -> tuple[bytes, bytes]:
            if sent == "advertised":
                self.everybody = decode(message, Advertised).advertisements
                self.context = keys.context(self.group.terms, self.shape, message)
            return message, body

        return line

    @property
    def shape(self) -> Shape:
        count = len(self.everybody)
        return self.group.shape or Shape(count - 1, max(self.group.terms.threshold, count // 2 + 1))

    def signed(self, kind: type[Message], change: Callable[[Any], dict[str, Any]]) -> Change:
        """As `edit`, and signed again."""

        def edited(message: bytes) -> bytes:
            return self.sign(replace(decode(message, kind), **change(decode(message, kind))))

        return edited

    def sign(self, message: Any) -> bytes:
        text = {
            Advertisement: lambda m: keys.advertise_text(self.group.terms, m.client, m.box_key, m.mask_key),
            Shares: lambda m: keys.shares_text(self.context, m),
            Masked: lambda m: keys.masked_text(self.context, m.client, m.body),
            Answer: lambda m: keys.answer_text(self.context, m),
        }[type(message)](message)
        return encode(replace(message, signature=signing.sign(self.group.identity(self.name), text)))

    def confirms(self, bits: bytes) -> bytes:
        """A confirmation of any survivors."""
        text = keys.confirm_text(self.context, self.name, bits)
        return encode(Confirmation(self.name, signing.sign(self.group.identity(self.name), text)))

    def deals(self, *, seed: bytes | None = None, mask_key: bytes | None = None, change: Change = bytes) -> bytes:
        """Shares of these secrets in the place of its own; `change` is made to each pair before it is boxed."""
        names = [one.client for one in self.everybody]
        holders = Graph(tuple(names), self.shape, self.context).holders(names.index(self.name))
        threshold = self.shape.threshold
        drawn = keys.randomness(self.secrets.dealing, self.context, shamir.randomness_bytes(2, threshold))
        secrets = [seed or bytes(self.secrets.seed), mask_key or bytes(self.secrets.mask_key)]
        dealt = shamir.share(secrets, holders=len(holders), threshold=threshold, randomness=drawn)
        boxes, commitments = [], []
        for place, holder in enumerate(holders):
            both, name = change(shamir.pack(dealt[:, place])), names[holder]
            agreed = keys.agree(
                keys.private_key(self.secrets.box_key), keys.public_key(self.everybody[holder].box_key), owner=name
            )
            boxes.append(keys.seal(keys.box_key(agreed, self.context, self.name, name), both, self.name, name))
            commitments.append(keys.commitments(both, self.context, self.name, name))
        digest = keys.seed_digest(self.secrets.seed, self.context, self.name)
        return self.sign(Shares(self.name, digest, tuple(boxes), tuple(commitments), bytes(64)))
