"""Measuring a model on a population, all clients at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from shoal.algorithms import Model
from shoal.data import Population
from shoal.errors import DataError
from shoal.vector import Vector


@dataclass(frozen=True)
class Evaluation:
    """Metrics over all examples, and of each client by itself.

    `pooled[name]` is the mean over examples: what federated evaluation gives. `clients[name]` has a number for
    each client, in the order of `names`. `rejected` are clients that hold NaN or infinity: they are left out.
    """

    pooled: dict[str, float]
    clients: dict[str, Float[np.ndarray, " clients"]]
    names: tuple[str, ...]
    rejected: tuple[str, ...] = ()

    def of(self, client: str) -> dict[str, float]:
        """One client's metrics."""
        if client not in self.names:
            raise DataError(f"there is no client {client!r} among the {len(self.names)} that were measured")
        place = self.names.index(client)
        return {name: float(values[place]) for name, values in self.clients.items()}


def evaluate(model: Model, vector: Vector, population: Population) -> Evaluation:
    """Measures a model on every client of a population that holds neither NaN nor infinity.

    DataError if the model cannot read the population, or no client is left.

    >>> from shoal import models
    >>> population = Population.from_arrays([[1.0], [-1.0]], [1, 0], groups=["a", "b"])
    >>> evaluate(models.logistic(1), np.array([0.0, 1.0], np.float32), population).pooled["accuracy"]
    1.0
    """
    usable, rejected = readable(model, population)
    return replace(measure(model, vector, usable), rejected=rejected)


def measure(model: Model, vector: Vector, population: Population) -> Evaluation:
    """Measures a model on a population that is known to be readable."""
    rows = model.measure(vector, population.columns)
    sums = {name: _by_client(np.asarray(row, np.float64), population) for name, row in rows.items()}
    return Evaluation(
        {name: float(total.sum() / population.offsets[-1]) for name, total in sums.items()},
        {name: total / population.counts for name, total in sums.items()},
        population.names,
    )


def readable(model: Any, population: Population) -> tuple[Population, tuple[str, ...]]:
    """The clients that can be used, and the names of the others; DataError if `model.check` refuses the rows."""
    rejected = tuple(name for name, usable in zip(population.names, population.usable, strict=True) if not usable)
    if len(rejected) == len(population):
        raise DataError("every client holds NaN or infinity: impute or drop what is missing first")
    if rejected:
        left_out = set(rejected)
        population = population.select([name for name in population.names if name not in left_out])
    model.check(population.everything())
    return population, rejected


def _by_client(row: Any, population: Population) -> Any:
    return np.add.reduceat(row, population.offsets[:-1])
