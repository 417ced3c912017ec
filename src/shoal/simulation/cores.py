"""The compiled runtime for large models: a part of the cohort on each core.

Where one step takes milliseconds, two cores inside one operation wait for each other; two clients side by
side do not. Each thread runs one compiled call over its part of the cohort, and the partial sums are added in
a fixed order, so the same seed gives the same model on the same number of cores.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shoal.algorithms import Algorithm, Run, close_round, enter, open_round
from shoal.data import LazyPopulation, Population
from shoal.key import Key
from shoal.programs import compiled
from shoal.simulation.cohorts import Cohorts
from shoal.simulation.columns import Columns, source
from shoal.simulation.folding import cohort_total
from shoal.simulation.records import RoundRecord, means
from shoal.turns import compiled_turn

LARGE = 100_000
"""From how many parameters a client's steps outweigh a call."""


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def suits(algorithm: Algorithm[Any, Any, Any], cohorts: Cohorts) -> bool:
    """Whether a model is large enough, on a CPU with several cores, and clients remember nothing."""
    return (
        algorithm.layout.size >= LARGE
        and jax.default_backend() == "cpu"
        and min(cores(), cohorts.most) > 1
        and not jax.tree.leaves(enter(algorithm))
    )


class CoresRuntime:
    """Rounds whose cohort is shared out over the cores."""

    def __init__(
        self, algorithm: Algorithm[Any, Any, Any], population: Population | LazyPopulation, cohorts: Cohorts
    ) -> None:
        self._algorithm, self._cohorts, self._names = algorithm, cohorts, population.names
        self._source = source(population, algorithm.check)
        self._threads = min(cores(), cohorts.most)
        self._pool = ThreadPoolExecutor(self._threads)
        self.states: Any = ()

    def __str__(self) -> str:
        return f"cores ({self._threads})"  # partial sums depend on how many there are

    def restore(self, states: Any) -> None:
        """Nothing is remembered."""

    def advance(self, run: Run[Any], rounds: int) -> tuple[Run[Any], list[RoundRecord]]:
        """Runs one round."""
        number = int(run.round)
        key = self._cohorts.key.split("round", number)
        drawn, *coming = self._cohorts.several(number, min(rounds, 2))
        taken = self._source.take(drawn.places)
        parts = _shares(taken.local, np.asarray(taken.columns.count), self._threads)
        width = max(self._cohorts.most, *map(len, parts))
        run = jax.tree.map(jnp.asarray, run)
        computing = self._totals(run, taken.columns, parts, width, key)
        for cohort in coming:
            self._source.expect(cohort.places)
        totals, present = zip(*computing, strict=True)
        run, report = _close(self._algorithm, run, totals, key.traceable())
        report, present = jax.device_get((report, present))
        counted = {p: bool(c) for part, cs in zip(parts, present, strict=True) for p, c in zip(part, cs, strict=False)}
        silent = [int(place) for place, local in zip(taken.places, taken.local, strict=True) if not counted[int(local)]]
        record = RoundRecord(
            number + 1,
            int(report.clients),
            tuple(self._names[place] for place in sorted((*silent, *taken.failed))),
            bool(report.released),
            means(report.metrics),
            lost=drawn.lost,
            waited=drawn.waited,
            failures=tuple(taken.failed.values()),
        )
        return run, [record]

    def _totals(self, run: Run[Any], columns: Columns, parts: list[list[int]], width: int, key: Key) -> Iterator[Any]:
        arguments = [_arguments(run, columns, part, width, key) for part in parts]
        leaves, tree = jax.tree.flatten(arguments[0])
        call = _compiled_part(self._algorithm, tree, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        return self._pool.map(lambda given: jax.block_until_ready(call(*given)), arguments)


def _arguments(run: Run[Any], columns: Columns, part: list[int], width: int, key: Key) -> tuple[Any, ...]:
    cohort = np.array(part + [0] * (width - len(part)), np.int32)
    return columns, run, cohort, np.int32(len(part)), key.traceable()


@lru_cache(maxsize=16)
def _compiled_part(algorithm: Any, tree: Any, leaves: tuple[Any, ...]) -> Any:
    """`_part`, compiled once before several threads call it."""
    arguments = jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(*leaf) for leaf in leaves])
    return jax.jit(_part, static_argnums=0).lower(algorithm, *arguments).compile()


def _part(algorithm: Any, columns: Columns, run: Run[Any], cohort: Any, size: Any, round_key: Key) -> Any:
    """The payloads of one part of a cohort, added up; and who of it counted."""
    call = open_round(algorithm, run)
    state = enter(algorithm)
    keys = round_key.split("client").fold(columns.name.high[cohort], columns.name.low[cohort])

    def turn(place: Any, none: Any, key: Key) -> Any:
        return compiled_turn(algorithm, call, columns.at(place), state, key)

    total, _, present = cohort_total(turn, 1, state, cohort, size, keys)
    return total, present


@compiled()
def _close(algorithm: Any, run: Run[Any], totals: tuple[Any, ...], round_key: Key) -> Any:
    total = totals[0]
    for other in totals[1:]:
        total = total + other
    return close_round(algorithm, run, total, round_key.split("server"))


def _shares(places: Any, counts: Any, parts: int) -> list[list[int]]:
    """The places dealt out so that each part has about as many examples: largest first, to the least loaded."""
    dealt: list[list[int]] = [[] for _ in range(parts)]
    loads = [(0, part) for part in range(parts)]
    for place in sorted(places, key=lambda p: (-counts[p], p)):
        load, part = heapq.heappop(loads)
        dealt[part].append(int(place))
        heapq.heappush(loads, (load + int(counts[place]), part))
    return dealt
