"""Federated one-hot encoding: the same indicators at every client, of categories that are not rare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Num

from shoal.analytics import CategoryCounts
from shoal.analytics.categories import Codes
from shoal.data.asking import asked_with_missing
from shoal.data.population import Population
from shoal.errors import DataError
from shoal.settings import whole


@dataclass(frozen=True, eq=False)
class OneHot:
    """In the place of a feature stand columns of 0 and 1, one for each of its categories; other features stay.

    What is none of the categories, NaN among it, is 0 in all of them, and 1 in a last column if `other`.

    >>> encode = OneHot({1: (0, 2)}, features=2)
    >>> encode.transform(np.array([[0.5, 0], [1.5, 1], [2.5, 2]])).tolist()
    [[0.5, 1.0, 0.0], [1.5, 0.0, 0.0], [2.5, 0.0, 1.0]]
    """

    categories: Mapping[int, tuple[int, ...]]
    features: int = field(kw_only=True)
    other: bool = field(default=False, kw_only=True)
    column: str = field(default="x", kw_only=True)

    @property
    def names(self) -> tuple[tuple[int, int | str | None], ...]:
        """What each column of the result is: the place of a feature, and its category, "other", or None as it was."""
        last = ("other",) if self.other else ()
        kinds = {place: (*categories, *last) for place, categories in self.categories.items()}
        return tuple((place, kind) for place in range(self.features) for kind in kinds.get(place, (None,)))

    def apply(self, population: Population) -> Population:
        """The population with the column encoded."""
        return population.with_column(self.column, self.transform(population.everything().rows(self.column)))

    def transform(self, rows: Num[np.ndarray, "rows ..."]) -> Float[np.ndarray, "rows encoded"]:
        """Encoded rows: float32 where the rows are, else float64."""
        rows = np.asarray(rows)
        if rows.shape[1:] != (self.features,) and (self.features, rows.ndim) != (1, 1):
            raise DataError(f"rows of {self.column!r} have shape {rows.shape[1:]}, the encoding is of {self.features}")
        dtype = np.float32 if rows.dtype == np.float32 else np.float64
        rows = rows.reshape(len(rows), self.features)
        return np.concatenate([self._encoded(rows, place, dtype) for place in range(self.features)], axis=1)

    def _encoded(self, rows: Num[np.ndarray, "rows features"], place: int, dtype: type) -> np.ndarray:
        values = rows[:, place, None]
        if place not in self.categories:
            return values.astype(dtype)
        ones = values == np.array(self.categories[place])
        if self.other:
            ones = np.concatenate([ones, ~ones.any(axis=1, keepdims=True)], axis=1)
        return ones.astype(dtype)


def one_hot(
    population: Population,
    features: Codes,
    *,
    at_least: int = 5,
    at_least_clients: int = 2,
    other: bool = False,
    column: str = "x",
) -> OneHot:
    """The one-hot encoding of a population, by one round of federated counts.

    `features` declares, by the feature's place, the codes that it may hold: a number n for 0 to n - 1, or a list. A
    code becomes a category if at least `at_least` rows and at least `at_least_clients` clients hold it, so that no
    column of the model stands for one person or one site; 1 and 1 give what the pooled rows would. DataError if a
    feature is left without a category.
    """
    least = whole(at_least, "a category is held by at least one row", least=1)
    least_clients = whole(at_least_clients, "a category is held by at least one client", least=1)
    algorithm = CategoryCounts(features, column=column)
    everything = population.everything()
    algorithm.check(everything)
    counts = asked_with_missing(algorithm, population).run.state
    categories: dict[int, tuple[int, ...]] = {}
    for (place, codes), rows, clients in zip(algorithm.features, counts.rows, counts.clients, strict=True):
        kept = (rows >= least) & (clients >= least_clients)
        if not kept.any():
            raise DataError(
                f"no code of feature {place} (from 0) of {column!r} is held by {least} rows and {least_clients} "
                "clients: declare the codes that it holds, leave it out, or lower at_least and at_least_clients"
            )
        categories[place] = tuple(code for code, keep in zip(codes, kept, strict=True) if keep)
    width = everything.rows(column)[0].size
    return OneHot(categories, features=width, other=other, column=column)
