"""One round of a learning process: the three moves, compiled where the algorithm can be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np

from shoal.algorithms import Algorithm, Report, Run, close_round, enter, open_round, run_round
from shoal.data import Population
from shoal.key import Key
from shoal.programs import compiled
from shoal.simulation.columns import Columns, on_device
from shoal.simulation.folding import cohort_total
from shoal.turns import compiled_size, compiled_turn, filled


def one_round(
    algorithm: Algorithm[Any, Any, Any], run: Run[Any], population: Population, key: Key
) -> tuple[Run[Any], Report]:
    """The run after a round in which every client of the population takes part, and the report.

    `key` is the run's; a client's is split from it by the round and the client's name, as in a simulation.
    """
    if algorithm.traceable:
        columns = rounded(population)
        run = jax.tree.map(jnp.asarray, run)
        return _compiled(algorithm, run, columns, np.int32(len(population)), key.traceable())
    clients = {name: population[name] for name in population}
    states = {name: enter(algorithm) for name in population}
    done = run_round(algorithm, run, clients, states, key.split("round", int(run.round)))
    return done.run, done.report


@compiled()
def _compiled(algorithm: Any, run: Run[Any], columns: Columns, size: Any, key: Key) -> tuple[Run[Any], Report]:
    """The round as one compiled call; it is compiled again for other numbers of rows or clients."""
    round_key = key.split("round", run.round)
    call, state = open_round(algorithm, run), enter(algorithm)
    keys = round_key.split("client").fold(columns.name.high, columns.name.low)

    def turn(place: Any, none: Any, key: Key) -> Any:
        return compiled_turn(algorithm, call, columns.at(place), state, key)

    total, _, _ = cohort_total(turn, 1, state, jnp.arange(columns.count.shape[0]), size, keys)
    return close_round(algorithm, run, total, round_key.split("server"))


def rounded(population: Population) -> Columns:
    """A population on the device with rows and clients filled up to powers of two, so that few sizes are compiled.

    What fills them up are rows of zeros, in clients after the last one.
    """
    if population not in _ROUNDED:
        _ROUNDED[population] = _rounded(population)
    return _ROUNDED[population]


_ROUNDED: WeakKeyDictionary[Population, Columns] = WeakKeyDictionary()


def _rounded(population: Population) -> Columns:
    longest = compiled_size(population.longest)
    rows, clients = int(population.offsets[-1]), len(population)
    wanted = _power(max(rows, longest))
    fillers = _power(clients + 1) - clients
    names = (*population.names, *(f"\0filler {i}" for i in range(fillers)))
    ends = np.full(fillers, wanted, population.offsets.dtype)
    columns = {name: filled(column, wanted) for name, column in population.columns.items()}
    larger = Population(names, columns, np.concatenate([population.offsets, ends]))
    return replace(on_device(larger), longest=longest)


def _power(size: int) -> int:
    """The first power of two that is not smaller."""
    return 1 << max(size - 1, 0).bit_length()
