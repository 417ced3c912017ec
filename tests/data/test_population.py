"""Populations: made three ways, cut and put together, each beside plain NumPy selection."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shoal
from shoal.errors import DataError, SettingError
from tests.conftest import regression

LABELS = st.lists(st.sampled_from(["north", "b", "a", "south", "10", "9"]), min_size=1, max_size=30)
SIZES = st.lists(st.integers(1, 9), min_size=2, max_size=8)
X = np.arange(12.0).reshape(4, 3)


def numbered(sizes):
    """Clients c0, c1, ... whose rows are numbered, so that a row can be found again anywhere."""
    rows = np.arange(sum(sizes))
    groups = np.repeat([f"c{i}" for i in range(len(sizes))], sizes)
    return shoal.Population.from_arrays(np.stack([rows, rows * 2.0], 1), rows, groups=groups)


def frame():
    return pd.DataFrame(
        {
            "age": [40, 50, 60, 70],
            "site": ["b", "a", "b", "a"],
            "ill": [0, 1, 1, 0],
            "dose": [0.5, 1.5, 2.5, 3.5],
            "word": ["x", "y", "z", "x"],
        }
    )


@given(labels=LABELS, seed=st.integers(0, 9))
def test_each_clients_rows_keep_their_order_whatever_the_order_of_the_groups(labels, seed):
    random = np.random.default_rng(seed)
    x, y, weight = random.normal(size=(len(labels), 2)), np.arange(len(labels)), random.normal(size=len(labels))
    population = shoal.Population.from_arrays(x, y, groups=labels, weight=weight)
    assert population.names == tuple(sorted(set(labels)))
    assert population.counts.tolist() == [labels.count(name) for name in population]
    for name in population:
        mine = np.array(labels) == name
        for column, whole in {"x": x, "y": y, "weight": weight}.items():
            assert np.array_equal(population[name].rows(column), whole[mine])


@pytest.mark.parametrize("groups", [[0, 0, 1, 2], [1, 0, 1, 0]])
def test_what_is_done_to_an_array_later_does_not_reach_the_population(groups):
    x = X.copy()
    population = shoal.Population.from_arrays(x, groups=groups)
    before = population.columns["x"].copy()
    x += 1
    assert np.array_equal(population.columns["x"], before)
    with pytest.raises(ValueError, match="read-only"):
        population.columns["x"][0] = 9


def test_pairs_and_dicts_of_clients_are_the_same_population():
    pairs = shoal.Population.from_clients({"late": (X[:3], [1, 2, 3]), "early": (X[3:], [4])})
    dicts = shoal.Population.from_clients({"late": {"x": X[:3], "y": [1, 2, 3]}, "early": {"y": [4], "x": X[3:]}})
    for population in (pairs, dicts):
        assert population.names == ("late", "early")
        assert np.array_equal(population["late"].rows("x"), X[:3])
        assert population["late"].rows("y").tolist() == [1, 2, 3]
        assert np.array_equal(population["early"].rows("x"), X[3:])
        assert population["early"].rows("y").tolist() == [4]


def test_a_frames_other_columns_are_the_features_in_order():
    population = shoal.Population.from_frame(frame().drop(columns="word"), client="site", label="ill")
    assert population.names == ("a", "b")
    assert population["a"].rows("x").tolist() == [[50, 1.5], [70, 3.5]]
    assert population["b"].rows("x").tolist() == [[40, 0.5], [60, 2.5]]
    assert population["a"].rows("y").tolist() == [1, 0]


def test_named_features_come_in_the_order_named():
    population = shoal.Population.from_frame(frame(), client="site", label="ill", features=["dose", "age"])
    assert population["b"].rows("x").tolist() == [[0.5, 40], [2.5, 60]]


def test_columns_of_a_frame_may_have_numbers_for_names():
    numbered_columns = pd.DataFrame({0: [1.0, 2.0], 1: [3.0, 4.0], "who": ["a", "b"], "ill": [0, 1]})
    population = shoal.Population.from_frame(numbered_columns, client="who", label="ill")
    assert population["b"].rows("x").tolist() == [[2.0, 4.0]]


def test_a_missing_feature_makes_a_client_unusable_and_is_no_error():
    missing = frame().assign(dose=[0.5, None, 2.5, 3.5])
    population = shoal.Population.from_frame(missing, client="site", label="ill", features=["dose"])
    assert population.usable.tolist() == [False, True]


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({}, {"features": ["dose", "size"]}, "there is no column 'size'; there are age, site, ill, dose, word"),
        ({}, {"client": "hospital"}, "there is no column 'hospital'"),
        ({}, {"label": "dead"}, "there is no column 'dead'"),
        ({}, {}, "features are numbers, and 'word' are not"),
        ({"site": ["b", None, "b", "a"]}, {"features": ["age"]}, "a group label is missing"),
        ({"site": pd.array(["b", None, "b", "a"], "string")}, {"features": ["age"]}, "a group label is missing"),
        ({"site": [1.0, np.nan, 1.0, 2.0]}, {"features": ["age"]}, "a group label is missing"),
        ({"site": pd.to_datetime(["2020-01-01", None] * 2)}, {"features": ["age"]}, "a group label is missing"),
        ({}, {"label": "word", "features": ["age"]}, "column 'y' holds object"),
        ({}, {"features": []}, "feature"),
    ],
)
def test_frames_that_cannot_be_used_are_refused(change, settings, message):
    with pytest.raises(DataError, match=message):
        shoal.Population.from_frame(frame().assign(**change), **{"client": "site", "label": "ill", **settings})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": X, "y": [1, 2, 3], "groups": [0, 0, 1, 1]}, "column 'y' has 3 rows, but there are 4 group labels"),
        ({"x": X, "groups": [0, 1]}, "column 'x' has 4 rows, but there are 2 group labels"),
        ({"x": X, "groups": [[0], [1], [0], [1]]}, "group"),
        ({"x": X, "groups": "a"}, "group"),
        ({"x": X, "groups": np.array([1, "a", 1, "a"], object)}, "group"),
        ({"x": X, "groups": ["a", None, "a", "b"]}, "a group label is missing"),
        ({"x": X, "groups": [1.0, np.nan, 1.0, 2.0]}, "a group label is missing"),
        ({"x": X, "groups": ["a", np.nan, "a", "b"]}, "a group label is missing"),
        ({"x": X, "groups": np.array(["2020-01-01", "NaT"] * 2, "datetime64[D]")}, "a group label is missing"),
        ({"x": [["u"], ["v"]], "groups": [0, 1]}, "column 'x' holds .*columns hold numbers: encode it first"),
        ({"x": [{}, {}], "groups": [0, 1]}, "column 'x' holds object"),
        ({"x": [[1], [1, 2]], "groups": [0, 1]}, "column 'x'"),
        ({"x": 3.0, "groups": [0]}, "column 'x' is a single value"),
        ({"x": X, "age": 3.0, "groups": [0, 1, 1, 1]}, "column 'age' is a single value"),
        ({"x": np.zeros((0, 3)), "groups": []}, "at least one client"),
    ],
)
def test_arrays_that_cannot_be_a_population_are_refused(given, message):
    with pytest.raises(DataError, match=message):
        shoal.Population.from_arrays(**given)


@pytest.mark.parametrize(
    ("clients", "message"),
    [
        ({}, "at least one client"),
        ({"a": (X, [1, 2, 3, 4]), "b": (X[:0], [])}, "client 'b' has no examples: leave it out"),
        ({"a": {}}, "client 'a' has no examples"),
        ({"a": (X, [1, 2, 3, 4]), "b": (X[:, :2], [1, 2, 3, 4])}, r"client 'b': .*shape \(2,\).*client 'a' \(3,\)"),
        ({"a": (X, [1, 2, 3, 4]), "b": {"x": X}}, "client 'b' has columns x, client 'a' has x, y"),
        ({"a": (X, [1, 2, 3])}, r"client 'a': columns have different numbers of rows \(x 4, y 3\)"),
        ({"a": (X, list("abcd"))}, "client 'a': column 'y' holds .*columns hold numbers"),
        ({"a": ([[1], [1, 2]], [0, 1])}, "client 'a': "),
        ({"a": (X, 1)}, "client 'a': column 'y' is a single value"),
        ({"a": [X, X]}, r"client 'a': data is an \(x, y\) pair or a dict of columns, not a list"),
        ({"a": (X, X, X)}, r"client 'a': data is an \(x, y\) pair"),
        ({1: (X[:2], [0, 1]), "1": (X[2:], [0, 1])}, "two clients have the same name"),
    ],
)
def test_clients_that_cannot_be_a_population_are_refused_by_name(clients, message):
    with pytest.raises(DataError, match=message):
        shoal.Population.from_clients(clients)


@pytest.mark.parametrize(("names", "message"), [(("a", "a"), "two clients have the same name"), ((), "at least one")])
def test_names_tell_clients_apart(names, message):
    with pytest.raises(DataError, match=message):
        shoal.Population(names, {"x": X}, np.linspace(0, 4, len(names) + 1).astype(int))


def test_a_population_says_what_it_holds():
    population = shoal.Population.from_clients(
        {"a": (np.zeros((2, 28, 28), np.float32), [1, 2]), "b": (np.zeros((5, 28, 28), np.float32), [1] * 5)}
    )
    assert repr(population) == "Population of 2 clients, 7 examples (2 to 5 each): x float32 (28, 28), y int64"
    assert (len(population), list(population)) == (2, ["a", "b"])


def test_an_unknown_client_or_column_is_refused_by_name():
    population = numbered([3, 4])
    for look in (population.__getitem__, population.without, lambda name: population.select(["c0", name])):
        with pytest.raises(DataError, match="there is no client 'nobody' in this population of 2"):
            look("nobody")
    with pytest.raises(DataError, match="there is no column 'z'; there are x, y"):
        population["c0"].rows("z")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_usable_marks_exactly_the_clients_that_hold_a_number_that_is_none(bad):
    x = np.zeros((9, 2, 2))
    x[3, 1, 0] = bad
    y = np.zeros(9)
    y[8] = bad
    population = shoal.Population.from_arrays(x, y, groups=np.repeat(list("abcd"), [3, 1, 3, 2]), n=np.arange(9))
    assert population.usable.tolist() == [True, False, True, False]
    assert [population[name].usable for name in population] == [True, False, True, False]
    assert not population.everything().usable


@given(sizes=SIZES, data=st.data())
def test_select_takes_the_named_clients_in_the_order_given(sizes, data):
    population = numbered(sizes)
    names = data.draw(st.lists(st.sampled_from(population.names), min_size=1, unique=True))
    part = population.select(names)
    assert list(part) == names
    for name in names:
        for column in "xy":
            assert np.array_equal(part[name].rows(column), population[name].rows(column))


def test_without_leaves_one_client_out():
    rest = numbered([2, 3, 1]).without("c1")
    assert list(rest) == ["c0", "c2"]
    assert rest.columns["y"].tolist() == [0, 1, 5]


@pytest.mark.parametrize("empty", [lambda p: p.select([]), lambda p: p.select(["c0"]).without("c0")])
def test_a_population_of_nobody_is_refused(empty):
    with pytest.raises(DataError, match="at least one client"):
        empty(numbered([2, 3]))


def test_a_client_selected_twice_is_refused():
    with pytest.raises(DataError, match="same name"):
        numbered([2, 3]).select(["c1", "c1"])


def test_pooled_is_one_client_with_every_row():
    population = numbered([2, 3, 1])
    pooled = population.pooled("all")
    assert (pooled.names, pooled.counts.tolist()) == (("all",), [6])
    assert pooled["all"].rows("y").tolist() == list(range(6))
    assert np.array_equal(population.everything().rows("x"), pooled["all"].rows("x"))


def test_a_column_is_added_or_replaced_and_the_old_population_stays():
    population = numbered([2, 3])
    wider = population.with_column("z", [9, 8, 7, 6, 5]).with_column("y", np.zeros(5))
    assert wider["c1"].rows("z").tolist() == [7, 6, 5]
    assert not wider.columns["y"].any()
    assert list(population.columns) == ["x", "y"]
    assert population.columns["y"].any()
    with pytest.raises(DataError, match="column 'z' has 4 rows, the population has 5"):
        population.with_column("z", [1, 2, 3, 4])
    with pytest.raises(DataError, match=r"column 'z' holds .*encode it first"):
        population.with_column("z", list("abcde"))


@given(sizes=SIZES)
def test_map_clients_gives_the_function_one_client_at_a_time(sizes):
    population = numbered(sizes)
    centred = population.map_clients("x", lambda rows: rows - rows.mean(0))
    for name in population:
        rows = population[name].rows("x")
        np.testing.assert_allclose(centred[name].rows("x"), rows - rows.mean(0))
    assert np.array_equal(centred.columns["y"], population.columns["y"])


@pytest.mark.parametrize(
    "function",
    [
        lambda rows: rows[:1],
        lambda rows: np.resize(rows, 3 if len(rows) == 2 else 2),  # as many rows in all, at other clients
        lambda rows: rows.sum(),
        lambda rows: np.ones((len(rows), len(rows))),
    ],
    ids=["fewer rows", "rows of another client", "no rows", "ragged rows"],
)
def test_a_function_of_clients_gives_a_row_for_every_row(function):
    with pytest.raises(DataError):
        numbered([2, 3]).map_clients("y", function)


@given(sizes=SIZES, fraction=st.floats(0.01, 0.99), seed=st.integers(0, 2**64 - 1))
def test_a_split_by_clients_has_every_client_exactly_once(sizes, fraction, seed):
    population = numbered(sizes)
    first, second = population.split_clients(fraction, seed=seed)
    assert sorted([*first, *second]) == list(population)
    assert abs(len(second) - fraction * len(sizes)) <= 1
    for part in (first, second):
        for name in part:
            assert np.array_equal(part[name].rows("x"), population[name].rows("x"))


@given(sizes=SIZES.filter(lambda sizes: max(sizes) > 1), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 2**64 - 1))
def test_a_split_by_examples_has_every_row_exactly_once_at_its_client(sizes, fraction, seed):
    population = numbered(sizes)
    first, second = population.split_examples(fraction, seed=seed)
    assert first.names == population.names
    assert list(second) == [name for name, size in zip(population, sizes, strict=True) if size > 1]
    for name in population:
        mine = population[name].rows("y").tolist()
        kept = first[name].rows("y").tolist()
        held = second[name].rows("y").tolist() if name in second.names else []
        assert sorted(kept + held) == mine
        assert kept == sorted(kept)
        assert held == sorted(held)
        assert abs(len(held) - fraction * len(mine)) <= 1
    for part in (first, second):  # the columns are cut alike
        assert np.array_equal(part.columns["x"], np.stack([part.columns["y"], part.columns["y"] * 2.0], 1))


@pytest.mark.parametrize("split", ["split_clients", "split_examples"])
def test_a_split_is_its_seeds(split):
    population = regression(sizes=(9,) * 12)
    cuts = [getattr(population, split)(0.5, seed=seed)[1] for seed in (3, 3, 4)]
    rows = [(cut.names, cut.columns["x"].tolist()) for cut in cuts]
    assert rows[0] == rows[1]
    assert rows[0] != rows[2]


def test_clients_of_a_split_do_not_all_hold_out_the_same_places():
    _, held = shoal.Population.from_arrays(
        np.tile(np.arange(20), 6), groups=np.repeat(np.arange(6), 20)
    ).split_examples(0.5)
    assert len({tuple(held[name].rows("x")) for name in held}) == 6


@pytest.mark.parametrize("split", ["split_clients", "split_examples"])
@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_fraction_outside_0_and_1_is_refused(split, fraction):
    message = f"over 0 and under 1, not {re.escape(str(fraction))}"
    with pytest.raises(SettingError, match=message):
        getattr(numbered([3, 4]), split)(fraction)


def test_where_there_is_nothing_to_hold_out_the_split_is_refused():
    with pytest.raises(SettingError, match="every client has a single example"):
        numbered([1, 1, 1]).split_examples(0.5)
    with pytest.raises(SettingError, match="one of 1 clients cannot be held out"):
        numbered([5]).split_clients(0.5)
