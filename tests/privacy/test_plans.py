"""What is read of a plan: its noise, its cohort, its grid; and why some plans have no epsilon."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

import shoal
from shoal import (
    AdaptiveClip,
    Clip,
    Collect,
    DiscreteGaussian,
    Gaussian,
    Median,
    NoiseShare,
    Over,
    PlainSum,
    Poisson,
    Quantize,
    SecureSum,
    Skellam,
    privacy,
)
from shoal.aggregation import Bounded, Finish
from shoal.errors import SettingError
from shoal.privacy import Releases, Shared

CENTRAL = Clip(1.0) >> PlainSum() >> Gaussian(1.5, clients=100)
SHARED = (
    Clip(1.0) >> Quantize(1e-3) >> NoiseShare(2.0, at_least=80) >> SecureSum(threshold=90) >> Over(clients=100)
)  # fmt: skip


def plan(chain, cohort=None, rounds=20):
    return shoal.Plan(shoal.FedAvg(shoal.models.logistic(13), aggregation=chain), rounds=rounds, cohort=cohort)


@dataclass(frozen=True)
class Cauchy(Finish[Bounded]):
    takes = (Bounded,)
    private = True

    def finish(self, sums, key):
        return sums.value


@dataclass(frozen=True)
class Wandering(AdaptiveClip):
    """An adapting step that is not ours."""


def test_a_plan_is_priced_by_its_noise_its_cohort_and_its_rounds():
    found = privacy.spent(plan(CENTRAL, Poisson(0.01)), delta=1e-6)
    assert found == privacy.spent(Releases(1.5, 20, Poisson(0.01)), delta=1e-6)
    assert privacy.spent(plan(CENTRAL, Poisson(0.01)), delta=1e-6, rounds=5).rounds == 5


def test_a_norm_that_is_clipped_to_changes_no_epsilon():
    wide = Clip(7.0) >> PlainSum() >> Gaussian(1.5, clients=100)
    assert privacy.spent(plan(wide), delta=1e-6) == privacy.spent(plan(CENTRAL), delta=1e-6)


def test_a_secure_sum_brings_its_threshold():
    chain = Clip(1.0) >> Quantize(1e-3) >> SecureSum(threshold=50) >> Gaussian(1.5, clients=100)
    assert Releases.of(plan(chain)) == Releases(1.5, 20, None, threshold=50)


def test_noise_on_a_grid_is_read_as_such():
    chain = Clip(1.0) >> Quantize(1e-3) >> PlainSum() >> DiscreteGaussian(1.5, clients=100)
    assert Releases.of(plan(chain)) == Releases(1.5, 20, discrete=True)


def test_skellam_noise_of_the_server_is_read_with_its_grid_and_costs_what_shares_of_it_do():
    grid = Clip(1.0) >> Quantize(1e-3)
    whole = plan(grid >> SecureSum(threshold=3) >> Skellam(4.0, clients=100))
    norm = whole.algorithm.aggregation.sensitivity(whole.algorithm.layout) / 1e-3
    assert Releases.of(whole) == Releases(4.0, 20, None, 3, shared=Shared(at_least=0, norm=norm, size=14))
    shares = plan(grid >> NoiseShare(4.0, at_least=3) >> SecureSum(threshold=3) >> Over(clients=100))
    for colluding in (0, 2, 50):  # clients know nothing of a server's noise
        spent = privacy.spent(whole, delta=1e-6, colluding=colluding)
        assert spent.epsilon == privacy.spent(shares, delta=1e-6).epsilon
    assert "Skellam(4)" in str(spent)


def test_noise_in_shares_is_read_with_its_grid():
    found = Releases.of(plan(SHARED))
    norm = SHARED.sensitivity(plan(SHARED).algorithm.layout) / 1e-3
    assert found == Releases(2.0, 20, None, 90, shared=Shared(at_least=80, norm=norm, size=14))
    assert norm > 1000
    assert math.isfinite(privacy.spent(plan(SHARED), delta=1e-6).epsilon)


@pytest.mark.parametrize(
    ("chain", "why"),
    [
        (shoal.weighted_mean(500), "no noise is added before Mean"),
        (Clip(1.0) >> Quantize(1e-3) >> SecureSum(threshold=50) >> shoal.Mean(), "no noise is added before Mean"),
        (Collect() >> Median(), "no noise is added before Median"),
        (Clip(1.0) >> PlainSum() >> Cauchy(), "does not know the noise of Cauchy"),
        (Wandering(1.0) >> PlainSum() >> Gaussian(1.0, clients=9), "does not know what Wandering gives away"),
    ],
)
def test_a_plan_whose_privacy_is_not_known_has_an_infinite_epsilon_and_a_reason(chain, why):
    found = privacy.spent(plan(chain), delta=1e-6)
    assert found.epsilon == math.inf
    assert why in found.why
    assert str(found).startswith("epsilon     none: ")
    with pytest.raises(SettingError, match=why):
        privacy.noise_multiplier(plan(chain), epsilon=1.0, delta=1e-6)


def test_what_is_spent_says_between_which_runs_and_how_it_was_found():
    said = str(privacy.spent(plan(CENTRAL, Poisson(0.01)), delta=1e-6))
    for words in ("at delta 1e-06", "added or removed", "1.5 times", "with probability 0.01", "PLD", "20 times"):
        assert words in said


def test_a_plan_with_the_noise_that_was_found_spends_what_was_asked_for():
    needed = privacy.noise_multiplier(plan(CENTRAL), epsilon=2.0, delta=1e-6)
    noised = Clip(1.0) >> PlainSum() >> Gaussian(needed, clients=100)
    assert privacy.spent(plan(noised), delta=1e-6).epsilon == pytest.approx(2.0, rel=0.005)
