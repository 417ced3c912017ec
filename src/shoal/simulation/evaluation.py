"""Measuring a model on a population, all clients at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from shoal.algorithms import Model
from shoal.data import Population
from shoal.vector import Vector


@dataclass(frozen=True)
class Evaluation:
    """Metrics over all examples, and of each client by itself.

    `pooled[name]` is the mean over examples: what federated evaluation gives. `clients[name]` has a number for
    each client, in the population's order.
    """

    pooled: dict[str, float]
    clients: dict[str, Float[np.ndarray, " clients"]]
    names: tuple[str, ...]

    def of(self, client: str) -> dict[str, float]:
        """One client's metrics."""
        place = self.names.index(client)
        return {name: float(values[place]) for name, values in self.clients.items()}


def evaluate(model: Model, vector: Vector, population: Population) -> Evaluation:
    """Measures a model on every client of a population.

    >>> from shoal import models
    >>> population = Population.from_arrays([[1.0], [-1.0]], [1, 0], groups=["a", "b"])
    >>> evaluate(models.logistic(1), np.array([0.0, 1.0], np.float32), population).pooled["accuracy"]
    1.0
    """
    rows = model.measure(vector, population.columns)
    sums = {name: _by_client(np.asarray(row, np.float64), population) for name, row in rows.items()}
    return Evaluation(
        {name: float(total.sum() / population.offsets[-1]) for name, total in sums.items()},
        {name: total / population.counts for name, total in sums.items()},
        population.names,
    )


def _by_client(row: Any, population: Population) -> Any:
    return np.add.reduceat(row, population.offsets[:-1])
