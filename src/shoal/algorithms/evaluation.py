"""Federated evaluation: a round that measures and does not train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from shoal.aggregation import Aggregation
from shoal.algorithms.model import Model
from shoal.algorithms.protocol import Local
from shoal.algorithms.recipes import mean
from shoal.describe import digest
from shoal.examples import Examples
from shoal.key import Key
from shoal.settings import settle
from shoal.vector import Layout, Vector


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Evaluated:
    """The server's state: the model that is measured."""

    vector: Vector


@dataclass(frozen=True)
class VectorElsewhere:
    """A model that is not here: what a plan that was sent says of the array in its place. It comes with the task."""

    shape: tuple[int, ...]
    dtype: str
    sha256: str

    def describe(self) -> dict[str, Any]:
        """What the array itself would be described as."""
        return {"is": "array", "shape": list(self.shape), "dtype": self.dtype, "sha256": self.sha256}


@dataclass(frozen=True)
class FedEval:
    """Measures a model where the data is: each client sends sums over its examples, never the model.

    The result is in the round's metrics; they are sums, so the federated figure is the pooled one. `vector`
    is the model to measure; without it a fresh one is.
    """

    model: Model
    vector: Any = field(default=None, compare=False)
    fingerprint: str = field(init=False, repr=False, default="")
    """The vector's digest: arrays compare number by number, plans as a whole."""
    aggregation: Aggregation = field(default_factory=mean, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, fingerprint=digest(self.vector))

    @property
    def layout(self) -> Layout:
        """Nothing: no vector leaves a client."""
        return Layout(())

    @property
    def traceable(self) -> bool:
        """False: there is nothing to fuse."""
        return False

    def check(self, data: Examples) -> None:
        """DataError if the model cannot read such examples."""
        self.model.check(data)

    def init(self, key: Key) -> Evaluated:
        """The model to measure; numbers that are none in the place of one that is elsewhere."""
        if isinstance(self.vector, VectorElsewhere):
            return Evaluated(np.full(self.model.layout.size, np.nan, self.model.layout.dtype))
        return Evaluated(self.model.init(key) if self.vector is None else self.vector)

    def broadcast(self, state: Evaluated, round: Any) -> Vector:
        """The model."""
        return state.vector

    def enter(self) -> None:
        """A client keeps nothing."""

    def local(self, message: Vector, data: Examples, client_state: None, key: Key) -> Local:
        """Sums of every metric over the client's examples, and their number."""
        columns = {name: data.rows(name) for name in data.columns}
        measured = self.model.measure(message, columns)
        return Local(np.zeros(0, np.float32), data.count, None, sums(measured))

    def update(self, state: Evaluated, result: Vector, round: Any) -> Evaluated:
        """The model stays as it is."""
        return state


def sums(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics of rows as sums and counts."""
    return {name: np.array([rows.sum(), len(rows)], np.float32) for name, rows in measured.items()}
