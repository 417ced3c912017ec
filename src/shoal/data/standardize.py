"""Federated preprocessing: standardisation that is the same at every client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from shoal.analytics.statistics import MeanAndVariance
from shoal.data.asking import asked
from shoal.data.population import Population
from shoal.errors import DataError


@dataclass(frozen=True, eq=False)
class Standardizer:
    """Subtracts a mean and divides by a deviation, feature by feature; a constant feature is only centred.

    >>> population = Population.from_arrays([[1.0], [3.0], [5.0]], groups=["a", "a", "b"])
    >>> print(standardizer(population).apply(population).columns["x"].ravel().round(3))
    [-1.225  0.     1.225]
    """

    mean: Float[np.ndarray, ...]
    scale: Float[np.ndarray, ...]
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
    done = asked(MeanAndVariance(shape, column=column), population)
    if not done.report.released:
        raise DataError(f"no client has finite numbers in {column!r}, so there is nothing to standardise by")
    scale = np.sqrt(done.run.state.variance)
    return Standardizer(done.run.state.mean, np.where(scale > 0, scale, 1.0), column)


@dataclass(frozen=True, eq=False)
class OwnStandardizer:
    """A standardizer for each client by name, from its own rows."""

    of: Mapping[str, Standardizer]

    def apply(self, population: Population) -> Population:
        """The population with each client standardised by its own."""
        column = next(iter(self.of.values())).column
        unknown = [name for name in population if name not in self.of]
        if unknown:
            raise DataError(f"client {unknown[0]!r} was not there when the standardizers were made")
        parts = [self.of[name].transform(population[name].rows(column)) for name in population]
        return population.with_column(column, np.concatenate(parts))


def own_standardizer(population: Population, *, column: str = "x") -> OwnStandardizer:
    """Each client's standardizer from its own rows.

    The clients' features then mean different things, which costs a shared model dearly; `standardizer` is the
    one to use, and this one is to compare with.
    """
    for name, usable in zip(population.names, population.usable, strict=True):
        if not usable:
            raise DataError(f"client {name!r} holds NaN or infinity and has no standardizer of its own: leave it out")
    return OwnStandardizer({name: standardizer(population.select([name]), column=column) for name in population})
