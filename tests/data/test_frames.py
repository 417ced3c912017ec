"""Frames of pandas and Polars and Tables of pyarrow make the same population, and mean the same by missing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import shoal
from shoal.errors import DataError

DATA = {
    "age": [40, 50, 60, 70],
    "site": ["b", "a", "b", "a"],
    "ill": [0, 1, 1, 0],
    "dose": [0.5, 1.5, 2.5, 3.5],
    "smokes": [True, False, True, True],
}
KINDS = {
    "pandas": pd.DataFrame,
    "pandas nullable": lambda data: pd.DataFrame(data).convert_dtypes(),
    "pandas on pyarrow": lambda data: pd.DataFrame(data).convert_dtypes(dtype_backend="pyarrow"),
    "polars": pl.DataFrame,
    "pyarrow": pa.table,
    "pyarrow batch": pa.RecordBatch.from_pydict,
}


def made(kind, data=DATA, **settings):
    return shoal.Population.from_frame(KINDS[kind](data), **{"client": "site", "label": "ill", **settings})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_frame_makes_the_same_population(kind):
    population = made(kind)
    assert population.names == ("a", "b")
    assert population.columns["x"].tolist() == [[50, 1.5, 0], [70, 3.5, 1], [40, 0.5, 1], [60, 2.5, 1]]
    assert population.columns["y"].tolist() == [1, 0, 0, 1]
    assert [c.dtype for c in population.columns.values()] == [np.float64, np.int64]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["age", "dose", "smokes"])
def test_a_missing_number_is_nan(kind, name):
    x = made(kind, DATA | {name: [DATA[name][0], None, *DATA[name][2:]]}, features=[name]).columns["x"]
    assert np.isnan(x[0, 0])
    assert x[1:, 0].tolist() == [DATA[name][row] for row in (3, 0, 2)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_label_makes_labels_floats_and_its_client_unusable(kind):
    population = made(kind, DATA | {"ill": [0, None, 1, 0]})
    assert population.columns["y"].dtype == np.float64
    assert population.usable.tolist() == [False, True]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clients", [["b", None, "b", "a"], [3, None, 3, 1]])
def test_a_row_without_a_client_is_refused(kind, clients):
    with pytest.raises(DataError, match="a group label is missing"):
        made(kind, DATA | {"site": clients})


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_coded_by_their_categories_and_missing_ones_are_nan(kind):
    words = {"word": ["x", "z", None, "x"], "ill": ["no", "yes", "yes", "no"]}
    population = made(kind, DATA | words, features=["word"], categories={"word": ["z", "x"], "ill": ["no", "yes"]})
    np.testing.assert_array_equal(population.columns["x"][:, 0], [0, 1, 1, np.nan])
    assert population.columns["y"].tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_that_is_no_category_is_refused_without_being_told(kind):
    with pytest.raises(DataError, match="not among its 2 categories, in 1 of 4 rows") as caught:
        made(kind, DATA | {"dose": ["x", "secret", "z", "x"]}, categories={"dose": ["x", "z"]})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_column_is_refused_by_name_and_pointed_to_one_hot(kind):
    with pytest.raises(DataError, match=r"features are numbers, and 'dose' are not .*categories=.*shoal.one_hot"):
        made(kind, DATA | {"dose": list("xyzx")})


def test_categorical_columns_and_decimals_are_read():
    table = pl.DataFrame(DATA).with_columns(
        pl.Series("word", ["x", "z", None, "x"], dtype=pl.Categorical), pl.col("dose").cast(pl.Decimal(5, 2))
    )
    population = shoal.Population.from_frame(
        table, client="site", label="ill", features=["word", "dose"], categories={"word": ["x", "z"]}
    )
    np.testing.assert_array_equal(population.columns["x"], [[1, 1.5], [0, 3.5], [0, 0.5], [np.nan, 2.5]])
    category = pd.DataFrame(DATA).astype({"site": "category"})
    assert shoal.Population.from_frame(category, client="site", label="ill").names == ("a", "b")


def test_a_category_may_be_spelt_like_a_missing_text():
    population = made(
        "pandas", DATA | {"dose": ["NA", "EU", "", "EU"]}, features=["dose"], categories={"dose": ["EU", "NA"]}
    )
    np.testing.assert_array_equal(population.columns["x"][:, 0], [0, 0, 1, np.nan])


def test_without_a_label_there_is_no_y():
    assert list(made("polars", {"site": ["a"], "age": [3]}, label=None).columns) == ["x"]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pl.DataFrame(DATA).lazy(), "collect"),
        ([1, 2], "a frame is one of pandas or Polars, or a pyarrow Table, not a list"),
        (pd.Series([1, 2]), "not a Series"),
        (np.zeros((2, 2)), "not a ndarray"),
        (pd.DataFrame([[1, "a", 2]], columns=["age", "site", "age"]), "the same name"),
    ],
)
def test_what_is_no_frame_is_refused(frame, message):
    with pytest.raises(DataError, match=message):
        shoal.Population.from_frame(frame, client="site")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": "age"}, r"features is a list of columns: write \['age'\]"),
        ({"categories": ["age"]}, r"categories is a dict, the texts that a column may hold by its name, not a list"),
    ],
)
def test_settings_of_another_form_are_told_what_is_wanted(settings, message):
    frame = pd.DataFrame({"site": ["a", "b"], "age": [1, 2]})
    with pytest.raises(DataError, match=message):
        shoal.Population.from_frame(frame, client="site", **settings)
