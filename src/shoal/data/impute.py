"""Federated imputation: what is missing becomes what most of the others have."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Num

from shoal.analytics import CategoryCounts, PresentMean
from shoal.analytics.categories import Codes
from shoal.data.asking import asked_with_missing
from shoal.data.population import Population
from shoal.errors import DataError, SettingError


@dataclass(frozen=True, eq=False)
class Imputer:
    """Puts a value in the place of NaN, feature by feature; `flags` are the features that also get a 0 or 1 for it.

    >>> population = Population.from_arrays([[1.0], [np.nan], [5.0]], groups=["a", "a", "b"])
    >>> imputer(population, flags=True).apply(population).columns["x"].tolist()
    [[1.0, 0.0], [3.0, 1.0], [5.0, 0.0]]
    """

    values: Float[np.ndarray, ...]
    flags: tuple[int, ...] = field(default=(), kw_only=True)
    column: str = field(default="x", kw_only=True)

    def apply(self, population: Population) -> Population:
        """The population with nothing missing in the column."""
        return population.with_column(self.column, self.transform(population.everything().rows(self.column)))

    def transform(self, rows: Num[np.ndarray, "rows ..."]) -> Num[np.ndarray, "rows ..."]:
        """Rows without NaN, in their dtype, the flags behind them: 1 where a feature was missing."""
        rows = np.asarray(rows)
        if rows.dtype.kind not in "biuf":
            raise DataError(f"rows are numbers, with NaN where one is missing, not {rows.dtype}")
        if rows.shape[1:] != self.values.shape:
            raise DataError(
                f"rows of {self.column!r} have shape {rows.shape[1:]}, the imputer is for {self.values.shape}"
            )
        missing = np.isnan(rows)
        filled = np.where(missing, self.values, rows).astype(rows.dtype)
        if not self.flags:
            return filled
        return np.concatenate([filled, missing[:, list(self.flags)].astype(rows.dtype)], axis=1)


def imputer(
    population: Population, *, most_frequent: Codes | None = None, flags: bool = False, column: str = "x"
) -> Imputer:
    """The imputer of a population by federated statistics: means, and for the features named the most frequent code.

    Each client sends, per feature, how many of its rows have it and their sum; for `most_frequent`, by the feature's
    place the codes that it may hold, the counts of each code. The result is what the pooled rows would give; of
    equally frequent codes the smallest. With `flags` each feature that is missing somewhere gets a column that says
    where. A client that holds infinity contributes nothing. DataError if a feature is missing everywhere.
    """
    shape = population.everything().rows(column).shape[1:]
    if flags and len(shape) != 1:
        raise SettingError(f"flags are columns beside the features of a row, and rows of {column!r} have shape {shape}")
    done = asked_with_missing(PresentMean(shape, column=column), population)
    if not done.report.released:
        raise DataError(f"every client holds infinity in {column!r}, so there is nothing to impute by")
    present = done.run.state
    if nowhere := np.argwhere(present.count == 0).tolist():
        places = ", ".join(str(place[0]) if len(place) == 1 else str(tuple(place)) for place in nowhere)
        raise DataError(f"feature {places} (from 0) of {column!r} is missing in every row: leave it out")
    values = present.mean.copy()
    if most_frequent:
        values.reshape(-1)[list(most_frequent)] = _most_frequent(population, most_frequent, column)
    missing = np.flatnonzero(present.count < present.rows).tolist() if flags else ()
    return Imputer(values, flags=tuple(missing), column=column)


def _most_frequent(population: Population, codes: Codes, column: str) -> list[float]:
    algorithm = CategoryCounts(codes, column=column)
    algorithm.check(population.everything())
    counts = asked_with_missing(algorithm, population).run.state
    found: list[float] = []
    for (place, kinds), rows in zip(algorithm.features, counts.rows, strict=True):
        if not rows.any():
            raise DataError(f"feature {place} (from 0) of {column!r} holds none of the {len(kinds)} codes given for it")
        found.append(float(min(code for code, count in zip(kinds, rows, strict=True) if count == rows.max())))
    return found
