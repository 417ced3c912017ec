"""A server's noise is as wide as its plan says, from nobody's seed, and nothing of where it came from is kept."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2

import shoal
from shoal import Clip, DiscreteGaussian, Gaussian, Mean, PlainSum, Quantize, SecureSum, Skellam, models
from shoal.algorithms import open_round, silence
from shoal.server.closing import close, first_model

SIZE = 20_001
GRID = Clip(2.0) >> Quantize(1e-3)
CHAINS = {
    "floats": Clip(2.0) >> PlainSum() >> Gaussian(1.5, clients=10),
    "floats of a grid": GRID >> SecureSum(threshold=2) >> Gaussian(1.5, clients=10),
    "integers": GRID >> PlainSum() >> DiscreteGaussian(1.5, clients=10),
    "integers of a secure sum": GRID >> SecureSum(threshold=2) >> DiscreteGaussian(1.5, clients=10),
    "Skellam integers": GRID >> SecureSum(threshold=2) >> Skellam(1.5, clients=10),
}


def algorithm(chain):
    return shoal.FedAvg(models.logistic(SIZE - 1), aggregation=chain)


def closed(chain, seed=3, clients=4):
    """How far a round moves the model whose clients' contributions are zeros: by its noise."""
    work = algorithm(chain)
    model = first_model(work, seed)
    total = silence(work, open_round(work, model.run))
    total.clients[...] = clients
    outcome = close(work, model, total, seed=seed, round=0)
    return outcome, outcome.model.run.state.vector - model.run.state.vector


@pytest.mark.parametrize("name", CHAINS)
def test_noise_has_the_variance_of_the_plan(name):
    chain = CHAINS[name]
    _, noise = closed(chain)
    deviation = 1.5 * chain.sensitivity(algorithm(chain).layout) / 10
    low, high = chi2.ppf([1e-6, 1 - 1e-6], SIZE)
    assert low < np.sum((noise.astype(np.float64) / deviation) ** 2) < high
    if "integers" in name:
        assert np.allclose(noise * 10 / 1e-3, np.rint(noise * 10 / 1e-3), atol=0.01)


@pytest.mark.parametrize("name", CHAINS)
def test_the_same_round_closed_again_has_other_noise(name):
    first, second = (closed(CHAINS[name])[1] for _ in range(2))
    assert np.abs(np.corrcoef(first, second)[0, 1]) < 0.05


@pytest.mark.parametrize("name", CHAINS)
def test_nothing_of_a_generator_is_in_what_is_kept(name):
    plain = (GRID if "Quantize" in str(CHAINS[name]) else Clip(2.0)) >> PlainSum() >> Mean()
    sizes = [len(closed(chain)[0].model.state()) for chain in (CHAINS[name], plain)]
    assert sizes[0] == sizes[1]


def test_a_round_without_clients_releases_noise_and_a_secure_sum_of_none_releases_nothing():
    for chain, moves in ((CHAINS["floats"], True), (CHAINS["integers"], True), (CHAINS["floats of a grid"], False)):
        work = algorithm(chain)
        model = first_model(work, 0)
        outcome = close(work, model, None, seed=0, round=0)
        assert outcome.released is moves
        assert np.array_equal(outcome.model.run.state.vector, model.run.state.vector) is not moves


def test_what_is_no_noise_is_drawn_from_the_runs_seed():
    first, second = (closed(Clip(2.0) >> PlainSum() >> Mean())[1] for _ in range(2))
    assert np.array_equal(first, second)
