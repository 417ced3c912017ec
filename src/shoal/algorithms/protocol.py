"""What a federated algorithm is, and the four records that are all the state there is.

One record for each place: `Run` stays on the server, `Call` goes to clients, `ClientState` stays on its
client, `Payload` (in `shoal.aggregation`) comes back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import jax
from jaxtyping import Float

from shoal.aggregation import Aggregation, Memory
from shoal.key import Key
from shoal.vector import Array, Layout, Vector

S = TypeVar("S")
B = TypeVar("B")
D_contra = TypeVar("D_contra", contravariant=True)

Metrics = Mapping[str, Float[Array, "2"]]
"""Sums and counts by name: what was measured, added over what it was measured on, and on how much."""


@dataclass(frozen=True)
class Local:
    """A client's result before anything leaves it. `client_state` never does."""

    value: Vector
    examples: Any = 1
    client_state: Any = None
    metrics: Metrics = field(default_factory=dict)


class Algorithm(Protocol[S, B, D_contra]):
    """Work for a client, an aggregation, an update on the server.

    An algorithm is a frozen, hashable value. If it is `traceable`, its methods are JAX code on `Examples`
    and a whole cohort runs as one compiled call; otherwise they are any Python on NumPy arrays.
    """

    @property
    def aggregation(self) -> Aggregation:
        """What happens to a client's value on its way to the server's."""
        ...

    @property
    def layout(self) -> Layout:
        """What the value is made of."""
        ...

    @property
    def traceable(self) -> bool:
        """Whether `local`, `update` and `broadcast` are JAX code."""
        ...

    def check(self, data: D_contra) -> None:
        """DataError if clients' data cannot be used. For a population it is called once, on all rows."""
        ...

    def init(self, key: Key) -> S:
        """The server's state before the first round."""
        ...

    def broadcast(self, state: S, round: Any) -> B:
        """What every client of a round is sent; rounds are counted from 0."""
        ...

    def enter(self) -> Any:
        """The state of a client that has not taken part yet: arrays, or None."""
        ...

    def local(self, message: B, data: D_contra, client_state: Any, key: Key) -> Local:
        """The client's work."""
        ...

    def update(self, state: S, result: Vector, round: Any) -> S:
        """The server's state after a round, from what the aggregation made of the clients' values."""
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Run(Generic[S]):
    """Everything the server must remember between rounds; `round` counts those that are closed.

    `memory` is what the aggregation needs of them.
    """

    state: S
    aggregation: Aggregation
    round: Any
    memory: Memory = field(default_factory=Memory)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Call(Generic[B]):
    """Everything a client is sent: the message, the aggregation that it will apply, and its setting if it has one."""

    message: B
    aggregation: Aggregation
    round: Any
    setting: Any = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ClientState:
    """Everything a client remembers between rounds: for the algorithm, and for each step."""

    algorithm: Any
    steps: tuple[Any, ...]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Report:
    """What the server may tell of a round: who counted, the metrics' sums, whether there was a result."""

    clients: Any
    metrics: Metrics
    released: Any
