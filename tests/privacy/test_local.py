"""Epsilon of contributions that are private by themselves, beside closed forms and another accountant."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

import shoal
from shoal import Clip, LocalGaussian, LocalLaplace, Over, PlainSum, Poisson, RandomizedResponse, privacy
from shoal.aggregation import Free, Randomizes
from shoal.errors import SettingError
from shoal.privacy import LocalReleases, Releases, rounds_for, spent

LAPLACE = LocalLaplace(0.2, norm=1.0)


def plan(step, rounds=20, cohort=None):
    chain = step >> PlainSum() >> Over(clients=100)
    return shoal.Plan(shoal.FedAvg(shoal.models.logistic(13), aggregation=chain), rounds=rounds, cohort=cohort)


def of_answers(loss, answers, delta):
    """Epsilon of so many answers of one loss, by the sum over how many of them are lies."""
    lies = np.arange(answers + 1)
    wrong = 1 / (1 + math.exp(loss))
    here = stats.binom.logpmf(lies, answers, wrong)
    low, high = 0.0, loss * answers
    for _ in range(60):
        middle = (low + high) / 2
        beyond = np.maximum(0, -np.expm1(middle - (answers - 2 * lies) * loss))
        low, high = (low, middle) if np.sum(np.exp(here) * beyond) <= delta else (middle, high)
    return high


@pytest.mark.parametrize(("epsilon", "delta", "rounds"), [(1.0, 1e-6, 2), (0.3, 1e-5, 40)])
def test_rounds_of_normal_noise_cost_what_the_closed_form_says(epsilon, delta, rounds):
    step = LocalGaussian(epsilon, delta)
    found = spent(LocalReleases(step, rounds), delta=delta).epsilon
    z, phi = step.multiplier / math.sqrt(rounds), NormalDist().cdf
    here, there = (phi(way / (2 * z) - found * z) for way in (1, -1))
    assert here - math.exp(found) * there == pytest.approx(delta, rel=0.02)


@pytest.mark.parametrize("step", [LocalGaussian(1.3, 1e-6), LocalLaplace(1.3, 5.0), RandomizedResponse(1.3, ones=3)])
def test_one_contribution_costs_its_epsilon_and_several_at_most_the_sum(step):
    costs = [spent(LocalReleases(step, rounds, size=8), delta=1e-6).epsilon for rounds in (1, 3)]
    assert costs[0] == pytest.approx(1.3, rel=2e-3)
    assert costs[0] <= 1.3 and costs[1] <= 3 * 1.3


def test_another_accountant_holds_the_epsilon_of_laplace_noise_between_its_bounds():
    prv = pytest.importorskip("prv_accountant", reason="prv-accountant is not installed: it is in the dev extra")
    oracle = prv.PRVAccountant(prv.LaplaceMechanism(0.2), max_self_compositions=150, eps_error=0.05, delta_error=1e-9)
    low, middle, high = oracle.compute_epsilon(1e-6, 150)
    found = spent(LocalReleases(LAPLACE, 150), delta=1e-6).epsilon
    assert low <= found <= high
    assert found == pytest.approx(middle, rel=2e-3)
    assert found < 150 * 0.2 / 2
    assert found <= spent(LocalReleases(LAPLACE, 150), delta=1e-6, accountant="RDP").epsilon


@pytest.mark.parametrize(("ones", "size", "rounds"), [(1, 1, 30), (1, 40, 10), (5, 40, 20), (5, 7, 20)])
def test_answers_over_rounds_cost_what_a_sum_over_all_lies_says(ones, size, rounds):
    differing = min(2 * ones, size)
    found = spent(LocalReleases(RandomizedResponse(0.5, ones=ones), rounds, size=size), delta=1e-6)
    assert found.accountant == "PLD"
    assert found.epsilon == pytest.approx(of_answers(0.5 / differing, rounds * differing, 1e-6), rel=1e-6)


def test_rounds_that_an_epsilon_allows_are_found():
    assert rounds_for(LocalReleases(LocalLaplace(1.0, norm=1.0), 1), epsilon=3.0, delta=1e-6) == 3
    assert rounds_for(LocalReleases(LocalGaussian(1.0, 1e-6), 1), epsilon=1.0, delta=1e-6) == 1
    most = rounds_for(LocalReleases(LAPLACE, 1), epsilon=5.0, delta=1e-6)
    assert spent(LocalReleases(LAPLACE, most), delta=1e-6).epsilon <= 5 < (most + 2) * 0.2


def test_a_plan_is_read_with_its_numbers_and_no_cohort_hides_anybody():
    step = RandomizedResponse(0.4, ones=2)
    assert LocalReleases.of(plan(step, cohort=Poisson(0.1))) == LocalReleases(step, 20, 14, Poisson(0.1))
    sampled, everyone = (spent(plan(step, cohort=cohort), delta=1e-6) for cohort in (Poisson(0.1), None))
    assert sampled.epsilon == everyone.epsilon
    said = str(sampled)
    for words in ("replaced by any other", "by each client itself", "no amplification", "20 times RandomizedResponse"):
        assert words in said


def test_a_norm_that_is_clipped_to_changes_no_epsilon():
    narrow, wide = (plan(Clip(norm) >> LocalGaussian(1.0, 1e-6)) for norm in (0.1, 7.0))
    assert spent(narrow, delta=1e-6) == spent(wide, delta=1e-6)


def test_noise_that_follows_from_an_epsilon_has_no_multiplier_to_ask_for():
    with pytest.raises(SettingError, match="says how much noise it adds"):
        privacy.noise_multiplier(plan(LAPLACE), epsilon=1.0, delta=1e-6)
    with pytest.raises(SettingError, match="which is what LocalReleases says"):
        Releases.of(plan(LAPLACE))
    central = shoal.Plan(shoal.FedAvg(shoal.models.logistic(13), aggregation=Clip(1.0) >> PlainSum()
                                      >> shoal.Gaussian(1.0, clients=9)), rounds=1)  # fmt: skip
    with pytest.raises(SettingError, match="no step makes one contribution private by itself"):
        LocalReleases.of(central)


class Foreign(Randomizes[Free]):
    def encode(self, update, state, key):
        return update, state

    def decode(self, total):
        return total

    def bound(self, before, layout):
        return 1.0

    def deviation(self, bound, layout):
        return 1.0


def test_a_step_of_ones_own_has_no_epsilon_and_a_reason():
    found = spent(plan(Foreign()), delta=1e-6)
    assert found.epsilon == math.inf
    assert "does not know the noise in these contributions" in found.why
    with pytest.raises(SettingError, match="the step is one of LocalGaussian, LocalLaplace, RandomizedResponse"):
        LocalReleases(Foreign(), 1)
