"""What a simulation is given: checked before anything runs, and told apart from every other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from shoal.data import LazyPopulation, Population
from shoal.describe import digest
from shoal.errors import DataError, SettingError
from shoal.examples import Examples
from shoal.plan import Plan
from shoal.simulation.evaluation import readable

Clients = Population | LazyPopulation | Mapping[str, Any]
"""What a plan runs on: a population, or for algorithms that read something else than rows, their data by client."""


def prepared(plan: Plan, population: Any, test: Any) -> tuple[Clients, Any]:
    """The clients to run the plan on, and the test without clients that hold NaN or infinity.

    PlanError or DataError if they do not fit the plan.
    """
    clients = _clients(population, reads_rows=plan.algorithm.traceable or hasattr(plan.algorithm, "model"))
    plan.check(len(clients))
    if isinstance(clients, Population):
        readable(plan.algorithm, clients)
    elif not isinstance(clients, LazyPopulation):  # whose clients are checked when they are loaded
        for data in clients.values():
            plan.algorithm.check(data)
    if isinstance(test, Population):
        if not hasattr(plan.algorithm, "model"):
            raise SettingError(f"{type(plan.algorithm).__name__} trains no model that could be tested")
        test, _ = readable(plan.algorithm, test)
    elif test is not None and not callable(test):
        raise SettingError(f"test is a population or a function of the run's state, not a {type(test).__name__}")
    return clients, test


def _clients(population: Any, *, reads_rows: bool) -> Clients:
    """A population; or, for an algorithm that reads something else than rows, the mapping that was given."""
    if isinstance(population, Population | LazyPopulation):
        return population
    if not isinstance(population, Mapping):
        raise DataError(f"a population is a Population or a dict of clients, not a {type(population).__name__}")
    given: Mapping[str, Any] = population
    if not given:
        raise DataError("a population has at least one client")
    if not reads_rows:
        return given
    if all(callable(data) for data in given.values()):
        return LazyPopulation.of(given)
    rows = {
        name: {column: data.rows(column) for column in data.columns} if isinstance(data, Examples) else data
        for name, data in given.items()
    }
    return Population.from_clients(rows)


def identity(plan: Plan, clients: Any, *, seed: int, start: Any, runtime: Any) -> dict[str, str]:
    """What decides a run's numbers: a checkpoint of another run must not be taken for this one's.

    Who happens to be there is not in it: a run that failed for want of clients goes on when they are back.
    """
    return {
        "plan": plan.digest(),
        "seed": str(seed),
        "population": _data_digest(clients),
        "start": digest(None if start is None else np.asarray(start)),
        "runtime": f"{runtime}",
    }


def _data_digest(clients: Any) -> str:
    """SHA-256 over names, sizes and every column; of data that is not columns, over the names."""
    if not isinstance(clients, Population):
        return digest(list(clients))
    sha = hashlib.sha256(digest([list(clients.names), clients.offsets]).encode())
    for name, column in clients.columns.items():
        sha.update(f"{name} {column.dtype} {column.shape}".encode())
        sha.update(np.ascontiguousarray(column).data)
    return sha.hexdigest()
