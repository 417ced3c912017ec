"""Four hospitals and a server as processes, with an epsilon for each hospital: the noise is the operating system's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import shoal
from shoal.data.hospitals import HOSPITALS
from shoal.demos.hospitals_deployed import Columns, Terms, evaluation, population, simulated
from shoal.demos.hospitals_network import (
    MASKED,
    NOISED,
    PLAIN,
    Left,
    Tell,
    bring_keys,
    held,
    left,
    over_network,
    prepare,
)
from shoal.demos.hospitals_private import DELTA, SCALE, deployed, without_noise

DRAWS = 20
"""How often the run is simulated beside the one over the network: with noise no two runs find the same."""


@dataclass(frozen=True)
class PrivatelyDeployed:
    """How often three models are right on held-out patients: the network's, simulated ones, one without noise.

    All that left the server is its model; these figures are the demo's, which holds all four tables.
    """

    spent: shoal.privacy.Spent
    network: float
    simulated: tuple[float, float]
    """The mean over `DRAWS` runs with simulated noise, and their standard deviation."""
    without_noise: float
    vector: tuple[float, ...]
    seconds: float
    left: tuple[Left, ...]
    terms: Terms


def federate_privately(
    folder: Path, terms: Terms, *, compiled: str | None = None, tell: Tell = lambda said: None
) -> PrivatelyDeployed:  # fmt: skip
    """Trains with epsilon over the network, with all files in a folder, and measures what noise cost."""
    plan = deployed(terms)
    asked = NOISED.format(epsilon=terms.epsilon, delta=DELTA)
    prepare(folder, (MASKED if terms.secure else PLAIN) + asked)
    if terms.secure:
        bring_keys(folder)
    begin = time.perf_counter()
    vector = over_network(folder, terms, compiled=compiled, tell=tell)["vector"]
    seconds = time.perf_counter() - begin
    tell({"event": "simulating"})
    tables = held(folder)
    drawn = [accuracy(_simulated(plan, tables, seed), tables) for seed in range(DRAWS)]
    return PrivatelyDeployed(
        shoal.privacy.spent(plan, delta=DELTA), accuracy(vector, tables),
        (statistics.fmean(drawn), statistics.pstdev(drawn)),
        accuracy(_simulated(without_noise(plan), tables, 0), tables), tuple(vector), seconds,
        tuple(left(folder, name) for name in HOSPITALS), terms,
    )  # fmt: skip


def accuracy(vector: Any, tables: Mapping[str, Columns]) -> float:
    """How often a model is right on the patients who were held out."""
    _, measured = simulated(tables)("evaluation", evaluation(SCALE, np.asarray(vector, np.float32)))
    return measured["accuracy"]


def _simulated(plan: shoal.Plan, tables: Mapping[str, Columns], seed: int) -> Any:
    return shoal.simulate(plan, population(tables, plan), seed=seed, runtime="local", progress="off").vector
