"""Federated statistics: what a mean and a variance are over all clients, without seeing a row."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from shoal.aggregation import Aggregation
from shoal.algorithms.protocol import Local
from shoal.algorithms.recipes import total
from shoal.errors import DataError
from shoal.examples import Examples
from shoal.key import Key
from shoal.vector import Layout, Part, Vector

ROUNDING = 1e-13
"""The share of a squared mean below which a variance is rounding: some hundred float64 additions."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Statistics:
    """Count, mean and variance of every feature over all examples of all clients (float64)."""

    count: Any
    mean: Float[np.ndarray, ...]
    variance: Float[np.ndarray, ...]


@dataclass(frozen=True)
class MeanAndVariance:
    """One round: each client sends, per feature, its count, its sum and its sum of squares, in float64.

    The result is the pooled one up to float64 rounding, which loses about 1e-16 * (mean / deviation)^2 of the
    variance (Chan, Golub and LeVeque 1983, on the textbook formula): a feature whose deviation is under 3e-7 of
    its mean counts as constant. `shape` is the shape of one row.

    >>> from shoal.algorithms import start
    >>> MeanAndVariance(shape=(2,)).layout.size
    5
    """

    shape: tuple[int, ...]
    column: str = field(default="x", kw_only=True)
    aggregation: Aggregation = field(default_factory=total, kw_only=True)

    @property
    def layout(self) -> Layout:
        """Count, sum and sum of squares, in float64."""
        return self._layout

    @cached_property
    def _layout(self) -> Layout:
        parts = (
            Part("count", (), "float64"),
            Part("sum", self.shape, "float64"),
            Part("square", self.shape, "float64"),
        )
        return Layout(parts, "float64")

    @property
    def traceable(self) -> bool:
        """False: float64 is NumPy's."""
        return False

    def check(self, data: Examples) -> None:
        """DataError if the rows have another shape."""
        shape = data.rows(self.column).shape[1:]
        if shape != self.shape:
            raise DataError(f"rows of {self.column!r} have shape {shape}, the statistics are for {self.shape}")

    def init(self, key: Key) -> Statistics:
        """Nothing counted."""
        zeros = np.zeros(self.shape)
        return Statistics(np.float64(0), zeros, zeros)

    def broadcast(self, state: Statistics, round: Any) -> None:
        """Nothing."""

    def enter(self) -> None:
        """A client keeps nothing."""

    def local(self, message: None, data: Examples, client_state: None, key: Key) -> Local:
        """The client's sums."""
        rows = data.rows(self.column).astype(np.float64)
        count = len(rows)
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite then is rejected
            total = rows.sum(0)
            mean = total / max(count, 1)
            # The squares around the client's own mean, moved: one rounding where a sum of squares has one a row.
            square = np.square(rows - mean).sum(0) + count * np.square(mean)
        sums = {"count": np.float64(count), "sum": total, "square": square}
        return Local(self.layout.flatten({k: np.asarray(v) for k, v in sums.items()}), data.count)

    def update(self, state: Statistics, result: Vector, round: Any) -> Statistics:
        """Mean and variance (population variance, divided by the count) from the sums of all clients.

        A variance that cannot be told from the roundings of the sums is 0.
        """
        sums = self.layout.unflatten(np.asarray(result))
        count = np.maximum(sums["count"], 1)
        mean = sums["sum"] / count
        variance = sums["square"] / count - np.square(mean)
        return Statistics(sums["count"], mean, np.where(variance > ROUNDING * np.square(mean), variance, 0.0))
