"""Who takes part in a round."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from shoal.cohort import Everyone, Fixed, Fraction, Poisson, Rotation, sampler, separation
from shoal.errors import SettingError, UnsupportedError
from shoal.key import Key

samplers = st.one_of(
    st.just(Everyone()),
    st.integers(1, 20).map(Fixed),
    st.floats(0.01, 1).map(Fraction),
    st.floats(0.01, 1).map(Poisson),
)


@given(sampler=samplers, population=st.integers(20, 200), seed=st.integers(0, 100))
def test_a_cohort_is_ascending_places_of_the_population_each_once(sampler, population, seed):
    places = sampler.draw(Key.from_seed(seed), population)
    assert np.array_equal(places, np.unique(places))
    assert all(0 <= place < population for place in places)
    assert len(places) <= sampler.most(population)


def test_the_same_key_draws_the_same_cohort():
    key = Key.from_seed(4)
    for chooser in (Fixed(5), Fraction(0.2), Poisson(0.2)):
        assert np.array_equal(chooser.draw(key, 100), chooser.draw(key, 100))


def test_a_fixed_cohort_chooses_every_client_as_often():
    draws = np.zeros(10)
    for number in range(4000):
        draws[Fixed(3).draw(Key.from_seed(0).split(number), 10)] += 1
    assert stats.chisquare(draws).pvalue > 1e-4


def test_poisson_cohorts_have_binomial_sizes():
    sizes = [len(Poisson(0.1).draw(Key.from_seed(0).split(i), 200)) for i in range(3000)]
    observed = np.bincount(sizes, minlength=60)[:60]
    expected = stats.binom(200, 0.1).pmf(np.arange(60)) * len(sizes)
    keep = expected > 5
    chi = ((observed[keep] - expected[keep]) ** 2 / expected[keep]).sum()
    assert stats.chi2.sf(chi, keep.sum() - 1) > 1e-4


def test_a_number_a_fraction_and_nothing_are_samplers():
    assert sampler(3) == Fixed(3)
    assert sampler(1.0) == Fraction(1.0)
    assert sampler(None) == Everyone()
    assert sampler(Poisson(0.5)) == Poisson(0.5)


@pytest.mark.parametrize("wrong", [0, -2, 0.0, 1.5, True])
def test_a_cohort_that_cannot_be_is_refused(wrong):
    with pytest.raises(SettingError):
        sampler(wrong)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.01])
def test_a_sampling_rate_outside_its_range_is_refused(rate):
    with pytest.raises(SettingError, match="sampling rate"):
        Poisson(rate)


def test_a_cohort_larger_than_the_population_is_refused_with_the_way_out():
    with pytest.raises(SettingError, match=r"a cohort of 11 is larger than the population of 10 clients.*at most 10"):
        Fixed(11).draw(Key.from_seed(0), 10)


@given(clients=st.integers(1, 6), apart=st.integers(1, 7), more=st.integers(0, 9), seed=st.integers(0, 50))
def test_in_a_rotation_nobody_comes_again_before_the_separation_and_everyone_comes_as_often(clients, apart, more, seed):
    rotation, population = Rotation(clients, separation=apart), clients * apart + more
    last, turns = np.full(population, -apart), np.zeros(population, int)
    for number in range(2 * population):
        places = rotation.turn(number, Key.from_seed(seed), population)
        assert len(places) == clients
        assert np.array_equal(places, np.unique(places))
        assert np.all(number - last[places] >= apart)
        last[places] = number
        turns[places] += 1
    assert np.all(turns == 2 * clients)


def test_a_rotation_goes_around_another_circle_for_another_key():
    first, second = (Rotation(3, separation=4).turn(0, Key.from_seed(seed), 100) for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_a_rotation_keeps_clients_apart_and_other_cohorts_do_not():
    assert separation(Rotation(5, separation=7)) == 7
    assert [separation(chooser) for chooser in (Everyone(), Fixed(1), Fraction(0.1), Poisson(0.1))] == [1] * 4


def test_a_rotation_around_too_small_a_circle_is_refused_with_the_numbers():
    with pytest.raises(SettingError, match="within 7 rounds, are 35 clients, and the population has 34"):
        Rotation(5, separation=7).turn(0, Key.from_seed(0), 34)


def test_a_rotation_is_not_drawn_without_its_round():
    with pytest.raises(UnsupportedError, match="depends on the round"):
        Rotation(2, separation=3).draw(Key.from_seed(0), 6)
