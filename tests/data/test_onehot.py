"""Federated one-hot encoding beside scikit-learn's OneHotEncoder on pooled rows, and what is too rare for it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import OneHotEncoder

import shoal
from shoal.analytics import CategoryCounts
from shoal.errors import DataError, SettingError

GROUPS = st.lists(st.integers(0, 24), min_size=24, max_size=24)
CODES = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([-5, 0, 9])), min_size=24, max_size=24)


@given(groups=GROUPS, codes=CODES)
def test_without_a_least_the_encoding_is_that_of_the_pooled_rows(groups, codes):
    x = np.array(codes, float)
    made = shoal.one_hot(
        shoal.Population.from_arrays(x, groups=groups), {0: 4, 1: [-5, 0, 9]}, at_least=1, at_least_clients=1
    )
    pooled = OneHotEncoder(sparse_output=False).fit(x)
    assert [list(made.categories[place]) for place in (0, 1)] == [kinds.tolist() for kinds in pooled.categories_]
    np.testing.assert_array_equal(made.transform(x), pooled.transform(x))


@given(groups=GROUPS, codes=CODES, least=st.integers(1, 6), clients=st.integers(1, 4))
def test_a_category_is_kept_where_enough_rows_and_clients_hold_it(groups, codes, least, clients):
    x = np.array(codes)
    held = {code: (x[:, 0] == code).sum() for code in range(4)}
    holders = {code: len({g for g, c in zip(groups, x[:, 0], strict=True) if c == code}) for code in range(4)}
    kept = tuple(code for code in range(4) if held[code] >= least and holders[code] >= clients)
    population = shoal.Population.from_arrays(x, groups=groups)
    if not kept:
        with pytest.raises(DataError, match="no code of feature 0"):
            shoal.one_hot(population, {0: 4}, at_least=least, at_least_clients=clients)
        return
    made = shoal.one_hot(population, {0: 4}, at_least=least, at_least_clients=clients)
    assert made.categories == {0: kept}


def test_a_category_of_one_client_is_left_out_unless_it_is_asked_for():
    rare = shoal.Population.from_arrays([[0]] * 12 + [[1]] * 6, groups=[0] * 6 + [1] * 6 + [2] * 6)
    assert shoal.one_hot(rare, {0: 2}).categories == {0: (0,)}
    assert shoal.one_hot(rare, {0: 2}, at_least_clients=1).categories == {0: (0, 1)}


def test_other_features_stay_in_their_places_and_columns_are_named():
    x = np.array([[0.5, 2, 7.0], [1.5, 0, 8.0], [2.5, np.nan, 9.0], [3.5, 3, 6.0]])
    population = shoal.Population.from_arrays(x, np.arange(4), groups=list("abcd"))
    made = shoal.one_hot(population, {1: 3}, at_least=1, at_least_clients=1, other=True)
    assert made.names == ((0, None), (1, 0), (1, 2), (1, "other"), (2, None))
    done = made.apply(population)
    assert done.columns["x"].tolist() == [
        [0.5, 0, 1, 0, 7.0], [1.5, 1, 0, 0, 8.0], [2.5, 0, 0, 1, 9.0], [3.5, 0, 0, 1, 6.0],
    ]  # fmt: skip
    assert done.usable.all()
    assert done.columns["y"] is population.columns["y"]


def test_what_is_no_category_is_zero_in_all_of_its_columns():
    made = shoal.OneHot({0: (0, 2)}, features=1)
    assert made.transform(np.array([[1.0], [0.5], [np.nan], [-7.0], [2.0]])).tolist() == [[0, 0]] * 4 + [[0, 1]]


@pytest.mark.parametrize(("given", "wanted"), [("float32", "float32"), ("float64", "float64"), ("int8", "float64")])
def test_float32_rows_stay_float32(given, wanted):
    made = shoal.OneHot({0: (0, 1)}, features=1)
    assert made.transform(np.zeros((2, 1), given)).dtype == wanted


def test_a_column_of_single_codes_is_a_feature(random):
    codes = random.integers(0, 3, 40)
    population = shoal.Population.from_arrays(np.zeros((40, 1)), groups=np.arange(40) % 4, kind=codes)
    done = shoal.one_hot(population, {0: 3}, column="kind").apply(population)
    order = np.argsort(np.arange(40) % 4, kind="stable")
    np.testing.assert_array_equal(done.columns["kind"], np.eye(3)[codes[order]])


def test_counts_are_those_of_a_loop_in_every_runtime(random):
    x = random.integers(0, 3, size=(30, 2))
    groups = random.integers(0, 6, 30)
    population = shoal.Population.from_arrays(x, groups=groups)
    plan = shoal.Plan(CategoryCounts({1: 3, 0: [2, 7]}), rounds=1)
    counts = shoal.simulate(plan, population).state
    assert [rows.tolist() for rows in counts.rows] == [
        [(x[:, 1] == code).sum() for code in range(3)], [(x[:, 0] == 2).sum(), 0],
    ]  # fmt: skip
    assert counts.clients[0].tolist() == [len(set(groups[x[:, 1] == code])) for code in range(3)]


def test_codes_of_texts_and_flags_go_together(tmp_path):
    (tmp_path / "t.csv").write_text("who,pain,age\n" + "a,odd,1\nb,none,\nc,,3\na,none,5\n")
    population = shoal.read_csv(tmp_path / "t.csv", client="who", categories={"pain": ["none", "odd"]})
    filled = shoal.imputer(population, most_frequent={0: 2}, flags=True).apply(population)
    done = shoal.one_hot(filled, {0: 2}, at_least=1, at_least_clients=1).apply(filled)
    assert done.columns["x"].tolist() == [[0, 1, 1, 0, 0], [1, 0, 5, 0, 0], [1, 0, 3, 0, 1], [1, 0, 3, 1, 0]]


@pytest.mark.parametrize(
    ("features", "settings", "error", "message"),
    [
        ({}, {}, SettingError, "at least one feature"),
        ([0], {}, SettingError, r"{place of the feature: its codes}"),
        ({2: 3}, {}, DataError, r"have shape \(2,\), and there is no feature 2"),
        ({0: 3}, {"column": "image"}, DataError, r"have shape \(2, 1\)"),
        ({0: 3}, {"column": "z"}, DataError, "there is no column 'z'"),
        ({0: [5]}, {}, DataError, r"no code of feature 0 \(from 0\) of 'x' is held by 5 rows and 2 clients: declare"),
        ({0: 3}, {"at_least": 0}, SettingError, "held by at least one row, not 0"),
        ({0: 3}, {"at_least_clients": 1.5}, SettingError, "held by at least one client, not 1.5"),
        ({"age": 3}, {}, SettingError, "named by its place, from 0, not 'age'"),
    ],
)
def test_what_cannot_be_encoded_is_refused(features, settings, error, message):
    population = shoal.Population.from_arrays([[0, 1]] * 9, groups=list("abc") * 3, image=np.zeros((9, 2, 1)))
    with pytest.raises(error, match=message):
        shoal.one_hot(population, features, **settings)


def test_no_rows_are_encoded_as_no_rows():
    assert shoal.OneHot({1: (0, 2)}, features=2).transform(np.zeros((0, 2))).shape == (0, 3)


def test_rows_of_another_width_are_refused():
    with pytest.raises(DataError, match=r"have shape \(2,\), the encoding is of 1"):
        shoal.OneHot({0: (0, 1)}, features=1).transform(np.zeros((3, 2)))
