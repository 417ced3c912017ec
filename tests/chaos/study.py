"""What the tests of faults run: small plans, four sites, and the model that a simulation makes of them."""

from __future__ import annotations

from functools import cache

import numpy as np

import shoal
from shoal import models
from shoal.rounds.rules import Rules
from tests.conftest import classification

SEED = 5
SITES = classification(sizes=(16, 16, 16))  # of one size, so that a turn is compiled once
SPARSE = shoal.Remember(shoal.TopK(0.4)) >> shoal.PlainSum() >> shoal.Mean()
CLIPPED = shoal.Clip(0.5) >> shoal.PlainSum() >> shoal.Mean()
MASKED = shoal.Clip(0.5) >> shoal.Quantize(1e-3) >> shoal.SecureSum(threshold=3) >> shoal.Mean()
NOISED = shoal.Clip(0.5) >> shoal.PlainSum() >> shoal.Gaussian(4.0, clients=3)
BAD = ("bad-bytes", "bad-dtype", "bad-nan", "bad-shape", "bad-weight")
"""Clients that take part in the plan "besieged", and send what is in their names."""


def _plan(model: object, aggregation: object, rounds: int) -> shoal.Plan:
    return shoal.Plan(shoal.FedAvg(model, batch_size=8, aggregation=aggregation), rounds=rounds)


PLANS = {
    "small": _plan(models.logistic(4), SPARSE, 3),  # its clients remember, and its results travel inside messages
    "long": _plan(models.logistic(4), SPARSE, 12),
    "large": _plan(models.mlp(4, hidden=(600, 600)), CLIPPED, 3),  # its results are too large for messages
    "masked": _plan(models.logistic(4), MASKED, 6),
    "noised": _plan(models.logistic(4), NOISED, 4),
    "besieged": _plan(models.logistic(4), CLIPPED, 1),
}


def rules(plan: str) -> Rules:
    """No round is closed without all sites; besieged, none is opened without the bad clients."""
    wait_for = len(SITES.names) + (len(BAD) if plan == "besieged" else 0)
    return Rules(at_least=len(SITES.names), wait_for=wait_for, deadline_s=600.0, stage_s=60.0)


@cache
def wanted(plan: str) -> np.ndarray:
    """The model of a simulation."""
    return np.asarray(shoal.simulate(PLANS[plan], SITES, seed=SEED, runtime="local", progress="off").vector)


def columns(name: str) -> dict[str, np.ndarray]:
    """A site's data."""
    return {column: np.array(SITES[name].rows(column)) for column in "xy"}
