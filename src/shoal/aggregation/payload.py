"""What passes the chain on a client, and what leaves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from jaxtyping import Float, Num

from shoal.vector import Array, Layout, Vector, namespace

Notes = Mapping[str, Float[Array, " entries"]]
"""Small float vectors by name that are added like the value: sums and counts of metrics, a step's own bits."""


@dataclass(frozen=True)
class Update:
    """A client's contribution on its way through the steps, still on the client.

    `examples` is how many examples stand behind it; `weight` is what a mean will divide by, one client or,
    after `Weigh`, its examples. `bound` is the L2 norm that `value` can have at this point, in the units of
    training, and `unit` what one step of the grid is worth; `layout` says which arrays `value` is made of, and
    `setting` is the round's setting of a step that adapts.
    """

    value: Vector
    examples: Any
    weight: Any
    notes: Notes
    bound: float
    unit: float = 1.0
    layout: Layout | None = None
    setting: Any = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Memory:
    """What the server remembers of an aggregation between rounds, None where there is nothing.

    `setting` is that of a step that adapts, `noise` what a finish with correlated noise needs of earlier rounds.
    """

    setting: Any = None
    noise: Any = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Payload:
    """The only thing that leaves a client; added up, it is what the server knows.

    There is no field beside these, so there is no second way out: metrics are notes, and a client that
    contributes nothing sends zeros with `clients` 0.
    """

    value: Vector
    weight: Num[Array, ""]
    notes: Notes
    clients: Num[Array, ""]

    def __add__(self, other: Payload) -> Payload:
        """The payload of both; addition is associative, and exact in any order on a grid."""
        notes = {name: note + other.notes[name] for name, note in self.notes.items()}
        return Payload(self.value + other.value, self.weight + other.weight, notes, self.clients + other.clients)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Bag:
    """Payloads side by side, for rules that must see each one. A row whose `clients` is 0 is not there."""

    value: Num[Array, "payloads size"]
    weight: Num[Array, " payloads"]
    notes: Notes
    clients: Num[Array, " payloads"]

    def __add__(self, other: Bag) -> Bag:
        """Both, one after the other."""
        join = namespace(self.value).concatenate
        return Bag(
            join([self.value, other.value]),
            join([self.weight, other.weight]),
            {name: note + other.notes[name] for name, note in self.notes.items()},
            join([self.clients, other.clients]),
        )

    @staticmethod
    def of(payload: Payload) -> Bag:
        """A bag with one payload in it."""
        weight, clients = payload.weight.reshape(1), payload.clients.reshape(1)
        return Bag(payload.value[None], weight, payload.notes, clients)
