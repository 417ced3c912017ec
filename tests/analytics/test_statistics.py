"""Federated statistics beside NumPy on all rows together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shoal
from shoal.analytics import MeanAndVariance
from shoal.errors import DataError


@given(
    seed=st.integers(0, 1000),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    center=st.floats(-1e3, 1e3),
    scale=st.floats(1e-2, 1e3),
)
def test_mean_and_variance_are_the_pooled_ones(seed, sizes, center, scale):
    random = np.random.default_rng(seed)
    x = random.normal(center, scale, size=(sum(sizes), 3))
    population = shoal.Population.from_arrays(x, groups=np.repeat(np.arange(len(sizes)), sizes))
    state = shoal.simulate(shoal.Plan(MeanAndVariance((3,)), rounds=1), population).state
    assert state.count == len(x)
    np.testing.assert_allclose(state.mean, x.mean(0), rtol=1e-12, atol=1e-12 * scale)
    np.testing.assert_allclose(state.variance, x.var(0), rtol=1e-9, atol=1e-13 * float(np.square(x).mean()))


def test_a_standardizer_makes_mean_zero_and_deviation_one(random):
    x = random.normal(50, [1, 10, 0.1], size=(60, 3))
    population = shoal.Population.from_arrays(x, groups=random.integers(0, 4, 60))
    done = shoal.standardizer(population).apply(population).columns["x"].astype(np.float64)
    np.testing.assert_allclose(done.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(done.std(0), 1, atol=1e-5)


def test_a_constant_feature_is_centred_only():
    population = shoal.Population.from_arrays([[1.0, 7.0], [3.0, 7.0]], groups=["a", "b"])
    assert shoal.standardizer(population).apply(population).columns["x"][:, 1].tolist() == [0, 0]


def test_an_own_standardizer_is_each_clients_own(random):
    x = random.normal([[0.0]] * 20 + [[100.0]] * 20, 2.0)
    population = shoal.Population.from_arrays(x, groups=["a"] * 20 + ["b"] * 20)
    done = shoal.own_standardizer(population).apply(population)
    for name in population:
        np.testing.assert_allclose(done[name].rows("x").mean(), 0, atol=1e-5)
    with pytest.raises(DataError, match="'a' was not there"):
        shoal.own_standardizer(population.select(["b"])).apply(population)


def test_a_client_with_nan_contributes_nothing_to_statistics():
    x = np.array([[1.0], [3.0], [np.nan], [100.0]])
    population = shoal.Population.from_arrays(x, groups=["a", "a", "bad", "bad"])
    state = shoal.simulate(shoal.Plan(MeanAndVariance((1,)), rounds=1), population)
    assert state.state.mean.tolist() == [2.0]
    assert state.history.rows[0]["rejected"] == 1
    with pytest.raises(DataError, match="no client has finite numbers"):
        shoal.standardizer(population.select(["bad"]))


def test_rows_of_another_shape_are_refused():
    population = shoal.Population.from_arrays([[1.0, 2.0]], groups=["a"])
    with pytest.raises(DataError, match=r"rows of 'x' have shape \(2,\)"):
        shoal.simulate(shoal.Plan(MeanAndVariance((3,)), rounds=1), population)
