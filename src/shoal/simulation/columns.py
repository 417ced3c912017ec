"""A population where compiled code can read it: columns on the device, clients as four arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np

from shoal.data import Population
from shoal.errors import DataError
from shoal.examples import Examples
from shoal.key import Key, name_words


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Columns:
    """The columns of a population, with where each client's rows begin, how many they are, whether they can be
    used, and the words of its name (see `shoal.key`)."""

    columns: dict[str, jax.Array]
    start: jax.Array
    count: jax.Array
    usable: jax.Array
    name: Key
    longest: int = field(metadata={"static": True})

    def at(self, place: Any) -> Examples:
        """The examples of the client at a place, which may be traced."""
        return Examples(self.columns, self.start[place], self.count[place], self.usable[place], self.longest)


def on_device(population: Population) -> Columns:
    """A population on the device.

    It stays there as long as the population lives, so the next simulation of it starts at once.
    """
    if population not in _ON_DEVICE:
        _ON_DEVICE[population] = _placed(population)
    return _ON_DEVICE[population]


_ON_DEVICE: WeakKeyDictionary[Population, Columns] = WeakKeyDictionary()


def _placed(population: Population) -> Columns:
    if int(population.offsets[-1]) >= 2**31:
        raise DataError("a simulation holds fewer than 2**31 examples")
    words = np.array([name_words(name) for name in population.names], np.uint32)
    readable = population
    for name, column in population.columns.items():
        cast = _readable(name, column)
        if cast is not column:
            readable = readable.with_column(name, cast)  # float32 has infinities where float64 has numbers
    return Columns(
        {name: jnp.asarray(column) for name, column in readable.columns.items()},
        jnp.asarray(population.offsets[:-1], jnp.int32),
        jnp.asarray(population.counts, jnp.int32),
        jnp.asarray(readable.usable),
        Key(jnp.asarray(words[:, 0]), jnp.asarray(words[:, 1])),
        population.longest,
    )


def _readable(name: str, column: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The column in a dtype of the device."""
    if column.dtype in (np.int64, np.uint64, np.uint32):
        if column.size and not -(2**31) <= column.min() <= column.max() < 2**31:
            raise DataError(f"column {name!r} holds whole numbers beyond 32 bits, which a JAX model cannot read")
        return column.astype(np.int32)
    if column.dtype in (np.float64, np.longdouble):
        with np.errstate(over="ignore"):
            return column.astype(np.float32)
    return column
