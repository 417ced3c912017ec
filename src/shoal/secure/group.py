"""The clients of a session whose keys are known, and who holds shares of whom."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from shoal.secure.graph import Graph
from shoal.secure.messages import Advertisement
from shoal.secure.parameters import Shape


@dataclass(frozen=True, eq=False)
class Group:
    """Clients by number, which is their place among the names in order.

    `holders[i]` are those who hold shares of client i, in the order of the points of the shares: a client holds shares
    of exactly those who hold shares of it. `points[i]` says at which point the share of a holder lies.
    """

    shape: Shape
    context: bytes
    advertisements: Sequence[Advertisement]
    names: tuple[str, ...]
    number: Mapping[str, int]
    holders: tuple[tuple[int, ...], ...]
    points: tuple[Mapping[int, int], ...]

    def held(self, holder: int, dealers: Collection[int]) -> list[int]:
        """Those of the dealers that the holder has shares of, in the order in which it is sent and returns them."""
        return [dealer for dealer in self.holders[holder] if dealer in dealers]

    def neighbours(self, client: int, others: Collection[int]) -> list[int]:
        """Those of the others that the client shares a mask with."""
        return [other for other in self.holders[client] if other in others and other != client]

    def called(self, clients: Iterable[int]) -> frozenset[str]:
        """The names of these clients."""
        return frozenset(self.names[client] for client in clients)

    @property
    def complete(self) -> bool:
        """Whether everybody holds shares of everybody."""
        return len(self.holders[0]) == len(self.names)


def group_of(advertisements: Sequence[Advertisement], *, shape: Shape, context: bytes) -> Group:
    """The group of clients that have advertised keys, which come in the order of their names."""
    names = tuple(one.client for one in advertisements)
    graph = Graph(names, shape, context)
    holders = tuple(graph.holders(client) for client in range(len(names)))
    return Group(
        shape=shape,
        context=context,
        advertisements=advertisements,
        names=names,
        number={name: i for i, name in enumerate(names)},
        holders=holders,
        points=tuple({holder: at for at, holder in enumerate(row, start=1)} for row in holders),
    )
