"""Federated preprocessing: standardisation that is the same at every client."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from shoal.algorithms.moves import enter, run_round, start
from shoal.analytics.statistics import MeanAndVariance
from shoal.data.population import Population
from shoal.errors import DataError
from shoal.key import Key


@dataclass(frozen=True, eq=False)
class Standardizer:
    """Subtracts a mean and divides by a deviation, feature by feature; a constant feature is only centred.

    >>> population = Population.from_arrays([[1.0], [3.0], [5.0]], groups=["a", "a", "b"])
    >>> print(standardizer(population).apply(population).columns["x"].ravel().round(3))
    [-1.225  0.     1.225]
    """

    mean: Float[np.ndarray, "..."]
    scale: Float[np.ndarray, "..."]
    column: str = field(default="x")

    def apply(self, population: Population) -> Population:
        """The population with the column standardised."""
        rows = population.everything().rows(self.column)
        return population.with_column(self.column, self.transform(rows))

    def transform(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Standardised rows, float32."""
        return ((rows - self.mean) / self.scale).astype(np.float32)


def standardizer(population: Population, *, column: str = "x") -> Standardizer:
    """The standardizer of a population by one round of federated statistics.

    Each client sends counts and sums; the result is what the pooled rows would give. A client that holds NaN or
    infinity contributes nothing; DataError if no client is left.
    """
    shape = population.everything().rows(column).shape[1:]
    algorithm = MeanAndVariance(shape, column=column)
    key = Key.from_seed(0)
    clients = {name: population[name] for name in population}
    states = {name: enter(algorithm) for name in population}
    done = run_round(algorithm, start(algorithm, key), clients, states, key)
    if done.report is None or not done.report.released:
        raise DataError(f"no client has finite numbers in {column!r}, so there is nothing to standardise by")
    scale = np.sqrt(done.run.state.variance)
    return Standardizer(done.run.state.mean, np.where(scale > 0, scale, 1.0), column)


def standardize_alone(population: Population, *, column: str = "x") -> Population:
    """Every client standardised by its own mean and deviation.

    The clients' features then mean different things, which costs a shared model dearly; `standardizer` is the
    one to use, and this one is to compare with.
    """
    parts: list[np.ndarray[Any, Any]] = []
    for name in population:
        rows = population[name].rows(column).astype(np.float64)
        scale = rows.std(0)
        parts.append(((rows - rows.mean(0)) / np.where(scale > 0, scale, 1.0)).astype(np.float32))
    return population.with_column(column, np.concatenate(parts))
