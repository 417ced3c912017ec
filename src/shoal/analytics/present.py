"""Means of what is there, where some of it is missing."""

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


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Present:
    """How many rows there are, and for every feature in how many it is there, and its mean over these (float64).

    The mean of a feature that is nowhere there is NaN.
    """

    rows: Any
    count: Float[np.ndarray, ...]
    mean: Float[np.ndarray, ...]


@dataclass(frozen=True)
class PresentMean:
    """One round: each client sends its number of rows and, per feature, the count and the sum of what is no NaN.

    `shape` is the shape of one row. A runtime rejects a client that holds NaN before it is asked, unless it is told
    that NaN is expected, as `shoal.imputer` does.

    >>> PresentMean(shape=(2,)).layout.size
    5
    """

    shape: tuple[int, ...]
    column: str = field(default="x", kw_only=True)
    aggregation: Aggregation = field(default_factory=total, kw_only=True)

    @property
    def layout(self) -> Layout:
        """Rows, counts and sums, in float64."""
        return self._layout

    @cached_property
    def _layout(self) -> Layout:
        parts = (Part("rows", (), "float64"), Part("count", self.shape, "float64"), Part("sum", self.shape, "float64"))
        return Layout(parts, "float64")

    @property
    def traceable(self) -> bool:
        """False: float64 is NumPy's."""
        return False

    def check(self, data: Examples) -> None:
        """DataError if the rows have another shape."""
        shape = data.rows(self.column).shape[1:]
        if shape != self.shape:
            raise DataError(f"rows of {self.column!r} have shape {shape}, the means are for {self.shape}")

    def init(self, key: Key) -> Present:
        """Nothing counted."""
        return Present(np.float64(0), np.zeros(self.shape), np.full(self.shape, np.nan))

    def broadcast(self, state: Present, round: Any) -> None:
        """Nothing."""

    def enter(self) -> None:
        """A client keeps nothing."""

    def local(self, message: None, data: Examples, client_state: None, key: Key) -> Local:
        """The client's counts and sums."""
        rows = data.rows(self.column).astype(np.float64)
        there = ~np.isnan(rows)
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite then is rejected
            sums = np.where(there, rows, 0.0).sum(0)
        counts = {"rows": np.float64(len(rows)), "count": there.sum(0), "sum": sums}
        return Local(self.layout.flatten({name: np.asarray(value) for name, value in counts.items()}), data.count)

    def update(self, state: Present, result: Vector, round: Any) -> Present:
        """Means from the sums of all clients."""
        sums = self.layout.unflatten(np.asarray(result))
        there = sums["count"] > 0
        return Present(
            sums["rows"], sums["count"], np.where(there, sums["sum"] / np.where(there, sums["count"], 1.0), np.nan)
        )
