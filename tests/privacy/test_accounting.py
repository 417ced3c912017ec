"""Epsilon is what published figures, closed forms, another accountant and a direct sum over outcomes say it is."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import skellam as skellam_of

from shoal.cohort import Everyone, Fixed, Fraction, Poisson
from shoal.errors import SettingError
from shoal.privacy import Releases, Shared, noise_multiplier, rounds_for, skellam, spent
from shoal.privacy.accounting import ADDED_OR_REMOVED, REPLACED, ZEROED

# Noise multiplier, sampling rate, rounds, delta; epsilon by RDP and by PLD. Computed once with dp-accounting 0.6.0,
# and for the first two with the closed form.
ANCHORS = {
    "gauss_single": (1.0, 1.0, 1, 1e-5, 4.7285, 4.37718),
    "gauss_100": (10.0, 1.0, 100, 1e-6, 5.2215, 4.88655),
    "small_data": (1.1, 256 / 60000, 14063, 1e-5, 2.5967, 2.38178),
    "cross_device": (0.8, 0.01, 1500, 1e-6, 4.9462, 4.36179),
    "huge_population": (0.6, 1e-4, 2000, 1e-8, 2.7984, 1.04447),
    "large_q": (2.0, 0.1, 1000, 1e-6, 9.8239, 9.18199),
}


def closed_form(multiplier, epsilon):
    """Delta of normal noise at epsilon (Balle and Wang 2018, theorem 8)."""
    phi, half = NormalDist().cdf, 1 / (2 * multiplier)
    return phi(half - epsilon * multiplier) - math.exp(epsilon) * phi(-half - epsilon * multiplier)


@pytest.mark.parametrize("name", ANCHORS)
def test_six_anchors_are_met_by_both_accountants(name):
    multiplier, rate, rounds, delta, by_rdp, by_pld = ANCHORS[name]
    releases = Releases(multiplier, rounds, Poisson(rate))
    fast, tight = (spent(releases, delta=delta, accountant=way) for way in ("RDP", "PLD"))
    assert (fast.accountant, tight.accountant) == ("RDP", "PLD")
    assert fast.epsilon == pytest.approx(by_rdp, abs=1e-4)
    assert tight.epsilon == pytest.approx(by_pld, abs=3e-4)
    assert tight.relation == ADDED_OR_REMOVED


@settings(max_examples=8, deadline=None)
@given(st.floats(0.7, 20), st.integers(1, 300), st.sampled_from([1e-8, 1e-6, 1e-4]))
def test_without_sampling_epsilon_is_that_of_the_closed_form(multiplier, rounds, delta):
    found = spent(Releases(multiplier * math.sqrt(rounds), rounds), delta=delta)
    assert closed_form(multiplier, found.epsilon) == pytest.approx(delta, rel=1e-2)


@pytest.mark.parametrize(("multiplier", "rate", "rounds", "delta"), [(0.8, 0.01, 300, 1e-6), (1.5, 0.1, 50, 1e-5)])
def test_another_accountant_holds_epsilon_between_its_bounds(multiplier, rate, rounds, delta):
    prv = pytest.importorskip("prv_accountant", reason="prv-accountant is not installed: it is in the dev extra")
    mechanism = prv.PoissonSubsampledGaussianMechanism(noise_multiplier=multiplier, sampling_probability=rate)
    oracle = prv.PRVAccountant(mechanism, max_self_compositions=rounds, eps_error=0.02, delta_error=delta / 1000)
    low, middle, high = oracle.compute_epsilon(delta, rounds)
    found = spent(Releases(multiplier, rounds, Poisson(rate)), delta=delta).epsilon
    assert low <= found <= high
    assert found == pytest.approx(middle, rel=2e-3)


def test_the_figures_of_jax_privacy_are_met():
    releases = Releases(3.0, 512, Poisson(0.1))
    assert spent(releases, delta=1e-6).epsilon == pytest.approx(3.77, abs=0.01)
    assert noise_multiplier(releases, epsilon=1, delta=1e-6) == pytest.approx(9.66, rel=2e-3)
    assert rounds_for(releases, epsilon=2, delta=1e-6) == pytest.approx(155, abs=1)


def test_the_figure_of_pfl_is_met():
    needed = noise_multiplier(Releases(1.0, 1500, Poisson(1e-3)), epsilon=2, delta=1e-6)
    assert needed == pytest.approx(0.616, abs=0.002)


def test_a_cohort_of_fixed_size_is_priced_as_a_replacement_with_twice_the_sensitivity():
    found = spent(Releases(2.0, 1000, Fixed(100)), delta=1e-6, clients=10_000)
    assert found.epsilon == pytest.approx(4.02, abs=0.005)
    assert (found.relation, found.accountant) == (REPLACED, "RDP")
    pretended = spent(Releases(1.0, 1000, Poisson(0.01)), delta=1e-6, accountant="RDP")
    assert pretended.epsilon == pytest.approx(2.44, abs=0.01)  # what peers claim: a Poisson sample, half the reach


def test_a_fraction_is_the_cohort_it_draws_and_all_of_it_is_everyone():
    of_size = spent(Releases(2.0, 10, Fixed(25)), delta=1e-4, clients=100)
    assert spent(Releases(2.0, 10, Fraction(0.25)), delta=1e-4, clients=100) == of_size
    everyone = spent(Releases(2.0, 10, Everyone()), delta=1e-4)
    assert spent(Releases(2.0, 10, Fraction(1.0)), delta=1e-4) == everyone
    assert spent(Releases(2.0, 10, Poisson(1.0)), delta=1e-4) == everyone


def test_a_cohort_of_a_size_asks_for_the_population():
    with pytest.raises(SettingError, match=r"clients=\.\.\."):
        spent(Releases(1.0, 10, Fixed(5)), delta=1e-5)


def test_a_sampler_that_nobody_knows_gets_no_amplification():
    class Odd:
        def draw(self, key, population):
            return np.arange(0, population, 2)

        def most(self, population):
            return population

    found = spent(Releases(3.0, 20, Odd()), delta=1e-5)
    assert found.epsilon == spent(Releases(3.0, 20), delta=1e-5).epsilon
    assert found.relation == ZEROED
    assert "no amplification" in found.sampling


@settings(max_examples=6, deadline=None)
@given(st.floats(0.5, 5), st.floats(0.001, 0.5), st.integers(1, 500))
def test_more_noise_fewer_rounds_and_rarer_samples_never_cost_more(multiplier, rate, rounds):
    def epsilon(multiplier, rate, rounds, delta=1e-6):
        return spent(Releases(multiplier, rounds, Poisson(rate)), delta=delta, accountant="RDP").epsilon

    here = epsilon(multiplier, rate, rounds)
    assert epsilon(multiplier * 1.1, rate, rounds) <= here
    assert epsilon(multiplier, rate * 0.9, rounds) <= here
    assert epsilon(multiplier, rate, rounds + 1) >= here
    assert epsilon(multiplier, rate, rounds, delta=1e-5) <= here


@pytest.mark.parametrize("releases", [Releases(1.0, 40), Releases(1.0, 10, Poisson(0.05)), Releases(1.0, 10, 20)])
def test_noise_and_rounds_are_found_back(releases):
    asked = {"delta": 1e-5, "clients": 400}
    noise = noise_multiplier(releases, epsilon=3.0, **asked)
    enough = Releases(noise, releases.rounds, releases.cohort)
    less = Releases(noise * 0.995, releases.rounds, releases.cohort)
    assert spent(enough, **asked).epsilon <= 3.0 < spent(less, **asked).epsilon
    rounds = rounds_for(enough, epsilon=3.0, **asked)
    assert spent(enough, rounds=rounds, **asked).epsilon <= 3.0 < spent(enough, rounds=rounds + 1, **asked).epsilon


def test_an_epsilon_that_one_round_exceeds_leaves_no_round():
    assert rounds_for(Releases(0.5, 10), epsilon=0.1, delta=1e-6) == 0


def test_a_sample_rarer_than_delta_needs_hardly_any_noise_and_the_search_ends():
    assert noise_multiplier(Releases(1.0, 1, Poisson(1e-9)), epsilon=1.0, delta=1e-6) == pytest.approx(0.2, rel=0.01)


def test_a_threshold_far_from_the_cohort_costs_nothing():
    plain = spent(Releases(1.0, 100, Poisson(0.1)), delta=1e-6)
    far = spent(Releases(1.0, 100, Poisson(0.1), threshold=200), delta=1e-6, clients=10_000)
    assert far.epsilon == pytest.approx(plain.epsilon, rel=1e-3)
    assert far.epsilon > plain.epsilon


def test_a_threshold_that_one_client_can_tip_takes_the_amplification_away():
    near = spent(Releases(4.0, 20, Poisson(0.1), threshold=1000), delta=1e-6, clients=10_000)
    assert near.epsilon == spent(Releases(4.0, 20), delta=1e-6).epsilon
    assert near.relation == ZEROED
    with pytest.raises(SettingError, match=r"clients=\.\.\."):
        spent(Releases(1.0, 20, Poisson(0.1), threshold=1000), delta=1e-6)


def divergence(order, here, moved):
    """The Renyi divergence of two distributions, from the logarithms of their probabilities."""
    seen = np.isfinite(here) & np.isfinite(moved)
    return logsumexp(order * here[seen] + (1 - order) * moved[seen]) / (order - 1)


@pytest.mark.parametrize(("order", "norm", "variance"), [(2, 1, 4.0), (3, 2, 30.0), (8, 5, 400.0), (32, 10, 5000.0)])
def test_the_bound_on_skellam_noise_is_above_the_divergence_summed_over_all_outcomes(order, norm, variance):
    outcomes = np.arange(-int(30 * math.sqrt(variance)) - 50, int(30 * math.sqrt(variance)) + 50)
    here = skellam_of.logpmf(outcomes, variance / 2, variance / 2)
    moved = skellam_of.logpmf(outcomes - norm, variance / 2, variance / 2)
    exact = divergence(order, here, moved)
    bound = skellam.renyi(order, norm=norm, variance=variance, size=1)
    assert exact <= bound <= exact * 1.6
    assert bound >= order * norm**2 / (2 * variance)


@pytest.mark.parametrize(("order", "deviation"), [(1.5, 0.7), (2, 3.0), (10, 20.0)])
def test_noise_on_a_grid_diverges_no_more_than_normal_noise(order, deviation):
    outcomes = np.arange(-1000, 1000)
    here, moved = (-((outcomes - shift) ** 2) / (2 * deviation**2) for shift in (0, 3))
    exact = divergence(order, here - logsumexp(here), moved - logsumexp(moved))
    assert exact <= order * 3**2 / (2 * deviation**2) * (1 + 1e-9)


def test_noise_on_a_grid_is_priced_so_without_amplification():
    found = spent(Releases(2.0, 30, Poisson(0.1), discrete=True), delta=1e-6)
    assert found.epsilon == spent(Releases(2.0, 30), delta=1e-6, accountant="RDP").epsilon
    assert (found.relation, found.accountant) == (ZEROED, "RDP")
    assert "no amplification" in found.sampling


def test_noise_in_shares_on_a_fine_grid_costs_what_normal_noise_costs():
    shared = Releases(4.0, 50, None, 80, shared=Shared(at_least=80, norm=1e6, size=1000))
    found = spent(shared, delta=1e-6)
    assert found.epsilon == pytest.approx(spent(Releases(4.0, 50), delta=1e-6, accountant="RDP").epsilon, rel=5e-3)
    assert (found.relation, found.accountant) == (ZEROED, "RDP")


def test_a_coarser_grid_and_colluding_clients_cost_more():
    def epsilon(norm=1e4, colluding=0):
        shared = Shared(at_least=80, norm=norm, size=1000)
        return spent(Releases(4.0, 50, None, 80, shared=shared), delta=1e-6, colluding=colluding).epsilon

    assert epsilon() < epsilon(norm=10.0)
    assert epsilon() < epsilon(colluding=20) < epsilon(colluding=60)
    left = spent(Releases(4.0 / 2, 50, None, 20, shared=Shared(20, 1e4, 1000)), delta=1e-6).epsilon
    assert epsilon(colluding=60) == pytest.approx(left)
    with pytest.raises(SettingError, match="at most 79 can collude"):
        epsilon(colluding=80)


@pytest.mark.parametrize(
    ("asked", "why"),
    [({"delta": 0}, "delta is over 0"), ({"delta": 1e-3, "clients": 1000}, "outright"),
     ({"delta": 1e-6, "clients": 0}, "at least one client"), ({"delta": 1e-6, "accountant": "GDP"}, "'PLD' or 'RDP'"),
     ({"delta": 1e-6, "colluding": -1}, "at least 0")],
)  # fmt: skip
def test_a_question_that_makes_no_sense_is_refused(asked, why):
    with pytest.raises(SettingError, match=why):
        spent(Releases(1.0, 10), **asked)


def test_hopeless_epsilons_are_bounded_without_a_distribution():
    found = spent(Releases(0.1, 1000), delta=1e-6)
    assert found.accountant == "RDP"
    assert found.epsilon > 1000
