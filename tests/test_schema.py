"""What a plan expects of tables, beside columns that NumPy makes of the same rows."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shoal
from shoal import Column, Schema
from shoal.errors import DataError, SettingError
from shoal.wire.plans import plan_bytes, rebuilt

TABLE = {
    "age": np.array([61.0, 47.0, 70.5, 33.0]),
    "pain": np.array(["typical", "none", "odd", "none"], object),
    "beats": np.array([150, 171, 99, 120]),
    "ill": np.array([1, 0, 1, 0]),
    "set": np.array(["train", "train", "test", "train"], object),
    "name": np.array(["Ann", "Ben", "Cyd", "Dee"], object),
}
PAIN = ("none", "typical", "odd")
FRAMES = {"dict": dict, "pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.table}


@pytest.mark.parametrize("kind", FRAMES)
def test_columns_come_in_the_schemas_order_whatever_the_table(kind):
    schema = Schema(["beats", Column("pain", "indicators", of=PAIN), "age"], "ill", classes=2, also=["age2"])
    found = schema.columns(FRAMES[kind]({**TABLE, "age2": TABLE["age"]}))
    wanted = np.stack([TABLE["beats"], *[TABLE["pain"] == text for text in PAIN], TABLE["age"]], axis=1)
    assert {name: column.dtype for name, column in found.items()} == {
        "x": np.float32, "y": np.int32, "age2": np.float32
    }  # fmt: skip
    np.testing.assert_array_equal(found["x"], wanted.astype(np.float32))
    np.testing.assert_array_equal(found["y"], TABLE["ill"])


def test_a_category_is_its_place_in_the_list():
    found = Schema([Column("pain", "category", of=PAIN)], Column("pain2", "category", of=PAIN)).columns(
        {"pain": TABLE["pain"], "pain2": TABLE["pain"]}
    )
    assert (found["x"].ravel().tolist(), found["y"].tolist(), found["y"].dtype) == (
        [1, 0, 2, 0],
        [1, 0, 2, 0],
        np.int32,
    )


@pytest.mark.parametrize("wanted", [{"set": "train"}, {"ill": 0}, {"ill": False}, {"set": "train", "ill": 0}])
def test_only_rows_of_which_the_condition_holds_are_read(wanted):
    held = np.all([TABLE[name] == value for name, value in wanted.items()], axis=0)
    found = Schema(["age"], where=wanted).columns(TABLE)
    np.testing.assert_array_equal(found["x"][:, 0], TABLE["age"][held].astype(np.float32))


def test_what_is_wrong_in_other_rows_does_not_matter():
    table = {"age": [61.0, None], "set": ["train", "test"]}
    assert Schema(["age"], where={"set": "train"}).columns(table)["x"].tolist() == [[61.0]]


def test_standardised_columns_are_those_of_the_standardizer_to_the_bit():
    rows = shoal.hospitals().everything().rows("x")
    scaler = shoal.standardizer(shoal.hospitals())
    table = {f"f{place}": rows[:, place] for place in range(13)}
    found = Schema(list(table), standardize=(scaler.mean, scaler.scale)).columns(table)
    np.testing.assert_array_equal(found["x"], scaler.apply(shoal.hospitals()).everything().rows("x"))


@given(cuts=st.lists(st.integers(0, 40), max_size=4), seed=st.integers(0, 5))
def test_a_table_in_parts_gives_what_the_whole_table_gives(cuts, seed):
    random = np.random.default_rng(seed)
    table = {
        "a": random.normal(size=40),
        "k": random.choice(["x", "y"], 40).astype(object),
        "y": random.integers(3, size=40),
    }
    schema = Schema(["a", Column("k", "indicators", of=["x", "y"])], "y", classes=3, where={"k": "x"})
    edges = [0, *sorted(cuts), 40]
    parts = [{n: c[low:high] for n, c in table.items()} for low, high in pairwise(edges)]
    whole, gathered = schema.columns(table), schema.gather(parts)
    for name, column in whole.items():
        np.testing.assert_array_equal(gathered[name], column)
        assert gathered[name].dtype == column.dtype


def wrong(schema, **table):
    """What a schema says of a table."""
    with pytest.raises(DataError) as caught:
        schema.columns(table)
    return str(caught.value)


SECRET = 8642.97531
WRONG = [
    (Column("c"), [SECRET, "Ann", "12"], "expected numbers, found a text in 1 of 3 rows"),
    (Column("c"), ["12", "13"], "expected numbers, found a text in 2 of 2 rows"),
    (Column("c"), [date(1999, 1, 2), 3.0], "expected numbers, found a date in 1 of 2 rows"),
    (Column("c"), np.array(["1999-01-02"], "M8[D]"), "expected numbers, found a date in 1 of 1 rows"),
    (Column("c"), [1.0, None, np.nan], "expected numbers, found nothing in 2 of 3 rows"),
    (Column("c"), np.ma.masked_array([SECRET, 1.0], [True, False]), "expected numbers, found nothing in 1 of 2 rows"),
    (Column("c"), [1.0, -np.inf, 1e39], "expected numbers, found an infinite number in 2 of 3 rows"),
    (Column("c", "whole"), [1.0, SECRET], "expected whole numbers, found a fraction in 1 of 2 rows"),
    (Column("c", "whole"), [2**31, 1], "expected whole numbers, found a number of more than 31 bits in 1 of 2 rows"),
    (Column("c", least=0, most=120), [-SECRET, SECRET, 9, None],
     "expected numbers from 0 to 120, found nothing in 1 of 4 rows, a number outside in 2 of 4 rows"),
    (Column("c", least=1), [0.5], "expected numbers from 1, found a number outside in 1 of 1 rows"),
    (Column("c", most=1), [1.5], "expected numbers to 1, found a number outside in 1 of 1 rows"),
    (Column("c", "category", of=["f", "m"]), ["f", "Ann", None, "NA"],
     "expected one of 'f', 'm', found nothing in 2 of 4 rows, a text that is none of them in 1 of 4 rows"),
    (Column("c", "indicators", of=["f", "m"]), [SECRET], "expected one of 'f', 'm', found a text that is none of them"),
]  # fmt: skip


@pytest.mark.parametrize(("column", "values", "said"), WRONG, ids=range(len(WRONG)))
def test_an_error_names_column_expected_and_found_and_never_a_value(column, values, said):
    for schema in (Schema([column]), Schema(["fine"], also=[column])):
        message = wrong(schema, c=values, fine=np.ones(len(values)))
        assert message.startswith("column 'c': " + said)
        assert not any(secret in message for secret in ("8642", "Ann", "1999"))


CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=3), st.dates(),
    st.decimals(), st.complex_numbers(), st.lists(st.floats(), max_size=2), st.just(pd.NA), st.just(pd.NaT),
    st.builds(lambda: np.zeros(2)), st.builds(lambda: np.zeros(1)), st.sampled_from([np.int64(3), np.bool_(True)]),
)  # fmt: skip
ANY_COLUMN = st.sampled_from(
    [Column("c"), Column("c", "whole", least=-5, fill=0), Column("c", "category", of=["1", "a"]),
     Column("c", "indicators", of=["a", "b"], fill="a")]
)  # fmt: skip


@given(cells=st.lists(CELLS, max_size=6), column=ANY_COLUMN, where=st.sampled_from([{}, {"c": "a"}, {"c": 3}]))
def test_whatever_a_table_holds_the_answer_is_finite_columns_or_a_data_error(cells, column, where):
    values = np.empty(len(cells), object)
    values[:] = cells
    try:
        found = Schema([column], also=[Column("other", fill=1)], where=where).columns({"c": values, "other": values})
    except DataError:
        return
    assert np.isfinite(found["x"]).all() and np.isfinite(found["other"]).all()
    assert len(found["x"]) == len(found["other"]) <= len(cells)


def test_all_that_is_wrong_is_told_at_once_and_counted_over_all_parts():
    schema = Schema([Column("a", "whole"), Column("b", least=0)], "y", classes=2)
    parts = [{"a": [1, 2], "b": [1, -1], "y": [0, 1]}, {"a": [0.5, 2], "b": [-1, -1], "y": [0, 2]}]
    with pytest.raises(DataError) as caught:
        schema.gather(parts)
    assert str(caught.value) == (
        "column 'a': expected whole numbers, found a fraction in 1 of 4 rows; "
        "column 'b': expected numbers from 0, found a number outside in 3 of 4 rows; "
        "column 'y': expected whole numbers from 0 to 1, found a number outside in 1 of 4 rows"
    )


def test_missing_columns_lengths_and_shapes_are_told():
    assert wrong(Schema(["age", "sex"]), agee=[1], ill=[0]) == (
        "there is no column 'age', 'sex'; there are agee, ill; is 'agee' meant?"
    )
    assert wrong(Schema(["a"], "b"), a=[1], b=[1, 2]) == "columns have different numbers of rows: 'a' 1, 'b' 2"
    assert wrong(Schema(["a"]), a=[[1, 2]]) == "column 'a': expected one value a row, found shape (1, 2)"
    assert wrong(Schema(["a"]), a=[[1, 2], [3]]) == "a column is ragged: every row has one value"


def test_no_rows_are_an_error_and_so_is_a_condition_that_no_row_meets():
    assert wrong(Schema(["a"]), a=[]) == "there are no rows"
    assert wrong(Schema(["age"], where={"set": "final"}), **TABLE) == "none of the 4 rows is one where set is 'final'"


def test_a_fill_stands_where_nothing_is_and_only_there():
    schema = Schema([Column("a", fill=7.0), Column("k", "category", of=["x", "y"], fill="y")])
    assert schema.columns({"a": [1, None, np.nan], "k": ["x", None, ""]})["x"].tolist() == [[1, 0], [7, 1], [7, 1]]
    assert "a text in 1 of 2 rows" in wrong(Schema([Column("a", fill=7.0)]), a=[1, "n.d."])


def test_decimals_truths_and_codes_with_gaps_are_what_they_mean():
    table = {"d": [Decimal("1.5"), Decimal(2)], "t": np.array([True, False]), "c": np.array([1.0, 2.0])}
    schema = Schema(["d", "t", Column("c", "category", of=["2", "1"])])
    assert schema.columns(table)["x"].tolist() == [[1.5, 1, 1], [2, 0, 0]]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Schema("age"), "x is a list of columns"),
        (lambda: Schema([]), "at least one column"),
        (lambda: Schema([1]), "not a int"),
        (lambda: Schema(["a"], "a"), "one is named twice"),
        (lambda: Schema(["a"], also=["x"]), "x and y are taken"),
        (lambda: Schema(["a"], Column("k", "indicators", of=["p"])), "y is the name of a column"),
        (lambda: Schema(["a"], "y", classes=1), "at least 2, not 1"),
        (lambda: Schema(["a"], classes=2), "y is the name"),
        (lambda: Schema(["a"], Column("y", "category", of=["p", "q"]), classes=3), "not 3 classes"),
        (lambda: Schema(["a"], where="train"), "where has a text or a number"),
        (lambda: Schema(["a"], where={"set": None}), "where has a text or a number"),
        (lambda: Schema(["a"], standardize=([0.0, 1.0], [1.0, 1.0])), "not 2 and 2"),
        (lambda: Schema(["a"], standardize=([0.0], [0.0])), "deviations are over 0"),
        (lambda: Schema(["a"], standardize=3), "1 numbers each"),
        (lambda: Column(""), "a column has a name"),
        (lambda: Column("a", "text"), "not 'text'"),
        (lambda: Column("a", "category"), "has the texts that it may hold"),
        (lambda: Column("a", "category", of="xy"), "has the texts that it may hold"),
        (lambda: Column("a", "category", of=["x", "x"]), "different ones"),
        (lambda: Column("a", "category", of=["x"], least=1), "least and most are of numbers"),
        (lambda: Column("a", "category", of=["x"], fill="y"), "fill is one of the texts"),
        (lambda: Column("a", of=["x"]), "of has the texts of a category"),
        (lambda: Column("a", least=2, most=1), "least is at most most"),
        (lambda: Column("a", fill="x"), "fill of column 'a' is a number"),
    ],
)
def test_a_schema_that_cannot_be_is_told(build, message):
    with pytest.raises(SettingError, match=message):
        build()


def plan(**settings):
    return shoal.Plan(shoal.FedAvg(shoal.models.logistic(2)), rounds=3, cohort=2, **settings)


SCHEMA = Schema(
    ["age", Column("sex", "category", of=["f", "m"])], "ill", classes=2, where={"set": "train"},
    standardize=([50.0, 0.5], [10.0, 0.5]),
)  # fmt: skip


def test_a_plan_without_a_schema_has_the_digest_that_it_always_had():
    assert "data" not in plan().describe()
    assert plan().digest() == "5e167be649e1ce63ac88dab6b4854047f0125766e5b5992930de59592e3744df"


def test_a_schema_is_in_the_plans_digest_and_in_what_it_prints():
    made = plan(data=SCHEMA)
    assert made.digest() not in (plan().digest(), plan(data=Schema(["age", "sex"], "ill")).digest())
    assert made.digest() == plan(data=SCHEMA).digest()
    assert str(made).split("vector")[0].splitlines()[-3:] == [
        "data        x: age, sex (one of 'f', 'm'); standardised",
        "            y: ill (whole numbers from 0 to 1)",
        "            rows where set is 'train'",
    ]
    assert hash(SCHEMA) == hash(
        Schema(*(SCHEMA.x, SCHEMA.y), where=SCHEMA.where, classes=2, standardize=SCHEMA.standardize)
    )


def test_a_plan_with_a_schema_is_made_again_from_what_is_sent():
    also = Schema(["a"], Column("y", "category", of=["p", "q"]), also=[Column("b", least=0, fill=1)], where={"b": 1})
    for schema in (SCHEMA, also):
        assert rebuilt(plan_bytes(plan(data=schema))) == plan(data=schema)


def test_data_of_a_plan_are_a_schema():
    with pytest.raises(SettingError, match=r"data is a Schema.*not a dict"):
        plan(data={"x": ["age"]})
