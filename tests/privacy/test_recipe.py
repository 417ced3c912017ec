"""A recipe's noise is enough for its epsilon, and hardly more than enough."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest

import shoal
from shoal import (
    Clip,
    DiscreteGaussian,
    Everyone,
    Fixed,
    Gaussian,
    MatrixGaussian,
    PlainSum,
    Poisson,
    Rotation,
    SecureSum,
    privacy,
    private_mean,
)
from shoal.errors import SettingError
from shoal.matrices import Blt
from shoal.noise.tables import LARGEST
from shoal.vector import Layout, Part

MILLION = Layout((Part("w", (1_000_000,)),))


def made(**given):
    return private_mean(**{"epsilon": 2.0, "delta": 1e-6, "norm": 0.5, "rounds": 50, "clients": 100, **given})


def plan(chain, cohort, rounds=50):
    return shoal.Plan(shoal.FedAvg(shoal.models.logistic(13), aggregation=chain), rounds=rounds, cohort=cohort)


@pytest.mark.parametrize("threshold", [None, 80])
@pytest.mark.parametrize("cohort", [Everyone(), Poisson(0.01), Fixed(100)], ids=str)
def test_a_plan_with_a_recipe_spends_what_was_said_and_hardly_less(cohort, threshold):
    chain = made(cohort=cohort, population=10_000, threshold=threshold)
    found = privacy.spent(plan(chain, cohort), delta=1e-6, clients=10_000)
    assert 1.97 <= found.epsilon <= 2


def test_without_sampling_its_noise_is_that_of_the_closed_form():
    chain = made(epsilon=4.0, delta=1e-5)
    assert chain == Clip(0.5) >> PlainSum() >> Gaussian(chain.finish.multiplier, clients=100)
    phi, z = NormalDist().cdf, chain.finish.multiplier / math.sqrt(50)  # Balle and Wang 2018, theorem 8
    assert phi(0.5 / z - 4 * z) - math.exp(4) * phi(-0.5 / z - 4 * z) == pytest.approx(1e-5, rel=0.03)


@pytest.mark.parametrize("rounds", [1, 100, 10_000])
def test_with_a_threshold_the_grid_is_fine_and_its_noise_can_be_drawn(rounds):
    chain = made(rounds=rounds, threshold=80)
    assert (type(chain.finish), chain.meeting) == (DiscreteGaussian, SecureSum(80))
    reach = chain.sensitivity(MILLION)
    assert 0.5 < reach < 0.5 * (1.02 if rounds <= 1 else 1.1 if rounds <= 100 else 2)
    assert chain.finish.multiplier * reach / chain.unit < LARGEST
    assert math.log2(chain.unit / 0.5).is_integer()
    chain.check(MILLION, 1000)


def test_what_it_needs_is_asked_for():
    with pytest.raises(SettingError, match="clients="):
        made(cohort=100)
    with pytest.raises(SettingError, match="threshold of at least two"):
        made(threshold=1)
    with pytest.raises(SettingError, match="norm that contributions"):
        made(norm=0.0)
    with pytest.raises(SettingError, match="epsilon is over 0"):
        made(epsilon=-1)
    with pytest.raises(SettingError, match="ask for a delta under"):
        made(delta=1e-3, cohort=Poisson(0.1), population=10_000)


@pytest.mark.parametrize("threshold", [None, 80])
def test_with_a_matrix_its_noise_is_correlated_and_that_of_one_sum(threshold):
    noise, turns = Blt(50, separation=10), Rotation(100, separation=10)
    chain = made(cohort=turns, threshold=threshold, matrix=noise)
    assert chain.finish == MatrixGaussian(made(rounds=1).finish.multiplier, clients=100, matrix=noise)
    assert privacy.spent(plan(chain, turns), delta=1e-6).epsilon <= 2
    assert 0.5 <= chain.sensitivity(MILLION) < 0.5 * 1.01
    with pytest.raises(SettingError, match="keeps them apart"):
        made(cohort=100, matrix=noise)
