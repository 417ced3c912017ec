"""The compiled runtime: a whole cohort, and whole rounds, in one call.

The call holds the three moves as they are. It scans over the clients of a round, each with its own number of
batches, and adds each encoded contribution to the running total; rounds that need no Python between them
follow each other in the same call. Cohorts are drawn outside, in one vectorised draw a round, and come in as
numbers. One program serves cohorts and clients of every size.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shoal.algorithms import Algorithm, Report, Run, close_round, enter, open_round
from shoal.data import LazyPopulation, Population
from shoal.key import Key
from shoal.programs import compiled
from shoal.simulation.cohorts import Cohort, Cohorts
from shoal.simulation.columns import Columns, Resident, Taken, source
from shoal.simulation.folding import cohort_total
from shoal.simulation.records import RoundRecord, means
from shoal.turns import compiled_turn

ROUNDS = 64
"""The most rounds in one call."""
CALL_S = 0.25
"""How long a call should take: short enough for a progress bar and for Ctrl-C."""


class CompiledRuntime:
    """Rounds as compiled calls."""

    def __init__(
        self, algorithm: Algorithm[Any, Any, Any], population: Population | LazyPopulation, cohorts: Cohorts
    ) -> None:
        self._algorithm, self._cohorts, self._names = algorithm, cohorts, population.names
        self._key = cohorts.key.traceable()
        self._source = source(population, algorithm.check)
        self._lanes = lanes(algorithm, population)
        self._most = -(-cohorts.most // self._lanes) * self._lanes
        self._pace = 1
        first = enter(algorithm)
        self.states: Any = jax.tree.map(lambda part: jnp.repeat(jnp.asarray(part)[None], len(population), 0), first)

    def __str__(self) -> str:
        return "compiled"

    def restore(self, states: Any) -> None:
        """Puts back what clients remembered."""
        self.states = jax.tree.map(jnp.asarray, states)

    def advance(self, run: Run[Any], rounds: int) -> tuple[Run[Any], list[RoundRecord]]:
        """Runs as many rounds as fit into a call's time, at most `rounds`."""
        first = int(run.round)
        if isinstance(self._source, Resident):
            drawn = self._cohorts.several(first, min(rounds, self._pace, ROUNDS))
            taken = self._source.take(np.empty(0, np.int64))
            places, coming = [cohort.places for cohort in drawn], []
        else:
            now, *coming = self._cohorts.several(first, min(rounds, 2))
            taken = self._source.take(now.places)
            drawn, places = [now], [taken.local]
        begin = time.perf_counter()
        run, reports, counted = self._call(run, taken, places)
        for cohort in coming:
            self._source.expect(cohort.places)
        reports, counted = jax.device_get((reports, counted))
        each = (time.perf_counter() - begin) / len(drawn)
        self._pace = max(1, min(ROUNDS, 2 * self._pace, int(CALL_S / each)))
        return run, [self._record(first + i, i, reports, counted, drawn[i], taken) for i in range(len(drawn))]

    def _call(self, run: Run[Any], taken: Taken, places: list[np.ndarray[Any, Any]]) -> tuple[Run[Any], Any, Any]:
        """Begins one round for each list of places, which are those of `taken`: its results are not waited for."""
        cohorts, sizes = self._padded(places)
        gathered = not isinstance(self._source, Resident)
        states = jax.tree.map(lambda s: s[taken.places], self.states) if gathered else self.states
        run, states, reports, counted = _advance(
            self._algorithm, self._lanes, taken.columns, run, states, cohorts, sizes, np.int32(len(places)), self._key
        )
        if gathered:
            states = jax.tree.map(lambda every, some: every.at[taken.places].set(some), self.states, states)
        self.states = states
        return run, reports, counted

    def _padded(self, places: list[np.ndarray[Any, Any]]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """The places of the clients of each round, filled up with zeros; and how many they are."""
        longest = max(map(len, places))
        if longest > self._most:  # once in a billion cohorts; the call is compiled again for the new size
            self._most = -(-longest // self._lanes) * self._lanes
        cohorts = np.zeros((ROUNDS, self._most), np.int32)
        sizes = np.zeros(ROUNDS, np.int32)
        for i, row in enumerate(places):
            cohorts[i, : len(row)] = row
            sizes[i] = len(row)
        return cohorts, sizes

    def _record(self, number: int, i: int, reports: Report, counted: Any, drawn: Cohort, taken: Taken) -> RoundRecord:
        took_part = np.setdiff1d(drawn.places, np.fromiter(taken.failed, np.int64)) if taken.failed else drawn.places
        silent = took_part[np.flatnonzero(counted[i, : len(took_part)] == 0)]
        return RoundRecord(
            number + 1,
            int(reports.clients[i]),
            tuple(self._names[place] for place in sorted((*silent.tolist(), *taken.failed))),
            bool(reports.released[i]),
            means({name: sums[i] for name, sums in reports.metrics.items()}),
            lost=drawn.lost,
            waited=drawn.waited,
            failures=tuple(taken.failed.values()),
        )


def lanes(algorithm: Algorithm[Any, Any, Any], population: Population | LazyPopulation) -> int:
    """How many clients go in lockstep: some where all are known to be equal and tiny, else one at a time."""
    if isinstance(population, LazyPopulation):
        return 1
    equal = population.counts.min() == population.longest
    tiny = algorithm.layout.size <= 1024 and population.longest <= 256
    return min(32, len(population)) if equal and tiny else 1


@compiled(2, donated=(4,))
def _advance(
    algorithm: Any, lanes: int, columns: Columns, run: Run[Any], states: Any, cohorts: Any, sizes: Any, rounds: Any,
    key: Key,
) -> Any:  # fmt: skip
    def one_round(i: Any, carry: Any) -> Any:
        run, states, reports, counted = carry
        run, states, report, present = _round(algorithm, lanes, columns, run, states, cohorts[i], sizes[i], key)
        reports = jax.tree.map(lambda every, one: every.at[i].set(one), reports, report)
        return run, states, reports, counted.at[i].set(present)

    shapes = jax.eval_shape(partial(_round, algorithm, lanes), columns, run, states, cohorts[0], sizes[0], key)
    reports = jax.tree.map(lambda leaf: jnp.zeros((ROUNDS, *leaf.shape), leaf.dtype), shapes[2])
    counted = jnp.zeros(cohorts.shape, jnp.int32)
    # The state's leaves may be NumPy or weakly typed; a loop's carry keeps one type.
    run = jax.tree.map(lambda leaf, like: jnp.asarray(leaf, like.dtype), run, shapes[0])
    return jax.lax.fori_loop(0, rounds, one_round, (run, states, reports, counted))


def _round(
    algorithm: Any, lanes: int, columns: Columns, run: Run[Any], states: Any, cohort: Any, size: Any, key: Key
) -> Any:
    """One round: the run and the clients' states after it, its report, and who of the cohort counted."""
    round_key = key.split("round", run.round)
    call = open_round(algorithm, run)
    names = Key(columns.name.high[cohort], columns.name.low[cohort])
    keys = round_key.split("client").fold(names.high, names.low)

    def turn(place: Any, state: Any, key: Key) -> Any:
        return compiled_turn(algorithm, call, columns.at(place), state, key)

    total, after, present = cohort_total(turn, lanes, states, cohort, size, keys)
    aggregation = run.aggregation
    run, report = close_round(algorithm, run, total, round_key.split("server"))
    if aggregation.meeting.releases(1) is not True:  # only then may a round that had clients release nothing
        after = jax.lax.cond(report.released, lambda: after, lambda: states)
    return run, after, report, present
