"""A task's work: from a model's container and the site's data to a payload's container, as a simulation would do it."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from shoal.aggregation import Bag, Payload
from shoal.algorithms import Algorithm, enter
from shoal.data import Population
from shoal.errors import DataError
from shoal.examples import Examples
from shoal.key import Key
from shoal.turns import own_turn
from shoal.wire.blobs import coded, raw_chunks
from shoal.wire.messages import Manifest
from shoal.wire.payloads import call_of, pack_payload, pack_tree, unpack_tree

Work = Algorithm[Any, Any, Any]

_MAPPED = 64 * 1024 * 1024  # a model from this size on is read from its file where it lies
_PIECE = 1024 * 1024


@dataclass(frozen=True)
class Done:
    """A payload's bytes as they are sent, their coding, and what the client remembers; None if that is nothing."""

    payload: bytes
    coding: str
    state: bytes | None
    clients: int
    """0 if the data, or what came of it, was not finite: then the payload is zeros and counts for nobody."""


@dataclass(frozen=True)
class Turn:
    """What came of a turn: a payload, and what the client remembers."""

    payload: Payload | Bag
    state: bytes | None

    def done(self, mask: Callable[[Payload], bytes] | None = None) -> Done:
        """The turn as it is sent: the payload's container, or what `mask` makes of a payload.

        DataError for zeros that `mask` would hide: they would count as a contribution, and hide nobody.
        """
        clients = int(self.payload.clients.sum())
        if mask is None:
            return Done(*coded(pack_payload(self.payload)), self.state, clients)
        assert isinstance(self.payload, Payload), "a secure sum adds payloads up"
        if not clients:
            raise DataError("no finite result came of these rows, and a secure sum is not told of that by zeros")
        return Done(mask(self.payload), "", self.state, clients)


def turn(algorithm: Work, model: Any, data: Any, *, key: tuple[int, int], state: bytes | None) -> Turn:
    """One turn. `model` is the container that the server sent, `data` is from `prepared`, `state` from the turn before.

    WireError for a container of another algorithm, DataError for rows that compiled code cannot read.
    """
    before = enter(algorithm) if state is None else unpack_tree(state, enter(algorithm))
    payload, after = own_turn(algorithm, call_of(algorithm, model), data, before, Key(*key))
    return Turn(payload, pack_tree(after) if remembers(algorithm) else None)


def remembers(algorithm: Work) -> bool:
    """Whether a client keeps anything from one turn to the next."""
    return bool(jax.tree.leaves(enter(algorithm)))


def prepared(algorithm: Work, loaded: Any, *, name: str) -> Any:
    """Data as an algorithm takes it: columns (or an (x, y) pair) as `Examples`, anything else as it is.

    DataError if the algorithm cannot learn from it. Rows with NaN or infinity are not looked at: such a client has
    its turn, and counts for nobody.
    """
    if not isinstance(loaded, Mapping | tuple | Examples):
        algorithm.check(loaded)
        return loaded
    data = loaded if isinstance(loaded, Examples) else Population.from_clients({name: loaded})[name]
    if not data.count:
        raise DataError("there are no rows")
    if data.usable:
        algorithm.check(data)
    return data


def model_bytes(path: Path, manifest: Manifest) -> Any:
    """The container in a blob's file: read, decompressed, or mapped if it is large."""
    if manifest.coding:
        return b"".join(raw_chunks(_pieces(path), manifest))
    if manifest.size_bytes < _MAPPED:
        return path.read_bytes()
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _pieces(path: Path) -> Any:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece
