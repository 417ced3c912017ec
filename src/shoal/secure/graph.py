"""Who holds whose shares: everybody everybody's, or neighbours on a ring whose order no one chose."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from shoal.errors import SecureSumError
from shoal.secure.parameters import Shape


@dataclass(frozen=True)
class Graph:
    """Clients by their place in `names`, and who holds shares of whom: i holds for j exactly if j holds for i.

    With a shape of all others as neighbours everybody holds for everybody, itself included. Else clients stand on a
    ring in the order of SHA-256(seed, name), and each has the half of its neighbours to each side (Harary 1962).
    `seed` is 32 bytes that every client computes from the signed list of keys: nobody chooses who is next to whom.

    >>> graph = Graph(("a", "b", "c", "d", "e"), Shape(neighbours=2, threshold=2), seed=bytes(32))
    >>> [graph.holders(i) for i in range(5)]
    [(1, 3), (0, 2), (1, 4), (0, 4), (2, 3)]
    """

    names: tuple[str, ...]
    shape: Shape
    seed: bytes = field(repr=False)
    _ring: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _places: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        count, neighbours = len(self.names), self.shape.neighbours
        if len(set(self.names)) != count:
            raise SecureSumError("a client is in a secure sum once: here a name comes twice")
        if len(self.seed) != 32:
            raise SecureSumError(f"the order of clients is from 32 bytes, not {len(self.seed)}")
        if neighbours > count - 1:
            raise SecureSumError(f"{neighbours} neighbours need {neighbours + 1} clients: here are {count}")
        if neighbours < count - 1 and neighbours % 2:
            raise SecureSumError(f"on a ring a client has an even number of neighbours, not {neighbours}")
        keys = [hashlib.sha256(self.seed + name.encode()).digest() for name in self.names]
        ring = sorted(range(count), key=keys.__getitem__)
        places = [0] * count
        for place, client in enumerate(ring):
            places[client] = place
        object.__setattr__(self, "_ring", tuple(ring))
        object.__setattr__(self, "_places", tuple(places))

    @property
    def complete(self) -> bool:
        """Whether everybody holds for everybody."""
        return self.shape.neighbours == len(self.names) - 1

    def holders(self, client: int) -> tuple[int, ...]:
        """Who holds shares of a client, in the order of `names`. The holder at place j has the share at j + 1."""
        return tuple(range(len(self.names))) if self.complete else self.neighbours(client)

    def neighbours(self, client: int) -> tuple[int, ...]:
        """With whom a client has masks: its holders, without itself."""
        count = len(self.names)
        if self.complete:
            return (*range(client), *range(client + 1, count))
        place, half = self._places[client], self.shape.neighbours // 2
        around = (*range(place - half, place), *range(place + 1, place + half + 1))
        return tuple(sorted(self._ring[other % count] for other in around))
