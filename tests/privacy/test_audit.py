"""An audit from end to end: what a person can find out from a trained model, beside what the plan says it gives away.

Five hundred canaries are clients whose whole contribution, clipped, is one coordinate of the model. A coin decides for
each whether it takes part. The auditor sees the trained model alone, and guesses of the canaries with the largest and
the smallest coordinates that they did and did not.

If a run is (epsilon, delta)-private for adding or removing a client, the number of right guesses among r is hardly ever
above a binomial one (Steinke, Nasr and Jagielski 2023, "Privacy auditing with one (1) training run", theorem 5.2):

    P(right >= v) <= P(B >= v) + 2 m delta max over i of P(v - i <= B < v) / i,   B ~ Binomial(r, 1 / (1 + e^-epsilon))

for m canaries. The largest epsilon for which this is at most 0.05 is one that the run exceeds, with confidence 0.95.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from scipy.stats import binom

import shoal
from shoal import Clip, DiscreteGaussian, Gaussian, PlainSum, Poisson, Quantize, Skellam, privacy
from shoal.aggregation import Bounded, Finish, Grid

CANARIES, GUESSES, DELTA, CONFIDENCE = 500, 120, 1e-6, 0.95


@dataclass(frozen=True)
class Scanty(Finish[Bounded | Grid]):
    """A broken build: normal noise with a tenth of the deviation that its multiplier asks for."""

    multiplier: float
    clients: int
    takes: ClassVar = (Bounded, Grid)
    private: ClassVar = True
    needs_clients: ClassVar = False

    def finish(self, sums, key):
        noise = np.float32(self.multiplier * sums.sensitivity / 10) * key.normal(sums.value)
        return (sums.value + noise) * np.float32(1 / self.clients)


BUILDS = {
    "everyone": (Clip(1.0) >> PlainSum(), Gaussian, 4.0, 4, None),
    "on a grid": (Clip(1.0) >> Quantize(1e-3) >> PlainSum(), DiscreteGaussian, 4.0, 4, None),
    "on a grid, Skellam": (Clip(1.0) >> Quantize(1e-3) >> PlainSum(), Skellam, 4.0, 4, None),
    "sampled": (Clip(1.0) >> PlainSum(), Gaussian, 2.0, 16, Poisson(0.25)),
}


def planned(name, finish=None):
    chain, honest, multiplier, rounds, cohort = BUILDS[name]
    aggregation = chain >> (finish or honest)(multiplier, clients=250)
    model = shoal.models.linear(CANARIES)
    work = shoal.FedAvg(model, steps=1, batch_size=1, client_optimizer=shoal.sgd(0.1), aggregation=aggregation)
    return shoal.Plan(work, rounds=rounds, cohort=cohort)


def audited(plan, seed):
    """How many of the guesses are right, for canaries that a coin chose."""
    there = np.random.default_rng(seed).random(CANARIES) < 0.5
    x = 100 * np.eye(CANARIES, dtype=np.float32)[there]  # an error of a million: each pushes its own weight up, always
    population = shoal.Population.from_arrays(x, np.full(len(x), 1e6, np.float32), groups=np.arange(len(x)))
    model = shoal.simulate(plan, population, seed=seed, progress="off").params
    (weights,) = (array for array in model.values() if array.size == CANARIES)
    order = np.argsort(weights.ravel())
    return np.count_nonzero(there[order[-GUESSES // 2 :]]) + np.count_nonzero(~there[order[: GUESSES // 2]])


def likelihood(right, epsilon):
    """The most probable it is, at an epsilon, that so many guesses or more are right."""
    chance = 1 / (1 + math.exp(-epsilon))
    below = np.cumsum(binom.pmf(right - np.arange(1, right + 1), GUESSES, chance))
    near = np.max(below / np.arange(1, right + 1))
    return binom.sf(right - 1, GUESSES, chance) + 2 * CANARIES * DELTA * near


def exceeded(right):
    """The largest epsilon of a grid that so many right guesses rule out; 0 if none."""
    ruled_out = [epsilon for epsilon in np.arange(0, 12, 0.02) if likelihood(right, epsilon) <= 1 - CONFIDENCE]
    return max(ruled_out, default=0.0)


def test_the_bound_of_the_audit_is_the_binomial_one_of_randomized_response():
    """Answers that are right with probability e^epsilon / (1 + e^epsilon) are just private, and are not flagged."""
    random = np.random.default_rng(0)
    right = random.binomial(GUESSES, 1 / (1 + math.exp(-1.5)), size=400)
    flagged = np.mean([likelihood(count, 1.5) <= 1 - CONFIDENCE for count in right])
    assert 0.01 < flagged < 0.08
    assert exceeded(GUESSES) == pytest.approx(math.log(0.05 ** (1 / GUESSES) / (1 - 0.05 ** (1 / GUESSES))), abs=0.15)


@pytest.mark.parametrize("name", BUILDS)
def test_a_run_is_found_to_give_away_something_and_no_more_than_its_plan_says(name):
    plan = planned(name)
    claimed = privacy.spent(plan, delta=DELTA).epsilon
    found = exceeded(audited(plan, seed=1))
    assert 0.1 < found < claimed, "an audit that finds nothing tells nothing"


@pytest.mark.parametrize("name", ["everyone", "sampled"])
def test_a_build_with_a_tenth_of_the_noise_is_flagged(name):
    claimed = privacy.spent(planned(name), delta=DELTA).epsilon
    assert exceeded(audited(planned(name, Scanty), seed=1)) > claimed
