"""Federated standardisation beside the mean and deviation of pooled rows by NumPy, in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shoal
from shoal.errors import DataError

ROWS = np.random.default_rng(0).normal(size=(24, 3)) * [1.0, 30.0, 0.002] + [0.5, 80.0, -0.001]
GROUPS = st.lists(st.integers(0, 5), min_size=24, max_size=24)


def assert_is(made, mean, scale):
    assert made.mean.dtype == made.scale.dtype == np.float64
    np.testing.assert_allclose(made.mean, mean, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(made.scale, scale, rtol=1e-12)


@given(groups=GROUPS)
def test_a_standardizer_is_that_of_the_pooled_rows_whatever_the_grouping(groups):
    made = shoal.standardizer(shoal.Population.from_arrays(ROWS, groups=groups))
    assert_is(made, ROWS.mean(0), ROWS.std(0))


@given(groups=GROUPS)
def test_applied_it_centres_and_scales_every_row_and_no_other_column(groups):
    population = shoal.Population.from_arrays(ROWS, np.arange(24), groups=groups)
    done = shoal.standardizer(population).apply(population)
    assert done.columns["x"].dtype == np.float32
    order = np.argsort(groups, kind="stable")
    np.testing.assert_allclose(done.columns["x"], ((ROWS - ROWS.mean(0)) / ROWS.std(0))[order], rtol=1e-5, atol=1e-6)
    assert done.columns["y"].tolist() == order.tolist()


def test_rows_may_be_images_or_numbers_and_the_column_another(random):
    images, ages = random.normal(2, 3, size=(10, 4, 5)), random.normal(50, 9, size=10)
    population = shoal.Population.from_arrays(images, groups=np.arange(10) % 3, age=ages)
    assert_is(shoal.standardizer(population), images.mean(0), images.std(0))
    made = shoal.standardizer(population, column="age")
    assert_is(made, ages.mean(), ages.std())
    done = made.apply(population)
    assert done.columns["x"] is population.columns["x"]
    assert done.columns["age"].std() == pytest.approx(1, abs=1e-6)


def test_what_was_learned_on_one_population_is_applied_to_another(random):
    train = shoal.Population.from_arrays(ROWS, groups=np.arange(24) % 4)
    other = random.normal(size=(5, 3))
    done = shoal.standardizer(train).apply(shoal.Population.from_arrays(other, groups=["new"] * 5))
    np.testing.assert_allclose(done.columns["x"], (other - ROWS.mean(0)) / ROWS.std(0), rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 7.0, 0.1, 1 / 3, -2.7, 1e6 + 0.1])
@pytest.mark.parametrize("rows", [3, 5, 7])
def test_a_constant_feature_is_only_centred(value, rows):
    # A deviation of rounding error in place of 1 would blow a client's first other value up a billion times.
    x = np.stack([np.full(rows, value), np.arange(rows)], 1)
    made = shoal.standardizer(shoal.Population.from_arrays(x, groups=np.arange(rows)))
    assert made.scale.tolist() == [1.0, np.arange(rows).std()]
    assert made.transform(x)[:, 0] == pytest.approx(0, abs=1e-9 * max(1, abs(value)))


def test_a_feature_that_varies_little_is_scaled_all_the_same():
    x = np.array([[1.0], [1.0001], [1.0], [1.0002]])
    made = shoal.standardizer(shoal.Population.from_arrays(x, groups=[0, 0, 1, 1]))
    np.testing.assert_allclose(made.scale, x.std(0), rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("column", ["x", "y"])
def test_a_client_with_a_number_that_is_none_contributes_nothing(bad, column):
    groups, y = np.arange(24) % 4, np.zeros(24)
    given = {"x": ROWS.copy(), "y": y}
    given[column][6] = bad  # client 2
    made = shoal.standardizer(shoal.Population.from_arrays(**given, groups=groups))
    rest = ROWS[groups != 2]
    assert_is(made, rest.mean(0), rest.std(0))


def test_where_no_client_is_usable_the_standardizer_is_refused():
    population = shoal.Population.from_arrays([[np.nan], [1.0], [np.inf]], groups=["a", "a", "b"])
    with pytest.raises(DataError, match="no client has finite numbers in 'x'"):
        shoal.standardizer(population)


def test_an_unknown_column_is_refused():
    with pytest.raises(DataError, match="there is no column 'z'"):
        shoal.standardizer(shoal.Population.from_arrays(ROWS, groups=[0] * 24), column="z")


def test_its_own_standardizer_gives_each_client_mean_0_and_variance_1(random):
    groups = np.repeat(["a", "b", "c"], [8, 10, 6])
    x = random.normal(size=(24, 2)) + np.repeat([[0.0], [50.0], [-9.0]], [8, 10, 6], 0)
    population = shoal.Population.from_arrays(x, np.arange(24), groups=groups)
    done = shoal.own_standardizer(population).apply(population)
    for name in "abc":
        rows = done[name].rows("x").astype(np.float64)
        np.testing.assert_allclose(rows.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(rows.var(0), 1, rtol=1e-5)
        own = x[groups == name]
        np.testing.assert_allclose(rows, (own - own.mean(0)) / own.std(0), rtol=1e-4, atol=1e-5)
    assert done.columns["y"].tolist() == list(range(24))


def test_its_own_standardizer_knows_only_the_clients_it_was_made_of():
    population = shoal.Population.from_arrays(ROWS, groups=np.repeat(["a", "b", "c"], 8))
    made = shoal.own_standardizer(population.without("c"))
    assert list(made.apply(population.select(["b"]))) == ["b"]
    with pytest.raises(DataError, match="client 'c' was not there when the standardizers were made"):
        made.apply(population)
