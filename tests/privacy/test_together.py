"""Unequal releases add up to what closed forms and the accountants by themselves say, under a relation that holds."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist

import pytest

import shoal
from shoal import Clip, Gaussian, LocalGaussian, Mean, NoiseShare, Over, PlainSum, Poisson, Quantize, SecureSum
from shoal.errors import SettingError
from shoal.privacy import Releases, Shared, spent, together
from shoal.privacy.accounting import ADDED_OR_REMOVED, REPLACED, ZEROED
from shoal.privacy.budget import Budget, event_of, releases_of, served, why_not_served


def plan(chain, cohort=None, rounds=20):
    return shoal.Plan(shoal.FedAvg(shoal.models.logistic(13), aggregation=chain), rounds=rounds, cohort=cohort)


def delta_of(multiplier, epsilon):
    """Delta of normal noise at epsilon (Balle and Wang 2018, theorem 8)."""
    phi, half = NormalDist().cdf, 1 / (2 * multiplier)
    return phi(half - epsilon * multiplier) - math.exp(epsilon) * phi(-half - epsilon * multiplier)


def test_one_by_itself_is_priced_as_it_always_is():
    releases = Releases(2.0, 10, Poisson(0.1))
    assert together([releases], delta=1e-6) == spent(releases, delta=1e-6)


def test_normal_noise_of_different_widths_adds_up_as_its_squares_do():
    found = together([Releases(10.0, 50), Releases(20.0, 200), Releases(4.0, 1)], delta=1e-6)
    one = 1 / math.sqrt(50 / 10**2 + 200 / 20**2 + 1 / 4**2)
    assert delta_of(one, found.epsilon) == pytest.approx(1e-6, rel=0.02)
    assert (found.accountant, found.relation, found.rounds) == ("PLD", ADDED_OR_REMOVED, 251)


def test_the_order_does_not_matter_and_equal_ones_are_one():
    halves = [Releases(3.0, 4, Poisson(0.2)), Releases(2.0, 3), Releases(3.0, 6, Poisson(0.2))]
    forth, back = together(halves, delta=1e-6), together(halves[::-1], delta=1e-6)
    assert forth.epsilon == pytest.approx(back.epsilon, rel=1e-4)
    whole = together([Releases(3.0, 10, Poisson(0.2)), Releases(2.0, 3)], delta=1e-6)
    assert forth.epsilon == pytest.approx(whole.epsilon, rel=5e-3)


@pytest.mark.parametrize(
    "other",
    [Releases(3.0, 5, discrete=True), Releases(6.0, 5, cohort=20), Releases(3.0, 5, Poisson(0.1), threshold=3),
     Releases(3.0, 5, shared=Shared(4, 1000.0, 14))],
    ids=["discrete", "of a size", "under a threshold", "in shares"],
)  # fmt: skip
def test_of_different_relations_the_sum_is_over_each_and_holds_for_zeroed_contributions(other):
    first = Releases(4.0, 5)
    found = together([first, other], delta=1e-6, clients=1000)
    if other.threshold:
        other = replace(other, cohort=None)  # who came may show
    alone = [spent(one, delta=d, clients=1000).epsilon for one in (first, other) for d in (1e-6, 5e-7)]
    assert max(alone[0], alone[2]) < found.epsilon < alone[1] + alone[3]
    assert found.relation == ZEROED


def test_cohorts_of_a_size_add_up_as_replacements():
    found = together([Releases(6.0, 5, cohort=20), Releases(8.0, 5, cohort=20)], delta=1e-6, clients=1000)
    assert (found.relation, found.accountant) == (REPLACED, "RDP")


def test_plans_are_added_up_as_what_they_release():
    made = plan(Clip(1.0) >> PlainSum() >> Gaussian(5.0, clients=10))
    assert together([made, made], delta=1e-6) == together([Releases(5.0, 20)] * 2, delta=1e-6)


def test_nothing_has_no_epsilon_and_other_things_are_refused():
    with pytest.raises(SettingError, match="nothing was released"):
        together([], delta=1e-6)
    with pytest.raises(SettingError, match="plans and Releases"):
        together([1.0], delta=1e-6)


def test_a_server_claims_nothing_of_chance():
    chain = Clip(1.0) >> PlainSum() >> Gaussian(5.0, clients=10)
    alone = spent(Releases(5.0, 20), delta=1e-6).epsilon
    for cohort in (None, 5, 0.1, Poisson(0.01)):
        found = spent(served(plan(chain, cohort)), delta=1e-6)
        assert (found.epsilon, found.relation) == (alone, ZEROED)
        assert "the server knows who: no amplification" in found.sampling


@pytest.mark.parametrize("kind", [Gaussian, shoal.DiscreteGaussian, shoal.Skellam])
@pytest.mark.parametrize("threshold", [None, 3])
def test_what_is_kept_of_a_round_is_what_it_releases(kind, threshold):
    meeting = PlainSum() if threshold is None else SecureSum(threshold)
    made = plan(Clip(1.0) >> Quantize(0.01) >> meeting >> kind(1.25, clients=5), rounds=7)
    assert releases_of(event_of(made), 7) == served(made)


def test_a_plan_without_an_epsilon_is_not_served_under_a_budget():
    assert "no noise is added" in why_not_served(plan(PlainSum() >> Mean()))
    assert why_not_served(plan(Clip(1.0) >> PlainSum() >> Gaussian(1.0, clients=5))) == ""
    assert "private by itself" in why_not_served(plan(Clip(1.0) >> LocalGaussian(1.0, 1e-6) >> PlainSum() >> Over(5)))


def test_shares_of_noise_are_kept_and_added_up_as_what_they_are():
    made = plan(Clip(1.0) >> Quantize(0.01) >> NoiseShare(30.0, at_least=3) >> SecureSum(3) >> Over(5), rounds=7)
    assert releases_of(event_of(made), 7) == served(made)
    alone = spent(made, delta=1e-6).epsilon
    assert together([served(made)] * 2, delta=1e-6).epsilon == pytest.approx(
        spent(replace(served(made), rounds=14), delta=1e-6).epsilon
    )
    assert alone == spent(served(made), delta=1e-6).epsilon


@pytest.mark.parametrize(("epsilon", "delta"), [(0, 1e-6), (1, 0), (1, 1), (math.inf, 1e-6)])
def test_a_budget_is_of_numbers_that_mean_something(epsilon, delta):
    with pytest.raises(SettingError, match="budget"):
        Budget(epsilon, delta)
