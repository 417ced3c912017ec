"""One client's turn, by itself: what the readable runtime does for each client, and what a site does for its own.

Both call this one function with the same arguments, so a deployed client sends what a simulated one would, to the bit.
Nothing in it depends on other clients, on how many there are or how much data they hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from shoal.aggregation import Aggregation, Bag, DiscreteGaussian, Gaussian, NoisesGrid, Over, Payload, Skellam
from shoal.aggregation.step import Noises, Randomizes
from shoal.algorithms import Algorithm, Call, ClientState, Local, client_turn
from shoal.errors import DataError, SettingError, UnsupportedError
from shoal.examples import Examples, finite
from shoal.key import Key
from shoal.noise.source import SecureNoise
from shoal.noise.tables import LARGEST_SHARE
from shoal.programs import compiled
from shoal.vector import Layout

LEAST = 32
"""The smallest size of a client that is compiled for: rows of a batch that are not there cost less than compiling."""

DRAWN = (Gaussian, DiscreteGaussian, Skellam, Over)
"""The finishes whose noise servers or clients draw from the operating system, where it is no simulation."""

compiled_turn = compiled()(client_turn)
"""A client's turn as one compiled call. Inside another it is traced once, however often it is used."""


def take_turn(
    algorithm: Algorithm[Any, Any, Any], call: Call[Any], data: Any, state: ClientState, key: Key
) -> tuple[Payload | Bag, ClientState]:
    """A client's payload, and what it remembers, in NumPy: `client_turn`, compiled if the algorithm is JAX code.

    DataError for a column that compiled code cannot read.
    """
    if not (algorithm.traceable and isinstance(data, Examples)):
        return client_turn(algorithm, call, data, state, key)
    done = compiled_turn(algorithm, call, alone(data), state, key.traceable())
    return jax.tree.map(np.asarray, done)


def own_turn(
    algorithm: Algorithm[Any, Any, Any], call: Call[Any], data: Any, state: ClientState, key: Key
) -> tuple[Payload | Bag, ClientState]:
    """A client's turn on its own machine: `take_turn`, but for noise that the client adds.

    That is drawn from the operating system, since the server knows `key`. What comes before it is what a simulated
    client would have.
    """
    adds = (Noises, Randomizes)
    places = frozenset(place for place, step in enumerate(call.aggregation.steps) if isinstance(step, adds))
    if not places:
        return take_turn(algorithm, call, data, state, key)
    work: Any = algorithm
    if algorithm.traceable and isinstance(data, Examples):
        data = alone(data)
        work = _Worked(algorithm.layout, _local(algorithm, call.message, data, state.algorithm, key))
    return client_turn(work, call, data, state, cast("Key", _Own(key, places)))


@dataclass(frozen=True)
class _Worked:
    """An algorithm whose work on a client is done."""

    layout: Layout
    done: Local

    def local(self, *given: Any) -> Local:
        return self.done


@dataclass(frozen=True)
class _Own:
    """A turn's key, but for the steps in some places: they draw from the operating system."""

    key: Key
    places: frozenset[int]
    encodes: bool = False

    def split(self, name: str | int) -> Any:
        if name == "encode":
            return _Own(self.key.split(name), self.places, encodes=True)
        return SecureNoise() if self.encodes and name in self.places else self.key.split(name)


@compiled()
def _compiled_local(
    algorithm: Algorithm[Any, Any, Any], message: Any, data: Any, state: Any, key: Key
) -> tuple[Any, ...]:
    local = algorithm.local(message, data, state, key.split("local"))
    return local.value, local.examples, local.client_state, local.metrics


def _local(algorithm: Algorithm[Any, Any, Any], message: Any, data: Any, state: Any, key: Key) -> Local:
    """A client's work as one compiled call, in NumPy."""
    return Local(*jax.tree.map(np.asarray, _compiled_local(algorithm, message, data, state, key.traceable())))


def check_deployable(algorithm: Algorithm[Any, Any, Any]) -> None:
    """UnsupportedError for a chain whose protection is only simulated so far: no server and no client runs it.

    SettingError for integer noise that is too wide to be drawn.
    """
    aggregation = algorithm.aggregation
    _check_noise(aggregation, algorithm.layout)
    if aggregation.threshold and not algorithm.layout.size:
        raise UnsupportedError(
            f"{aggregation}: nothing but metrics leaves a client in this plan, and a secure sum is of a value: use "
            "PlainSum() for now, or simulate this plan"
        )


def _check_noise(aggregation: Aggregation, layout: Layout) -> None:
    """A server draws the noise of these finishes from the operating system, and so do clients with shares of noise."""
    finish = aggregation.finish
    if aggregation.private and type(finish) not in DRAWN:
        raise UnsupportedError(
            f"{aggregation}: the noise of {type(finish).__name__} is simulated so far, and what only says that it "
            "protects must not run over a network: finish with Gaussian, DiscreteGaussian or Skellam, or simulate this "
            "plan"
        )
    bound, unit = aggregation.sensitivity(layout), aggregation.unit
    widths = [(step.deviation(bound) / unit, LARGEST_SHARE) for step in aggregation.steps if isinstance(step, Noises)]
    if isinstance(finish, NoisesGrid):
        widths.append((finish.deviation(bound) / unit, finish.widest))
    for wide, widest in widths:
        if wide > widest:
            raise SettingError(
                f"{aggregation}: the noise has a deviation of {wide:,.0f} steps of the grid, and the widest that is "
                f"drawn has {widest:,.0f}: use a larger step in Quantize"
            )


def notes_of(algorithm: Algorithm[Any, Any, Any]) -> Mapping[str, int]:
    """The notes that a client's payload can have, by name, with their lengths: a secure sum has a place for each.

    An algorithm of one's own says so in an attribute `notes`; without it, it has none.

    >>> from shoal import FedAvg, models
    >>> notes_of(FedAvg(models.logistic(3)))
    {'loss': 2}
    """
    return {} if algorithm.aggregation.private else getattr(algorithm, "notes", {})


def alone(data: Examples) -> Examples:
    """A client's own rows in dtypes of the device, filled up with zeros to a size that is compiled for."""
    size = compiled_size(int(data.count))
    columns: dict[str, Any] = {}
    usable = bool(data.usable)
    for name in data.columns:
        column = readable_column(name, data.rows(name))
        usable = usable and finite(column)  # float32 has infinities where float64 has numbers
        columns[name] = jnp.asarray(filled(column, size))
    return Examples(columns, np.int32(0), np.int32(data.count), np.bool_(usable), size)


def compiled_size(rows: int) -> int:
    """The size that a number of rows is filled up to: a power of two, so that few sizes are compiled.

    >>> compiled_size(3), compiled_size(33)
    (32, 64)
    """
    return max(LEAST, 1 << max(rows - 1, 0).bit_length())


def filled(column: np.ndarray[Any, Any], rows: int) -> np.ndarray[Any, Any]:
    """The column with zeros after it, to a number of rows."""
    if len(column) == rows:
        return column
    longer = np.zeros((rows, *column.shape[1:]), column.dtype)
    longer[: len(column)] = column
    return longer


def readable_column(name: str, column: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The column in a dtype of the device; DataError for whole numbers that have no place there."""
    if column.dtype in (np.int64, np.uint64, np.uint32):
        if column.size and not -(2**31) <= column.min() <= column.max() < 2**31:
            raise DataError(f"column {name!r} holds whole numbers beyond 32 bits, which a JAX model cannot read")
        return column.astype(np.int32)
    if column.dtype in (np.float64, np.longdouble):
        with np.errstate(over="ignore"):
            return column.astype(np.float32)
    return column
