"""The readable runtime: plain loops over the three moves. It is the specification of the others.

It runs every algorithm, and a client's turn is the one that a deployed client takes (`shoal.turns`). It alone can run a
secure sum's whole protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shoal.algorithms import Algorithm, ClientState, Run, enter, run_round
from shoal.data import LazyPopulation, Population
from shoal.errors import DataError
from shoal.simulation.cohorts import Cohorts
from shoal.simulation.records import RoundRecord, means
from shoal.simulation.rehearsal import Protocol, Rehearsal, unmasked
from shoal.turns import take_turn


class LocalRuntime:
    """Rounds in this process, one client after another."""

    def __init__(
        self,
        algorithm: Algorithm[Any, Any, Any],
        clients: Population | LazyPopulation | Mapping[str, Any],
        cohorts: Cohorts,
        rehearsal: Rehearsal | None = None,
    ) -> None:
        self._algorithm, self._clients, self._cohorts = algorithm, clients, cohorts
        self._protocol = None
        if rehearsal is not None:
            self._protocol = Protocol(algorithm, rehearsal, key=cohorts.key, most=cohorts.most)
        self._names = cohorts.names
        self.states: dict[str, ClientState] = {name: enter(algorithm) for name in self._names}

    def __str__(self) -> str:
        return "local" if self._protocol is None else f"local, {self._protocol}"

    def restore(self, states: Any) -> None:
        """Puts back what clients remembered."""
        self.states = dict(states)

    def advance(self, run: Run[Any], rounds: int) -> tuple[Run[Any], list[RoundRecord]]:
        """Runs one round."""
        number = int(run.round)
        drawn = self._cohorts.draw(number)
        clients, failed = self._loaded(drawn.places)
        key = self._cohorts.key.split("round", number)
        adding = unmasked if self._protocol is None else self._protocol.meet
        meet = adding(run, layout=self._algorithm.layout, clients=len(clients))
        done = run_round(self._algorithm, run, clients, self.states, key, take_turn, meet)
        self.states = {**self.states, **done.states}
        report, met = done.report, done.met
        stopped = () if met.stopped is None else (met.stopped,)
        record = RoundRecord(
            number + 1,
            int(report.clients),
            tuple(sorted((*done.rejected, *failed))) if failed or met.refused else done.rejected,
            bool(report.released),
            means(report.metrics),
            lost=drawn.lost + met.lost,
            waited=drawn.waited,
            failures=(*failed.values(), *met.refused.values(), *stopped),
        )
        return done.run, [record]

    def _loaded(self, places: Any) -> tuple[dict[str, Any], dict[str, str]]:
        """The data of the clients at some places, by name; and what went wrong with those that could not be loaded."""
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
