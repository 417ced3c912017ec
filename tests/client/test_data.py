"""A site's data from real files, databases and functions, beside the arrays that they were made of."""

from __future__ import annotations

import sqlite3
import traceback
from decimal import Decimal

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import sqlalchemy

import shoal
from shoal import Column, Schema
from shoal.client.data import source
from shoal.errors import DataError, SettingError, ShoalError
from tests import postgres

ROWS = 500
RANDOM = np.random.default_rng(0)
AGE = RANDOM.integers(20, 90, ROWS)
DOSE = RANDOM.normal(size=ROWS).round(3)
PAIN = RANDOM.choice(["none", "typical", "odd"], ROWS).astype(object)
ILL = RANDOM.integers(0, 2, ROWS)
SET = RANDOM.choice(["train", "test"], ROWS).astype(object)
FRAME = pd.DataFrame({"name": "Ann", "age": AGE, "dose": DOSE, "pain": PAIN, "ill": ILL, "part": SET})
SELECT = "SELECT * FROM patients"

SCHEMA = Schema(
    ["dose", Column("age", "whole", least=0, most=120), Column("pain", "indicators", of=("none", "typical", "odd"))],
    "ill", classes=2, where={"part": "train"},
)  # fmt: skip


def plan(schema=SCHEMA):
    return shoal.Plan(shoal.FedAvg(shoal.models.logistic(5)), rounds=1, data=schema)


PLAIN = plan(None)


def expected():
    """What the schema makes of the frame, by NumPy."""
    columns = [DOSE, AGE, *[text == PAIN for text in ("none", "typical", "odd")]]
    held = SET == "train"
    return np.stack(columns, axis=1).astype(np.float32)[held], ILL[held].astype(np.int32)


def to_csv(frame, folder):
    frame.to_csv(folder / "data.csv", index=False)
    return source(folder / "data.csv")


def to_semicolons(frame, folder):
    frame.to_csv(folder / "data.csv", index=False, sep=";")
    return source(str(folder / "data.csv"), delimiter=";")


def to_tsv(frame, folder):
    frame.to_csv(folder / "data.tsv", index=False, sep="\t")
    return source(str(folder / "data.tsv"))


def to_parquet(frame, folder):
    frame.to_parquet(folder / "data.parquet", index=False, row_group_size=77)
    return source(str(folder / "data.parquet"))


def to_sqlite(frame, folder):
    engine = sqlalchemy.create_engine(f"sqlite:///{folder}/data.db")
    frame.to_sql("patients", engine, index=False)
    engine.dispose()
    return source(f"sqlite:///{folder}/data.db", query=SELECT)


def to_duckdb(frame, folder):
    with duckdb.connect(str(folder / "data.duckdb")) as connection:
        connection.register("frame", frame)
        connection.execute("CREATE TABLE patients AS SELECT * FROM frame")
    return source(f"duckdb:{folder}/data.duckdb", query=SELECT)


def to_duckdb_over_files(frame, folder):
    frame.to_parquet(folder / "data.parquet", index=False)
    return source("duckdb:", query=f"SELECT * FROM '{folder}/*.parquet'")


def to_function(frame, folder):
    return source(lambda: frame)


def to_polars_function(frame, folder):
    return source(lambda: pl.from_pandas(frame))


def to_dict_function(frame, folder):
    return source(lambda: {name: frame[name] for name in frame})


def to_file_of_python(frame, folder):
    frame.to_parquet(folder / "mine.parquet", index=False)
    (folder / "mine.py").write_text(
        "import pandas\nfrom pathlib import Path\n\n"
        "def load():\n    return pandas.read_parquet(Path(__file__).with_suffix('.parquet'))\n"
    )
    return source(f"{folder}/mine.py:load")


KINDS = [to_csv, to_semicolons, to_tsv, to_parquet, to_sqlite, to_duckdb, to_duckdb_over_files, to_function,
         to_polars_function, to_dict_function, to_file_of_python]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_gives_the_columns_of_the_plans_schema(kind, tmp_path):
    found = kind(FRAME, tmp_path).load(plan())
    x, y = expected()
    assert list(found) == ["x", "y"]
    np.testing.assert_array_equal(found["x"], x)
    np.testing.assert_array_equal(found["y"], y)
    assert (found["x"].dtype, found["y"].dtype) == (np.float32, np.int32)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_schema_columns_are_named_as_for_read_csv(kind, tmp_path):
    made = kind(FRAME, tmp_path)
    names = {"features": ("age", "pain", "dose"), "label": "ill", "categories": {"pain": ["odd", "none", "typical"]}}
    found = type(made)(made.place, **names).load(PLAIN)
    wanted = shoal.Population.from_frame(FRAME, client="name", **names)
    for name in ("x", "y"):
        np.testing.assert_array_equal(found[name], wanted.columns[name])
        assert found[name].dtype == wanted.columns[name].dtype


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dose": None}, "column 'dose': expected numbers, found nothing in"),
        ({"age": 121}, "column 'age': expected whole numbers from 0 to 120, found a number outside in"),
        ({"age": 44.25}, "column 'age': expected whole numbers from 0 to 120, found a fraction in"),
        (
            {"pain": "Ann"},
            "column 'pain': expected one of 'none', 'typical', 'odd', found a text that is none of them in",
        ),
        ({"pain": None}, "column 'pain': expected one of 'none', 'typical', 'odd', found nothing in"),
        ({"dose": "Ann"}, "column 'dose': expected numbers, found a text in"),
        ({"ill": 2}, "column 'ill': expected whole numbers from 0 to 1, found a number outside in"),
    ],
)
def test_a_bad_value_is_told_by_source_column_expected_and_found_and_never_shown(kind, change, said, tmp_path):
    frame = FRAME.astype(object).assign(part="train")
    for name, value in change.items():
        frame.loc[[3, 4, 5], name] = value
    if kind not in (to_function, to_dict_function):  # where types live in columns, not in values
        frame = pd.DataFrame({name: _as_stored(frame[name]) for name in frame})
    made = kind(frame, tmp_path)
    with pytest.raises(DataError) as caught:
        made.load(plan())
    message = str(caught.value)
    assert f"{made}: {said} 3 of 500 rows" in message
    assert "Ann" not in "".join(traceback.format_exception(caught.value))


def _as_stored(column):
    kinds = set(map(type, column.dropna()))
    if str in kinds:
        return column.map(lambda value: None if value is None else str(value)).astype("str")
    return column.astype(float) if float in kinds or column.isna().any() else column.astype(int)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_column_is_told_with_those_that_are_there(kind, tmp_path):
    made = kind(FRAME.rename(columns={"dose": "doses"}), tmp_path)
    with pytest.raises(DataError) as caught:
        made.load(plan())
    assert str(caught.value) == (
        f"{made}: there is no column 'dose'; there are name, age, doses, pain, ill, part; is 'doses' meant?"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_without_rows_is_told(kind, tmp_path):
    made = kind(FRAME.iloc[:0], tmp_path)
    with pytest.raises(DataError) as caught:
        made.load(plan())
    assert str(caught.value) == f"{made}: there are no rows"


def test_a_later_text_in_a_column_of_numbers_of_a_large_csv_file_is_told(tmp_path):
    lines = ["age,ill", *["61,1"] * 1_000_000, "Ann,1"]
    (tmp_path / "d.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"d.csv has rows whose 'age' is no number") as caught:
        source(tmp_path / "d.csv").load(plan(Schema(["age"], "ill")))
    assert "Ann" not in str(caught.value)


def test_nothing_is_read_before_it_is_loaded(tmp_path):
    def fail():
        raise AssertionError

    for given, query in ((tmp_path / "none.csv", None), (f"sqlite:///{tmp_path}/none.db", SELECT), (fail, None)):
        source(given, query=query)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "query", "said"),
    [
        ("none.csv", None, "there is no file none.csv"),
        ("none.parquet", None, "there is no file none.parquet"),
        ("sqlite:///none.db", SELECT, "sqlite:///none.db: there is no file none.db"),
        ("duckdb:none.db", SELECT, "duckdb:none.db: there is no file none.db"),
        ("none.py:load", None, "none.py:load: there is no file none.py"),
        ("math:load", None, "math:load: there is no function load in math"),
        ("there_is_no_such_module:load", None, "the function raised ModuleNotFoundError"),
    ],
)
def test_what_is_not_there_is_told_and_not_made(given, query, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=said):
        source(given, query=query).load(plan())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "settings", "said"),
    [
        ("table.xlsx", {}, 'data are a file.csv or file.parquet, the URL of a database or "duckdb:FILE"'),
        (3, {}, "this is none of them"),
        ("file.csv", {"query": SELECT}, "a query is for a database"),
        ("sqlite:///a.db", {}, "a database needs a query"),
        ("duckdb:a.db", {"query": " "}, "a database needs a query"),
        ("postgresql://me:hunter2@ho st:x/db", {"query": SELECT}, "this database's URL cannot be read"),
        ("a.csv", {"delimiter": ",,"}, "a delimiter is one character"),
    ],
)
def test_what_cannot_be_a_source_is_told(given, settings, said):
    with pytest.raises(SettingError, match=said) as caught:
        source(given, **settings)
    assert "hunter2" not in str(caught.value)


def test_names_beside_a_schema_are_told():
    with pytest.raises(SettingError, match="the plan's schema says which columns"):
        source("a.csv", label="ill").load(plan())


def test_a_query_changes_nothing(tmp_path):
    made = to_sqlite(FRAME, tmp_path)
    for query in ("DELETE FROM patients RETURNING *", "DROP TABLE patients", "CREATE TABLE t (a)"):
        with pytest.raises(DataError, match=r"did not answer the query|gives no rows"):
            source(f"sqlite:///{tmp_path}/data.db", query=query).load(plan())
    assert len(made.load(plan())["x"]) == (SET == "train").sum()
    to_duckdb(FRAME, tmp_path)
    with pytest.raises(DataError, match="did not answer the query"):
        source(f"duckdb:{tmp_path}/data.duckdb", query="DROP TABLE patients").load(plan())


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT * FROM patience", "patience"),
        ("SELECT doses FROM patients", "doses"),
        ("SELEKT 1", "SELEKT"),
        ("SELECT age, dose AS age FROM patients", "two columns of the query's answer have the same name"),
    ],
)
@pytest.mark.parametrize("kind", [to_sqlite, to_duckdb])
def test_a_query_that_is_wrong_is_told(kind, query, said, tmp_path):
    made = kind(FRAME, tmp_path)
    with pytest.raises(DataError, match=said):
        source(str(made), query=query).load(plan(Schema(["age"])))


def test_what_a_database_says_of_a_value_goes_no_further(tmp_path):
    made = to_duckdb(FRAME.assign(name="Ann"), tmp_path)
    with pytest.raises(DataError, match="ConversionException") as caught:
        source(str(made), query="SELECT CAST(name AS INTEGER) AS age FROM patients").load(plan(Schema(["age"])))
    assert "Ann" not in "".join(traceback.format_exception(caught.value))


def test_values_of_a_database_are_what_they_mean(tmp_path):
    with sqlite3.connect(tmp_path / "d.db") as connection:
        connection.execute("CREATE TABLE t (whole INTEGER, amount REAL, code INTEGER, y INTEGER)")
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", [(1, 2, None, 0), (2**40, 2.5, 7, 1)])
    connection.close()
    schema = Schema(["whole", "amount", Column("code", "category", of=["7", "8"], fill="8")], "y", classes=2)
    found = source(f"sqlite:///{tmp_path}/d.db", query="SELECT * FROM t").load(plan(schema))
    assert found["x"].tolist() == [[1, 2, 1], [2**40, 2.5, 0]]
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t AS SELECT 1.25::DECIMAL(9, 2) AS d, DATE '2020-01-01' AS day")
        assert connection.execute("SELECT d FROM t").fetchone() == (Decimal("1.25"),)
    query = "SELECT 1.25::DECIMAL(9, 2) AS d, DATE '2020-01-01' AS day"
    assert source("duckdb:", query=query).load(plan(Schema(["d"])))["x"].tolist() == [[1.25]]
    with pytest.raises(DataError, match="column 'day': expected numbers, found a date in 1 of 1 rows"):
        source("duckdb:", query=query).load(plan(Schema(["day"])))


def test_more_rows_than_one_part_has_come_in_order(tmp_path):
    query = "SELECT range AS n FROM range(40000)"
    found = source("duckdb:", query=query).load(plan(Schema(["n"])))
    np.testing.assert_array_equal(found["x"][:, 0], np.arange(40000))


def test_a_password_is_in_no_text_of_a_source_and_in_no_error():
    for url in ("postgresql://me:hunter2@127.0.0.1:1/db", "postgresql://127.0.0.1:1/db?password=hunter2",
                "nothing+such://me:hunter2@host/db"):  # fmt: skip
        made = source(url, query=SELECT)
        assert "hunter2" not in f"{made} {made!r}"
        with pytest.raises(DataError, match=r"db|host/db cannot be opened: ") as caught:
            made.load(plan())
        assert "hunter2" not in "".join(traceback.format_exception(caught.value)).replace(url, "")


@pytest.fixture(scope="module")
def database():
    if postgres.binaries() is None:
        pytest.skip("needs PostgreSQL's programs: install them, as .ci/run does")
    with postgres.running() as server:
        engine = sqlalchemy.create_engine(server.url().replace("postgresql:", "postgresql+psycopg:"))
        FRAME.to_sql("patients", engine, index=False)
        engine.dispose()
        yield server.url()


def test_a_postgresql_database_gives_the_same_columns_and_is_only_read(database):
    found = source(database, query="SELECT *, age::numeric AS exact FROM patients WHERE age % 1 = 0").load(plan())
    np.testing.assert_array_equal(found["x"], expected()[0])
    np.testing.assert_array_equal(found["y"], expected()[1])
    with pytest.raises(DataError, match=r"did not answer the query: \w+"):
        source(database, query="DELETE FROM patients RETURNING *").load(plan())
    with pytest.raises(DataError, match='relation "patience" does not exist'):
        source(database, query="SELECT * FROM patience").load(plan())
    with pytest.raises(DataError, match=r"InvalidTextRepresentation \(22P02\)") as caught:
        source(database, query="SELECT name::int AS age FROM patients").load(plan(Schema(["age"])))
    assert "Ann" not in "".join(traceback.format_exception(caught.value))
    assert len(source(database, query=SELECT).load(plan())["x"]) == (SET == "train").sum()


def test_a_function_may_give_x_and_y_in_the_schemas_order():
    x = np.stack([DOSE, AGE], axis=1)
    schema = Schema(["dose", Column("age", "whole", most=120)], "ill", classes=2)
    found = source(lambda: (x, ILL)).load(plan(schema))
    np.testing.assert_array_equal(found["x"], x.astype(np.float32))
    assert found["y"].dtype == np.int32
    with pytest.raises(DataError, match=r"expected rows of 2 columns in the schema's order, found shape \(500, 1\)"):
        source(lambda: (x[:, :1], ILL)).load(plan(schema))
    with pytest.raises(DataError, match="a dict of columns or a frame, so that the schema finds them by name"):
        source(lambda: (x, ILL)).load(plan())
    with pytest.raises(DataError, match="and not a str"):
        source(lambda: "rows").load(plan())


def test_without_a_schema_a_function_gives_what_the_algorithm_takes():
    x = RANDOM.normal(size=(4, 2, 2))
    assert source(lambda: (x, [0, 1, 0, 1])).load(PLAIN)["x"] is x
    table = {"x": x, "y": ILL[:4]}
    assert source(lambda: table).load(PLAIN) is table
    anything = object()
    assert source(lambda: anything).load(PLAIN) is anything
    frame = source(lambda: pa.table({"a": [1, 2], "b": [0.5, 0.25]}), label="a").load(PLAIN)
    assert (frame["x"].tolist(), frame["y"].tolist()) == ([[0.5], [0.25]], [1, 2])


def test_a_function_that_fails_is_told_without_what_it_said():
    def fails():
        raise RuntimeError("Ann")

    def knows():
        raise DataError("the ward is closed")

    with pytest.raises(DataError) as caught:
        source(fails).load(plan())
    assert str(caught.value) == "fails: the function raised RuntimeError"
    with pytest.raises(DataError, match="knows: the ward is closed"):
        source(knows).load(plan())


def test_a_file_of_python_may_import_what_lies_beside_it(tmp_path):
    (tmp_path / "beside_the_loader.py").write_text("TABLE = {'a': [1.0]}")
    (tmp_path / "mine.py").write_text("import beside_the_loader\ndef load():\n    return beside_the_loader.TABLE")
    assert source(f"{tmp_path}/mine.py:load").load(plan(Schema(["a"])))["x"].tolist() == [[1.0]]


def test_labels_that_are_texts_are_told(tmp_path):
    made = to_csv(FRAME, tmp_path)
    with pytest.raises(ShoalError, match="labels are numbers, and these are not"):
        source(str(made), features=["age"], label="pain").load(PLAIN)
    with pytest.raises(ShoalError, match=r"features are numbers, and 'pain' are not"):
        source(str(made), features=["pain"], label="ill").load(PLAIN)
