"""One client's examples: a window on columns that all clients of a population share.

A population holds every example of every client in a few arrays, a client's rows together. A client's data
is where its rows begin and how many there are, so a cohort is a few numbers and not a thousand objects; the
same window serves plain loops, and compiled calls in which begin and number are traced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from shoal.errors import DataError
from shoal.key import Key
from shoal.permutation import shuffled
from shoal.vector import Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Examples:
    """A client's rows: `count` of them from row `start` of each column.

    `usable` is False where a column holds NaN or infinity in these rows: nothing is learned from them.
    `longest` is the count of the population's largest client.
    """

    columns: Mapping[str, Array]
    start: Any
    count: Any
    usable: Any
    longest: int = field(metadata={"static": True})

    @staticmethod
    def of(**columns: Any) -> Examples:
        """One client alone, from its columns.

        >>> Examples.of(x=[[1.0], [2.0]], y=[0, 1]).count
        2
        """
        arrays = {name: np.asarray(column) for name, column in columns.items()}
        counts = {len(array) for array in arrays.values()}
        if len(counts) != 1:
            lengths = ", ".join(f"{name} {len(array)}" for name, array in arrays.items())
            raise DataError(f"the columns of one client have the same number of rows, not {lengths}")
        count = counts.pop()
        return Examples(arrays, 0, count, all(finite(array) for array in arrays.values()), count)

    def rows(self, column: str) -> np.ndarray[Any, Any]:
        """This client's rows of a column, a NumPy view; DataError if there is no such column."""
        if column not in self.columns:
            raise DataError(f"there is no column {column!r}; there are {', '.join(self.columns)}")
        return np.asarray(self.columns[column][self.start : self.start + self.count])

    def batch(self, index: Any, size: int, order: Key | None = None) -> tuple[dict[str, Any], Bool[Array, " size"]]:
        """Batch number `index` of `size` rows, in the rows' own order or shuffled by a key.

        Returns the columns' rows, and which of them count: the last batch of a client is filled up with
        rows that do not.
        """
        places = index * size + jnp.arange(size)
        columns = {name: jnp.asarray(column) for name, column in self.columns.items()}
        if order is not None:
            rows = self.start + shuffled(jnp.minimum(places, self.count - 1), jnp.asarray(self.count), order)
            return {name: c.at[rows].get(mode="clip") for name, c in columns.items()}, places < self.count
        total = next(iter(columns.values())).shape[0]
        begin = jnp.minimum(self.start + index * size, total - size)  # a window never reaches beyond the columns
        places = begin - self.start + jnp.arange(size)
        present = (places >= index * size) & (places < self.count)
        return {name: _window(c, begin, self.start, present) for name, c in columns.items()}, present


def _window(column: Array, begin: Any, own: Any, present: Any) -> Array:
    """The rows from `begin` on; those that are not present are the row `own` again, never another client's.

    A slice, because XLA on a CPU gathers rows far more slowly.
    """
    rows = jax.lax.dynamic_slice_in_dim(column, begin, present.shape[0])
    filling = jax.lax.dynamic_slice_in_dim(column, own, 1)
    return jnp.where(present.reshape(-1, *[1] * (column.ndim - 1)), rows, filling)


def finite(column: np.ndarray[Any, Any]) -> bool:
    """Whether a column holds no NaN and no infinity."""
    return not np.issubdtype(column.dtype, np.inexact) or bool(np.isfinite(column).all())
