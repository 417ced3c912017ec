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
from shoal.data import LazyPopulation, Population
from shoal.errors import DataError
from shoal.simulation.cohorts import Cohorts
from shoal.simulation.columns import Taken, source
from shoal.simulation.folding import compiled_turn
from shoal.simulation.records import RoundRecord, means


class LocalRuntime:
    """Rounds in this process, one client after another."""

    def __init__(
        self,
        algorithm: Algorithm[Any, Any, Any],
        clients: Population | LazyPopulation | Mapping[str, Any],
        cohorts: Cohorts,
    ) -> None:
        self._algorithm, self._clients, self._cohorts = algorithm, clients, cohorts
        self._names = cohorts.names
        self._source = None
        if algorithm.traceable and isinstance(clients, Population | LazyPopulation):
            self._source = source(clients, algorithm.check)
        self._turn = client_turn if self._source is None else _compiled_turn
        self.states: dict[str, ClientState] = {name: enter(algorithm) for name in self._names}

    def __str__(self) -> str:
        return "local"

    def restore(self, states: Any) -> None:
        """Puts back what clients remembered."""
        self.states = dict(states)

    def advance(self, run: Run[Any], rounds: int) -> tuple[Run[Any], list[RoundRecord]]:
        """Runs one round."""
        number = int(run.round)
        drawn = self._cohorts.draw(number)
        clients, failed = self._loaded(drawn.places)
        key = self._cohorts.key.split("round", number)
        done = run_round(self._algorithm, run, clients, self.states, key, self._turn)
        self.states = {**self.states, **done.states}
        report = done.report
        record = RoundRecord(
            number + 1,
            int(report.clients),
            tuple(sorted((*done.rejected, *failed))) if failed else done.rejected,
            bool(report.released),
            means(report.metrics),
            lost=drawn.lost,
            waited=drawn.waited,
            failures=tuple(failed.values()),
        )
        return done.run, [record]

    def _loaded(self, places: Any) -> tuple[dict[str, Any], dict[str, str]]:
        """The data of the clients at some places, by name; and what went wrong with those that could not be loaded."""
        if self._source is not None:
            taken = self._source.take(places)
            pairs = zip(taken.places, taken.local, strict=True)
            failed = {self._names[place]: why for place, why in taken.failed.items()}
            return {self._names[int(place)]: _at(taken, local) for place, local in pairs}, failed
        loaded: dict[str, Any] = {}
        failed = {}
        for place in map(int, places):
            name = self._names[place]
            if not isinstance(self._clients, LazyPopulation):
                loaded[name] = self._clients[name]
                continue
            try:
                loaded[name] = self._clients.at(place, check=self._algorithm.check)
            except DataError as error:
                failed[name] = str(error)
        return loaded, failed


def _at(taken: Taken, place: Any) -> Any:
    """A client's examples, its numbers on the host."""
    data = taken.columns.at(place)
    return replace(data, start=np.int32(data.start), count=np.int32(data.count))


def _compiled_turn(algorithm: Any, call: Any, data: Any, state: Any, key: Any) -> Any:
    """A client's turn as one compiled call; what it sends is NumPy, as it would be in a deployment."""
    payload, after = compiled_turn(algorithm, call, data, state, key.traceable())
    return jax.tree.map(np.asarray, payload), after
