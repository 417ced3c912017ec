"""CSV and Parquet files as populations: beside pandas, streamed into a folder, and every file that cannot be used."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import shoal
from shoal.data import files
from shoal.errors import DataError, SettingError

READERS = ["read_csv", "read_parquet", "store_csv", "store_parquet"]


def frame(rows=40, seed=0):
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": random.integers(20, 90, rows),
            "ward": random.choice(["north", "b", "10", "9"], rows),
            "dose": random.normal(size=rows),
            "smokes": random.random(rows) < 0.5,
            "ill": random.integers(0, 2, rows),
        }
    )


def read(reader, table, folder, **settings):
    """The population that a reader makes of a frame, written to a file first."""
    path = folder / "table"
    if reader.endswith("csv"):
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path, index=False, row_group_size=7)
    target = (folder / "store",) if reader.startswith("store") else ()
    return getattr(shoal, reader)(path, *target, **{"client": "ward", "label": "ill", **settings})


def assert_same(found, wanted):
    assert found.names == wanted.names
    assert found.counts.tolist() == wanted.counts.tolist()
    assert found.usable.tolist() == wanted.usable.tolist()
    assert list(found.columns) == list(wanted.columns)
    for name, column in wanted.columns.items():
        assert found.columns[name].dtype == column.dtype
        np.testing.assert_array_equal(found.columns[name], column)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("features", [None, ["dose", "age"]])
def test_a_file_is_the_population_of_its_frame(reader, features, tmp_path):
    table = frame()
    wanted = shoal.Population.from_frame(table, client="ward", label="ill", features=features)
    assert_same(read(reader, table, tmp_path, features=features), wanted)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("clients", [[3, 20, 100, -1], [1, 1, 1, 1]])
def test_clients_that_are_numbers_are_in_the_order_of_numbers(reader, clients, tmp_path):
    table = frame().assign(ward=np.resize(clients, 40))
    assert_same(read(reader, table, tmp_path), shoal.Population.from_frame(table, client="ward", label="ill"))


@pytest.mark.parametrize("reader", READERS)
def test_missing_numbers_make_a_client_unusable_and_a_label_a_float(reader, tmp_path):
    table = frame().astype({"ill": float})
    table.loc[5, "age"] = table.loc[9, "ill"] = np.nan
    found = read(reader, table, tmp_path)
    assert_same(found, shoal.Population.from_frame(table, client="ward", label="ill"))
    assert found.columns["y"].dtype == np.float64
    assert sorted(n for n, fine in zip(found, found.usable, strict=True) if not fine) == sorted(
        {table.ward[5], table.ward[9]}
    )


@pytest.mark.parametrize("reader", READERS)
def test_rows_without_a_label_are_a_population_without_y(reader, tmp_path):
    found = read(reader, frame().drop(columns="ill"), tmp_path, label=None)
    assert list(found.columns) == ["x"]


@pytest.mark.parametrize("reader", READERS)
def test_a_file_with_one_row_is_a_client_with_one_row(reader, tmp_path):
    found = read(reader, frame(1), tmp_path)
    assert (len(found), found.counts.tolist()) == (1, [1])
    np.testing.assert_array_equal(found.columns["x"][0], frame(1)[["age", "dose", "smokes"]].to_numpy(float)[0])


@pytest.mark.parametrize("reader", READERS)
def test_texts_become_the_places_of_their_categories(reader, tmp_path):
    kinds = ["typical", "none", "odd"]
    table = frame().assign(pain=np.resize([*kinds, None], 40), ill=np.resize(["no", "yes"], 40))
    found = read(reader, table, tmp_path, features=["pain"], categories={"pain": kinds, "ill": ["no", "yes"]})
    order = np.argsort(table.ward, kind="stable")
    wanted = table.pain.map({kind: place for place, kind in enumerate(kinds)}).to_numpy(float)[order]
    np.testing.assert_array_equal(found.columns["x"][:, 0], wanted)
    assert found.columns["y"].dtype == np.int64
    assert found.columns["y"].tolist() == (table.ill == "yes").to_numpy(int)[order].tolist()


@pytest.mark.parametrize("clients", [1, 7, 90_000])
@pytest.mark.parametrize("kind", ["mixed", "sorted", "sorted by row group"])
def test_however_clients_and_batches_interleave_a_store_is_what_from_arrays_makes(clients, kind, tmp_path, random):
    rows = np.arange(3 * files.BATCH // 2)
    owners = random.integers(0, clients, len(rows))
    if kind != "mixed":
        owners = np.sort(owners.reshape(-1, 2048 if kind == "sorted by row group" else len(rows)), axis=1).ravel()
    pq.write_table(pa.table({"a": rows, "b": -rows, "who": owners}), tmp_path / "t", row_group_size=20_000)
    found = shoal.store_parquet(tmp_path / "t", tmp_path / "s", client="who", label="b")
    assert_same(found, shoal.Population.from_arrays(rows[:, None].astype(float), -rows, groups=owners))


def test_a_csv_whose_later_rows_have_fractions_keeps_them(tmp_path):
    lines = "".join(f"a,{n},{n}\n" for n in range(600_000)) + "a,0.5,0.25\n"
    (tmp_path / "t.csv").write_text("who,x,ill\n" + lines)
    found = shoal.read_csv(tmp_path / "t.csv", client="who", label="ill")
    assert found.columns["x"][-1, 0] == 0.5
    assert found.columns["y"][-1] == 0.25


def test_a_csv_may_have_another_delimiter_and_its_clients_keep_their_spelling(tmp_path):
    (tmp_path / "t.csv").write_text('who;age\n007;1\n"7";2\nNA;3\n')
    found = shoal.read_csv(tmp_path / "t.csv", client="who", delimiter=";")
    assert found.names == ("007", "7", "NA")


KINDS = {name: partial(np.array, dtype=name) for name in ("int8", "uint16", "float16", "float32", "bool")} | {
    "decimal": lambda values: [Decimal(value) for value in values]
}


@pytest.mark.parametrize("kind", KINDS)
def test_parquet_columns_of_every_kind_of_number_are_read(kind, tmp_path):
    values = pa.array(KINDS[kind]([1, 0, 1]))
    pq.write_table(pa.table({"who": ["a", "b", "a"], "v": values}), tmp_path / "t")
    found = shoal.read_parquet(tmp_path / "t", client="who")
    assert found.columns["x"].tolist() == [[1.0], [1.0], [0.0]]


def test_categorical_columns_of_pandas_are_texts(tmp_path):
    table = frame().assign(ward=lambda t: t.ward.astype("category"), pain=pd.Categorical(["x", "y"] * 20))
    table["ward"] = table.ward.cat.add_categories("nobody")
    found = read("read_parquet", table, tmp_path, features=["pain"], categories={"pain": ["y", "x"]})
    assert found.names == ("10", "9", "b", "north")
    assert set(found.columns["x"].ravel()) == {0, 1}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({}, {"client": "wrad"}, "no column 'wrad'; there are age, ward, dose, smokes, ill; is 'ward' meant?"),
        ({}, {"label": "sick"}, "no column 'sick'"),
        ({}, {"features": ["age", "dosis"]}, "no column 'dosis'; .*is 'dose' meant"),
        ({}, {"features": []}, "no feature"),
        ({}, {"features": ["ill"]}, "one of them is named twice"),
        ({"dose": ["word"] * 40}, {}, r"features are numbers, and 'dose' are not \(found: .*string\).*shoal.one_hot"),
        ({"ill": ["word"] * 40}, {}, r"labels are numbers, and 'ill' is not \(found: .*string\)"),
        ({"dose": pd.to_datetime(["2020-01-01"] * 40)}, {}, r"'dose' are not \(found: (timestamp|date32)"),
        ({"ward": ["a", None] * 20}, {}, "column 'ward' of .* every row needs a client"),
        ({"dose": ["word"] * 40}, {"categories": {"dose": ["other"]}}, "'dose' holds texts that are not among its 1"),
        ({}, {"categories": {"dose": []}}, "categories of column 'dose' are a list"),
        ({}, {"categories": {"dose": ["a", "a"]}}, "a list of different texts"),
        ({}, {"categories": {"dosis": ["a"]}}, "no column 'dosis'"),
    ],
)
def test_columns_that_cannot_be_used_are_refused_and_nothing_is_left(reader, change, settings, message, tmp_path):
    table = frame().assign(**change)
    with pytest.raises(DataError, match=message) as caught:
        read(reader, table, tmp_path, **settings)
    assert "word" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


BAD_FILES = {
    "nothing": (b"", "is empty"),
    "a header only": (b"ward,age,ill\n", "has no rows"),
    "only newlines": (b"\n\n", "is no CSV file that can be read"),
    "ragged rows": (b"ward,age,ill\na,1,0\na,1\n", "rows have different numbers of columns"),
    "two columns of a name": (b"ward,age,age\na,1,2\n", "same name"),
    "bytes": (bytes(range(128, 256)) * 9, "no CSV file|there is no column|not in UTF-8"),
    "clients in Latin-1": ("ward,age,ill\nK\xf6ln,1,0\n".encode("latin-1"), "is not in UTF-8"),
    "a later row in Latin-1": (b"ward,age,ill\n" + b"a,1,0\n" * 10**6 + b"K\xf6ln,1,0\n", "is not in UTF-8"),
    "names in Latin-1": ("ward,Gr\xf6\xdfe,ill\na,1,0\n".encode("latin-1"), "is not in UTF-8"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_csv_file_that_cannot_be_read_is_refused(case, tmp_path):
    content, message = BAD_FILES[case]
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        shoal.read_csv(tmp_path / "t.csv", client="ward", label="ill")


@pytest.mark.parametrize("delimiter", ["", ";;", None, "\n"])
def test_a_delimiter_is_one_character(delimiter, tmp_path):
    (tmp_path / "t.csv").write_text("ward,age\na,1\n")
    with pytest.raises(SettingError, match="a delimiter is one character"):
        shoal.read_csv(tmp_path / "t.csv", client="ward", delimiter=delimiter)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_word_among_numbers_is_refused_by_its_columns_name_and_not_quoted(tmp_path, threads, request):
    request.addfinalizer(partial(pa.set_cpu_count, pa.cpu_count()))
    pa.set_cpu_count(threads)
    (tmp_path / "t.csv").write_text("ward,age\n" + "a,1\n" * 2_000_000 + "a,Jane Doe\n")
    with pytest.raises(DataError, match="rows whose 'age' is no number, which the first rows are") as caught:
        shoal.read_csv(tmp_path / "t.csv", client="ward")
    assert "Jane" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("content", [b"PAR1 but no Parquet file", b"ward,age\na,1\n"])
@pytest.mark.parametrize("reader", ["read_parquet", "store_parquet"])
def test_a_file_that_is_not_parquet_is_refused(content, reader, tmp_path):
    (tmp_path / "t").write_bytes(content)
    target = (tmp_path / "s",) if reader == "store_parquet" else ()
    with pytest.raises(DataError, match="is no Parquet file that can be read"):
        getattr(shoal, reader)(tmp_path / "t", *target, client="ward")


def test_a_parquet_file_that_is_cut_off_or_damaged_is_refused(tmp_path):
    pq.write_table(
        pa.table({"who": ["a", "b"] * 5000, "v": np.random.default_rng(0).normal(size=10_000)}), tmp_path / "t"
    )
    whole = (tmp_path / "t").read_bytes()
    for damaged in (whole[:-20], whole[:4] + bytes(len(whole) - 3000) + whole[-2996:]):
        (tmp_path / "t").write_bytes(damaged)
        with pytest.raises(DataError, match="is no Parquet file that can be read"):
            shoal.store_parquet(tmp_path / "t", tmp_path / "s", client="who")
        assert [path.name for path in tmp_path.iterdir()] == ["t"]


@pytest.mark.parametrize("reader", READERS)
def test_a_path_without_a_file_is_refused(reader, tmp_path):
    target = (tmp_path / "s",) if reader.startswith("store") else ()
    with pytest.raises(DataError, match=r"there is no file .*missing"):
        getattr(shoal, reader)(tmp_path / "missing", *target, client="a")
    with pytest.raises(DataError, match="is a folder; a file is wanted"):
        getattr(shoal, reader)(tmp_path, *target, client="a")


def test_a_store_is_not_put_where_something_is(tmp_path):
    (tmp_path / "store").mkdir()
    with pytest.raises(DataError, match="exists already, and nothing is overwritten"):
        read("store_csv", frame(), tmp_path)


STREAM = """
import resource, sys
import pyarrow.parquet, shoal
from pathlib import Path
file, folder = map(Path, sys.argv[1:])
shoal.Population, shoal.store_parquet
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
population = shoal.store_parquet(file, folder, client="who", label="y")
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(after - before, len(population), int(population.offsets[-1]))
"""


def test_a_parquet_file_larger_than_the_memory_it_may_use_is_streamed(tmp_path):
    random = np.random.default_rng(0)
    block = random.normal(size=(50_000, 36))
    names = [*(f"x{n}" for n in range(35)), "y", "who"]
    types = pa.schema([(name, pa.int64() if name == "who" else pa.float64()) for name in names])
    with pq.ParquetWriter(tmp_path / "t", types, compression="none", use_dictionary=False) as out:
        sums = np.zeros(5000)
        for part in range(12):  # 600,000 rows
            who = np.sort(random.integers(0, 5000, len(block)))
            sums += np.bincount(who, block[:, 0] + part, 5000)
            out.write_table(pa.table([*(block + part).T, who], names=names))
    size_kb = (tmp_path / "t").stat().st_size / 1024
    done = subprocess.run(
        [sys.executable, "-c", STREAM, tmp_path / "t", tmp_path / "s"], capture_output=True, text=True, check=True
    )
    grown_kb, clients, rows = map(int, done.stdout.split())
    assert (clients, rows) == (5000, 600_000)
    assert size_kb > 150_000
    assert grown_kb < size_kb / 2
    found = shoal.open_population(tmp_path / "s")
    np.testing.assert_allclose(
        np.add.reduceat(found.columns["x"][:, 0], found.offsets[:-1]), sums, rtol=1e-9, atol=1e-6
    )
