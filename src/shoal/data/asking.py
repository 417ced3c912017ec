"""One round of federated statistics over a population, in this process."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from shoal.algorithms import Algorithm
from shoal.algorithms.moves import Round, enter, run_round, start
from shoal.data.population import Population
from shoal.examples import Examples
from shoal.key import Key


def asked(algorithm: Algorithm[Any, Any, Examples], population: Population) -> Round[Any]:
    """The round in which every client answers. A client that holds NaN or infinity contributes nothing."""
    return _asked(algorithm, {name: population[name] for name in population})


def asked_with_missing(algorithm: Algorithm[Any, Any, Examples], population: Population) -> Round[Any]:
    """The same where NaN is part of the question: only a client whose answer is not finite contributes nothing."""
    return _asked(algorithm, {name: replace(population[name], usable=True) for name in population})


def _asked(algorithm: Algorithm[Any, Any, Examples], clients: dict[str, Examples]) -> Round[Any]:
    key = Key.from_seed(0)
    return run_round(algorithm, start(algorithm, key), clients, {name: enter(algorithm) for name in clients}, key)
