"""Federated imputation beside scikit-learn's SimpleImputer on pooled rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.impute import SimpleImputer

import shoal
from shoal.analytics import PresentMean
from shoal.errors import DataError, SettingError

CODES = np.random.default_rng(1).integers(0, 4, 30)


def holed(seed=0, rows=30):
    """Numbers, and in the last feature codes, a fifth of all missing."""
    random = np.random.default_rng(seed)
    x = np.column_stack([random.normal(size=(rows, 3)) * [1, 50, 0.01], CODES[:rows]])
    x[random.random(x.shape) < 0.2] = np.nan
    x[0] = [1.0, 2.0, 3.0, 2.0]
    return x


@given(groups=st.lists(st.integers(0, 30), min_size=30, max_size=30), seed=st.integers(0, 99))
def test_means_are_those_of_the_pooled_rows_whatever_the_grouping(groups, seed):
    x = holed(seed)
    done = shoal.imputer(shoal.Population.from_arrays(x, groups=groups))
    pooled = SimpleImputer().fit(x)
    np.testing.assert_allclose(done.values, pooled.statistics_, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(done.transform(x), pooled.transform(x), rtol=1e-12, atol=1e-15)


@given(groups=st.lists(st.integers(0, 30), min_size=30, max_size=30), seed=st.integers(0, 99))
def test_the_most_frequent_code_is_that_of_the_pooled_rows(groups, seed):
    x = holed(seed)
    done = shoal.imputer(shoal.Population.from_arrays(x, groups=groups), most_frequent={3: 4})
    assert done.values[3] == SimpleImputer(strategy="most_frequent").fit(x).statistics_[3]
    np.testing.assert_allclose(done.values[:3], np.nanmean(x, 0)[:3], rtol=1e-12)


def test_of_equally_frequent_codes_the_smallest_is_taken_and_only_declared_ones_count():
    population = shoal.Population.from_arrays([[7.0], [7.0], [7.0], [2.0], [1.0]], groups=list("abcab"))
    assert shoal.imputer(population, most_frequent={0: [2, 5, 1]}).values.tolist() == [1.0]


def test_flags_say_where_a_feature_was_missing_as_scikit_learns_indicator_does():
    x = holed()
    x[:, 1] = np.arange(30)
    population = shoal.Population.from_arrays(x, groups=np.arange(30) % 7, age=np.arange(30))
    made = shoal.imputer(population, flags=True)
    assert made.flags == (0, 2, 3)
    pooled = SimpleImputer(add_indicator=True).fit(x)
    np.testing.assert_allclose(made.transform(x), pooled.transform(x), rtol=1e-12)
    done = made.apply(population)
    assert done.usable.all()
    assert done.columns["x"].shape == (30, 7)
    assert done.columns["age"] is population.columns["age"]


def test_a_client_with_nothing_but_missing_numbers_is_filled_by_the_others():
    population = shoal.Population.from_arrays([[np.nan, np.nan], [2.0, 4.0], [4.0, 5.0]], groups=["a", "b", "c"])
    assert shoal.imputer(population).apply(population)["a"].rows("x").tolist() == [[3.0, 4.5]]


def test_what_is_missing_elsewhere_does_not_keep_a_client_from_answering():
    population = shoal.Population.from_arrays([[1.0], [3.0]], [np.nan, 1.0], groups=["a", "b"])
    assert shoal.imputer(population).values.tolist() == [2.0]


def test_rows_keep_their_dtype_and_may_be_images_numbers_or_integers(random):
    images = random.normal(size=(6, 2, 2)).astype(np.float32)
    images[0, 1, 1] = np.nan
    done = shoal.imputer(shoal.Population.from_arrays(images, groups=np.arange(6) % 2)).transform(images)
    assert done.dtype == np.float32
    np.testing.assert_allclose(done[0, 1, 1], images[1:, 1, 1].mean(), rtol=1e-6)
    population = shoal.Population.from_arrays([[1], [2]], groups=["a", "b"], age=[np.nan, 40.0])
    assert shoal.imputer(population, column="age").apply(population).columns["age"].tolist() == [40.0, 40.0]
    assert shoal.imputer(population).apply(population).columns["x"].dtype == np.int64


def test_a_client_that_holds_infinity_contributes_nothing():
    population = shoal.Population.from_arrays([[1.0], [np.inf], [5.0]], groups=["a", "b", "c"])
    assert shoal.imputer(population).values.tolist() == [3.0]
    with pytest.raises(DataError, match="every client holds infinity in 'x'"):
        shoal.imputer(population.select(["b"]))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({}, DataError, r"feature 1 \(from 0\) of 'x' is missing in every row: leave it out"),
        ({"column": "image"}, DataError, r"feature \(1, 0\) \(from 0\) of 'image'"),
        ({"column": "image", "flags": True}, SettingError, r"rows of 'image' have shape \(2, 1\)"),
        ({"column": "full", "most_frequent": {0: [7]}}, DataError, "holds none of the 1 codes"),
        ({"column": "full", "most_frequent": {2: 3}}, DataError, r"shape \(2,\), and there is no feature 2"),
        ({"column": "full", "most_frequent": {-1: 3}}, SettingError, "named by its place, from 0, not -1"),
        ({"column": "full", "most_frequent": {0: 0}}, SettingError, "number of codes.*not 0"),
        ({"column": "full", "most_frequent": {0: "abc"}}, SettingError, "not 'abc'"),
        ({"column": "full", "most_frequent": {0: [1, 1]}}, SettingError, "not 2 of which 1 differ"),
        ({"column": "full", "most_frequent": {0: 1.5}}, SettingError, "not 1.5"),
        ({"column": "z"}, DataError, "there is no column 'z'"),
    ],
)
def test_what_cannot_be_imputed_is_refused(settings, error, message):
    population = shoal.Population.from_arrays(
        [[1.0, np.nan], [2.0, np.nan]], groups=["a", "b"], image=[[[1.0], [np.nan]]] * 2, full=[[1.0, 2.0]] * 2
    )
    with pytest.raises(error, match=message):
        shoal.imputer(population, **settings)


def test_rows_that_are_no_numbers_are_refused():
    with pytest.raises(DataError, match="rows are numbers, with NaN where one is missing, not object"):
        shoal.Imputer(np.zeros(2)).transform([[1.0, None]])


def test_rows_of_another_shape_are_refused():
    made = shoal.imputer(shoal.Population.from_arrays([[1.0, 2.0]], groups=["a"]))
    with pytest.raises(DataError, match=r"rows of 'x' have shape \(3,\), the imputer is for \(2,\)"):
        made.transform(np.zeros((1, 3)))
    with pytest.raises(DataError, match=r"have shape \(3,\), the means are for \(2,\)"):
        PresentMean((2,)).check(shoal.Population.from_arrays([[1, 2, 3]], groups=["a"])["a"])
