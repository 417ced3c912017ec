"""Whether a client takes part in a session: its checks of the list of keys, and of every set of clients after it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from shoal.errors import SecureSumError
from shoal.secure import keys, parameters
from shoal.secure.bitmap import members
from shoal.secure.graph import Graph
from shoal.secure.messages import Advertised, Advertisement, decode
from shoal.secure.parameters import Shape
from shoal.secure.terms import COMPLETE, Demand, Terms


@dataclass(frozen=True, eq=False)
class Seat:
    """A client among the others of a session, each a number: its place among the names in order.

    Advertisements are those of `holders`, who hold shares of this client as it does of theirs, in their order. It is
    `least` clients that a sum must have.
    """

    names: tuple[str, ...]
    number: int
    shape: Shape
    context: bytes
    least: int
    holders: tuple[int, ...]
    advertisements: tuple[Advertisement, ...]

    def held(self, dealers: Collection[int]) -> list[int]:
        """Those of the dealers that this client holds shares of, in order."""
        return [holder for holder in self.holders if holder in dealers]

    def among(self, bits: bytes, before: Collection[int], *, what: str) -> frozenset[int]:
        """The clients that a bitmap says are left of those before; SecureSumError unless this client is one of them,
        they are enough, and enough of its holders are."""
        left = frozenset(members(bits, len(self.names)))
        if not left.issubset(before):
            raise SecureSumError(f"the server says that clients {what} of which it said before that they had left")
        if self.number not in left:
            raise SecureSumError(f"the server does not count this client among those that {what}")
        enough(len(left), self.least, what=what)
        if (there := len(self.held(left))) < self.shape.threshold:
            raise SecureSumError(
                f"{there} of those who hold shares of this client {what}, and it takes {self.shape.threshold}"
            )
        return left


def admit(
    advertised: bytes,
    own: Advertisement,
    *,
    terms: Terms,
    roster: Mapping[str, bytes],
    demand: Demand,
    shape: Shape | None,
) -> Seat:
    """The seat of the client that has sent `own`; SecureSumError if it does not take part in such a session."""
    everybody = decode(advertised, Advertised).advertisements
    names = tuple(one.client for one in everybody)
    _known(names, roster)
    if own not in everybody:
        raise SecureSumError("the server's list of keys has not the keys that this client sent")
    _distinct(everybody)
    least = max(demand.clients, terms.threshold)
    enough(len(names), least, what="have advertised keys")
    if terms.threshold / len(names) < demand.threshold:
        raise SecureSumError(
            f"the sum would show itself with {terms.threshold} of {len(names)} clients, and the owner of this client's "
            f"data asks for a fraction of {demand.threshold:g}"
        )
    if shape is None and len(names) > COMPLETE and terms.corrupt < demand.corrupt:
        raise SecureSumError(
            f"the sum holds if no more than {terms.corrupt:g} of the clients work with the server, and the owner of "
            f"this client's data asks for {demand.corrupt:g}"
        )
    fits = shape or parameters.shape(len(names), threshold=terms.threshold, corrupt=terms.corrupt)
    context = keys.context(terms, fits, advertised)
    number = names.index(own.client)
    holders = Graph(names, fits, context).holders(number)
    theirs = tuple(everybody[holder] for holder in holders)
    for one in theirs:
        if one != own:
            _signed(one, terms, roster)
    return Seat(names, number, fits, context, least, holders, theirs)


def enough(count: int, least: int, *, what: str) -> None:
    """SecureSumError if so few clients are too few."""
    if count < least:
        raise SecureSumError(f"{count} clients {what}, and it takes {least}: nothing is shown of fewer")


def _known(names: Sequence[str], roster: Mapping[str, bytes]) -> None:
    if any(one >= other for one, other in pairwise(names)):
        raise SecureSumError("the server's list of keys is not in the order of names, or has a name twice")
    for name in names:
        if name not in roster:
            raise SecureSumError(
                f"the server's list of keys has {name!r}, which is not on this client's roster", culprit=name
            )


def _distinct(everybody: Sequence[Advertisement]) -> None:
    """SecureSumError, of the later client, for a key that is there twice (Bonawitz et al. 2017, round 1)."""
    seen: set[bytes] = set()
    for one in everybody:
        for key in (one.box_key, one.mask_key):
            if key in seen:
                raise SecureSumError(f"{one.client!r} has a key that is in the list already", culprit=one.client)
            seen.add(key)


def _signed(one: Advertisement, terms: Terms, roster: Mapping[str, bytes]) -> None:
    text = keys.advertise_text(terms, one.client, one.box_key, one.mask_key)
    if not keys.verify(roster[one.client], one.signature, text):
        raise SecureSumError(
            f"the keys of {one.client!r} are not signed by it for this session: it was told of other terms, or these "
            "are not its keys",
            culprit=one.client,
        )
