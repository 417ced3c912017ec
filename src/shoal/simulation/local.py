"""The readable runtime: plain loops over the three moves. It is the specification of the others.

It runs every algorithm: JAX ones with each client's turn compiled by itself, all others as plain Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from shoal.algorithms import Algorithm, ClientState, Run, client_turn, enter, run_round
from shoal.cohort import Sampler
from shoal.data import Population
from shoal.key import Key
from shoal.simulation.columns import Columns, on_device
from shoal.simulation.folding import compiled_turn
from shoal.simulation.records import RoundRecord, means


class LocalRuntime:
    """Rounds in this process, one client after another."""

    def __init__(
        self, algorithm: Algorithm[Any, Any, Any], clients: Population | Mapping[str, Any], sampler: Sampler, key: Key
    ) -> None:
        self._algorithm, self._sampler, self._key = algorithm, sampler, key
        self._names = tuple(clients)
        self._clients = clients
        self._columns: Columns | None = None
        if algorithm.traceable and isinstance(clients, Population):
            self._columns = on_device(clients)
        self._turn = client_turn if self._columns is None else _compiled_turn
        self.states: dict[str, ClientState] = {name: enter(algorithm) for name in self._names}

    def __str__(self) -> str:
        return "local"

    def restore(self, states: Any) -> None:
        """Puts back what clients remembered."""
        self.states = dict(states)

    def advance(self, run: Run[Any], rounds: int) -> tuple[Run[Any], list[RoundRecord]]:
        """Runs one round."""
        key = self._key.split("round", int(run.round))
        places = self._sampler.draw(key.split("cohort"), len(self._names))
        cohort = {self._names[place]: self._data(place) for place in places}
        done = run_round(self._algorithm, run, cohort, self.states, key, self._turn)
        self.states = {**self.states, **done.states}
        report = done.report
        return done.run, [
            RoundRecord(
                int(done.run.round), int(report.clients), done.rejected, bool(report.released), means(report.metrics)
            )
        ]

    def _data(self, place: int) -> Any:
        data = self._clients[self._names[place]]
        if self._columns is None:
            return data
        return replace(
            data,
            columns=self._columns.columns,
            start=np.int32(data.start),
            count=np.int32(data.count),
            usable=self._columns.usable[place],
        )


def _compiled_turn(algorithm: Any, call: Any, data: Any, state: Any, key: Key) -> Any:
    """A client's turn as one compiled call; what it sends is NumPy, as it would be in a deployment."""
    payload, after = compiled_turn(algorithm, call, data, state, key.traceable())
    return jax.tree.map(np.asarray, payload), after
