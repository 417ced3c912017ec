"""Populations in folders: what was saved is opened, without reading the columns, and anything else is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import shoal
from shoal.data import mapped
from shoal.errors import DataError
from tests.conftest import classification


@pytest.fixture
def saved(tmp_path):
    shoal.save_population(classification(), tmp_path / "store")
    return tmp_path / "store"


@pytest.mark.parametrize("names", [("a", "b", "c"), ("ä \n\"'\\", "", "\0")])
def test_a_population_is_opened_as_it_was_saved(names, tmp_path, random):
    columns = {
        "x": random.normal(size=(9, 2, 3)).astype(np.float32),
        "a/../name": np.arange(9, dtype=np.uint8),
        "ok": random.random(9) < 0.5,
        "none": np.zeros((9, 0)),
    }
    columns["x"][4, 0, 1] = np.nan
    population = shoal.Population(names, columns, np.array([0, 2, 3, 9]))
    shoal.save_population(population, tmp_path / "store")
    opened = shoal.open_population(str(tmp_path / "store"))
    assert opened.names == names
    assert repr(opened) == repr(population)
    assert opened.usable.tolist() == [True, True, False]
    assert list(opened.columns) == list(columns)
    for name, column in columns.items():
        assert opened.columns[name].dtype == column.dtype
        np.testing.assert_array_equal(opened.columns[name], column)
        with pytest.raises(ValueError, match="read-only"):
            opened.columns[name][...] = 0
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_opened_columns_stay_on_disk_and_what_was_opened_can_be_saved_again(saved, tmp_path):
    opened = shoal.open_population(saved)
    assert all(mapped.memory_map(column) is not None for column in opened.columns.values())
    assert opened.mapped
    shoal.save_population(opened, tmp_path / "again")
    np.testing.assert_array_equal(shoal.open_population(tmp_path / "again").columns["x"], classification().columns["x"])


def test_an_opened_population_trains_as_the_one_in_memory(saved):
    plan = shoal.Plan(shoal.FedAvg(shoal.models.logistic(4), batch_size=4), rounds=2, cohort=shoal.Fixed(2))
    here, there = (shoal.simulate(plan, p, seed=1).vector for p in (classification(), shoal.open_population(saved)))
    np.testing.assert_allclose(here, there, rtol=1e-6)


def test_opening_reads_no_column(saved):
    for path in saved.glob("column-*.npy"):
        whole = path.read_bytes()
        start = len(whole) - classification().columns[["x", "y"][int(path.stem[-1])]].nbytes
        path.write_bytes(whole[:start] + b"\xff" * (len(whole) - start))  # every float is NaN now
    opened = shoal.open_population(saved)
    assert opened.usable.all()
    assert np.isnan(opened.columns["x"]).all()


MILLION = """
import resource, sys
import numpy as np, shoal
shoal.open_population, shoal.Population, shoal.simulate
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
population = shoal.open_population(sys.argv[1])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(after - before, len(population), population.at(999_999).rows("x")[0, 0])
"""


def test_a_million_clients_are_opened_in_little_memory(tmp_path):
    names = tuple(f"client {place}" for place in range(1_000_000))
    x = np.full((2_000_000, 4), 7, np.float32)
    shoal.save_population(shoal.Population(names, {"x": x}, np.arange(1_000_001) * 2), tmp_path / "store")
    done = subprocess.run(
        [sys.executable, "-c", MILLION, tmp_path / "store"], capture_output=True, text=True, check=True
    )
    grown_kb, clients, value = done.stdout.split()
    assert (clients, value) == ("1000000", "7.0")
    assert int(grown_kb) < 250_000


def change(name, edit):
    """Damage to one JSON file."""

    def damage(folder):
        about = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(edit(about)))

    return damage


def replace(name, array):
    return lambda folder: np.save(folder / name, array, allow_pickle=True)


def _archive(path):
    with path.open("wb") as file:
        np.savez(file, offsets=np.arange(5))


DAMAGE = {
    "no header": (lambda folder: (folder / "population.json").unlink(), "no population.json that can be read"),
    "not JSON": (lambda folder: (folder / "population.json").write_bytes(b"\xff{"), "no population.json that can be"),
    "something else": (change("population.json", lambda about: [about]), "is of something else"),
    "another format": (change("population.json", lambda about: about | {"format": "x"}), "is of something else"),
    "a later version": (change("population.json", lambda about: about | {"version": 2}), "version 2, and this Shoal"),
    "columns of no names": (change("population.json", lambda about: about | {"columns": 3}), "lists no columns"),
    "a column too many": (change("population.json", lambda about: about | {"columns": ["x", "y", "z"]}), "a file is"),
    "a name too many": (change("names.json", lambda names: [*names, "more"]), "how many clients there are"),
    "names that are none": (change("names.json", lambda names: [1, 2, 3, 4]), "how many clients there are"),
    "a name twice": (change("names.json", lambda names: [names[0]] * 4), "two clients have the same name"),
    "no names": (lambda folder: (folder / "names.json").unlink(), "a file is missing or damaged"),
    "no offsets": (lambda folder: (folder / "offsets.npy").unlink(), "a file is missing or damaged"),
    "offsets out of order": (replace("offsets.npy", np.array([0, 10, 7, 22, 27])), "do not follow each other"),
    "offsets in an archive": (lambda folder: _archive(folder / "offsets.npy"), "a file is missing or damaged"),
    "fewer offsets": (replace("offsets.npy", np.array([0, 27])), "do not follow each other"),
    "offsets of objects": (replace("offsets.npy", np.array([0, None], object)), "a file is missing or damaged"),
    "offsets that are no list": (replace("offsets.npy", np.array(3)), "do not follow each other"),
    "offsets with fractions": (replace("offsets.npy", np.array([0, 7, 10, 22, 27.0])), "how many clients there are"),
    "usable of another length": (replace("usable.npy", np.array([True])), "how many clients there are"),
    "a shorter column": (replace("column-0.npy", np.zeros((26, 4))), "a row for every example"),
    "a single value": (replace("column-0.npy", np.zeros(())), "a row for every example"),
    "a column of texts": (replace("column-0.npy", np.array(["a"] * 27)), "a file is missing or damaged"),
    "a column of objects": (replace("column-1.npy", np.array([None] * 27)), "a file is missing or damaged"),
    "a column cut off": (lambda f: (f / "column-0.npy").write_bytes((f / "column-0.npy").read_bytes()[:-9]), "damaged"),
    "an empty column": (lambda folder: (folder / "column-0.npy").write_bytes(b""), "a file is missing or damaged"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_folder_that_is_damaged_is_refused(kind, saved):
    damage, message = DAMAGE[kind]
    damage(saved)
    with pytest.raises(DataError, match=message):
        shoal.open_population(saved)


@pytest.mark.parametrize("path", ["missing", "file", "empty"])
def test_what_is_no_saved_population_is_refused(path, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"is no folder|no population.json"):
        shoal.open_population(tmp_path / path)


def test_nothing_is_overwritten_and_a_folder_is_needed_to_save_in(saved, tmp_path):
    for path in (saved, saved / "names.json"):
        with pytest.raises(DataError, match="exists already, and nothing is overwritten"):
            shoal.save_population(classification(), path)
    with pytest.raises(DataError, match="there is no folder"):
        shoal.save_population(classification(), tmp_path / "no" / "store")
    assert shoal.open_population(saved).names == classification().names


def test_where_saving_fails_nothing_is_left(tmp_path):
    class Full(np.ndarray):
        """A column on a disk that is full."""

        def tofile(self, *args):
            raise OSError(28, "No space left on device")

    columns = {"x": np.zeros((3, 1)), "y": np.zeros(3).view(Full)}
    with pytest.raises(DataError, match="cannot be written: No space left on device"):
        shoal.save_population(shoal.Population(("a",), columns, np.array([0, 3])), tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_a_streamed_file_that_outgrows_the_disk_leaves_nothing(tmp_path):
    (tmp_path / "t.csv").write_text("who,v\n" + "a,1\n" * 100_000)
    program = """
import resource, signal, sys
import pyarrow.csv, shoal
from shoal.errors import DataError
shoal.store_csv
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
try:
    shoal.store_csv(sys.argv[1], sys.argv[2], client="who")
except DataError as error:
    print(error)
"""
    command = [sys.executable, "-c", program, tmp_path / "t.csv", tmp_path / "store"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "store cannot be written: File too large" in said
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
