"""Clients that lie on disk, and clients that are loaded when they take part."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier

import shoal
from shoal import models
from shoal.errors import DataError, RejectedError
from tests.conftest import classification

RAGGED = classification(sizes=(7, 3, 12, 5, 1, 9, 4, 30))
PLAN = shoal.Plan(shoal.FedAvg(models.logistic(4), batch_size=4), rounds=12, cohort=3)
REMEMBERING = shoal.Plan(
    shoal.FedAvg(
        models.logistic(4),
        aggregation=shoal.Remember(shoal.TopK(0.4)) >> shoal.PlainSum() >> shoal.Mean(),
    ),
    rounds=9,
    cohort=3,
)
LARGE = shoal.Plan(shoal.FedAvg(models.mlp(4, hidden=(400, 300)), batch_size=4), rounds=3, cohort=5)


def mapped(population, folder):
    """The population with its columns in memory-mapped files."""
    columns = {}
    for name, column in population.columns.items():
        np.save(folder / f"{name}.npy", column)
        columns[name] = np.load(folder / f"{name}.npy", mmap_mode="r")
    return shoal.Population(population.names, columns, population.offsets)


def data_of(name):
    client = RAGGED[name]
    return client.rows("x"), client.rows("y")


LAZY = shoal.LazyPopulation(RAGGED.names, data_of)


# By these seeds gathered arrays grow once, by the first the longest client comes late: each size is compiled for.
@pytest.mark.parametrize(
    ("plan", "seed"), [(PLAN, 41), (REMEMBERING, 22), (LARGE, 22)], ids=["small", "remembering", "large"]
)
@pytest.mark.parametrize("runtime", ["auto", "local"])
def test_a_population_on_disk_and_a_lazy_one_train_the_same_model(plan, seed, runtime, tmp_path):
    on_disk = mapped(RAGGED, tmp_path)
    assert on_disk.mapped
    assert not RAGGED.mapped
    wanted = shoal.simulate(plan, RAGGED, seed=seed, runtime=runtime)
    for population in (on_disk, LAZY):
        found = shoal.simulate(plan, population, seed=seed, runtime=runtime)
        np.testing.assert_allclose(found.vector, wanted.vector, rtol=1e-5, atol=1e-6)
        assert found.history.column("clients") == wanted.history.column("clients")
        assert found.history.column("loss") == pytest.approx(wanted.history.column("loss"), rel=1e-4)


def test_a_lazy_population_of_scikit_learn_clients_trains_the_same_model():
    model = models.SklearnModel(SGDClassifier(loss="log_loss"), features=4, classes=(0, 1))
    plan = shoal.Plan(shoal.FedAvg(model), rounds=4, cohort=3)
    np.testing.assert_array_equal(shoal.simulate(plan, LAZY).vector, shoal.simulate(plan, RAGGED).vector)


def test_a_dict_of_functions_is_a_lazy_population():
    asked = []

    def loader(name):
        def load():
            asked.append(name)
            return data_of(name)

        return load

    plan = shoal.Plan(PLAN.algorithm, rounds=1, cohort=2)
    shoal.simulate(plan, {name: loader(name) for name in RAGGED})
    assert len(asked) == 2  # only those that took part


def failing(name):
    if name == "c2":
        raise FileNotFoundError("patients of Smith.csv")
    return data_of(name)


@pytest.mark.parametrize("runtime", ["auto", "local"])
@pytest.mark.parametrize("plan", [PLAN, LARGE], ids=["small", "large"])
def test_a_client_whose_loader_raises_is_rejected_and_the_round_goes_on(plan, runtime):
    everyone = shoal.Plan(plan.algorithm, rounds=3)
    found = shoal.simulate(everyone, shoal.LazyPopulation(RAGGED.names, failing), runtime=runtime)
    assert found.history.column("rejected") == [1, 1, 1]
    assert found.history.column("clients") == [7, 7, 7]
    assert found.failures == ("client 'c2' could not be loaded: its function raised FileNotFoundError",)
    without = shoal.simulate(everyone, RAGGED.without("c2"), runtime=runtime)
    np.testing.assert_allclose(found.vector, without.vector, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("runtime", ["auto", "local"])
def test_a_run_stops_at_a_loader_that_raises_if_asked(runtime):
    everyone = shoal.Plan(PLAN.algorithm, rounds=3)
    with pytest.raises(RejectedError, match=r"round 1: client 'c2' could not be loaded.*FileNotFoundError") as error:
        shoal.simulate(everyone, shoal.LazyPopulation(RAGGED.names, failing), on_reject="stop", runtime=runtime)
    assert "Smith" not in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ((np.zeros((2, 5), np.float32), np.zeros(2, np.int32)), "client 'c1'"),
        ((np.zeros((2, 4), np.float32), np.full(2, 7)), "client 'c1': labels are whole numbers from 0 to 1"),
        ((np.zeros((0, 4), np.float32), np.zeros(0, np.int32)), "client 'c1' has no examples"),
        ((np.zeros((2, 4), np.float32), ["ill", "well"]), "client 'c1': column 'y' holds"),
        (None, "client 'c1': data is an (x, y) pair"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("runtime", ["auto", "local"])
def test_a_lazy_client_with_unusable_data_is_rejected_by_name(wrong, sentence, runtime):
    population = shoal.LazyPopulation(RAGGED.names, lambda name: wrong if name == "c1" else data_of(name))
    found = shoal.simulate(shoal.Plan(PLAN.algorithm, rounds=2), population, runtime=runtime)
    assert found.history.column("rejected") == [1, 1]
    assert sentence in found.failures[0]


def test_a_lazy_client_that_holds_nan_is_rejected():
    def load(name):
        x, y = data_of(name)
        return (np.where(np.arange(len(x))[:, None] == 0, np.nan, x) if name == "c3" else x), y

    found = shoal.simulate(shoal.Plan(PLAN.algorithm, rounds=2), shoal.LazyPopulation(RAGGED.names, load))
    assert found.history.column("rejected") == [1, 1]
    assert not found.failures


def test_where_no_client_can_be_loaded_the_run_says_why():
    def load(name):
        raise PermissionError

    with pytest.raises(
        DataError, match=r"no client of the first cohort could be loaded.*: client 'c0'.*PermissionError"
    ):
        shoal.simulate(PLAN, shoal.LazyPopulation(["c0", "c1", "c2"], load))


@pytest.mark.parametrize("runtime", ["auto", "local"])
def test_a_run_goes_on_after_a_first_cohort_of_which_nobody_could_be_loaded(runtime):
    calls = []

    def load(name):
        calls.append(name)
        if len(calls) == 1:
            raise OSError
        x, y = data_of(name)
        return x.astype(np.float64), y

    plan = shoal.Plan(PLAN.algorithm, rounds=4, cohort=1)
    found = shoal.simulate(plan, shoal.LazyPopulation(RAGGED.names, load), runtime=runtime)
    assert found.history.column("clients") == [0, 1, 1, 1]
    assert found.history.column("rejected") == [1, 0, 0, 0]


@pytest.mark.parametrize("empty", [1, 3])
@pytest.mark.parametrize("runtime", ["auto", "local"])
def test_a_round_without_clients_changes_nothing_wherever_the_clients_lie(empty, runtime, tmp_path):
    nobody_once = shoal.Availability(online=lambda round, check: [] if round == empty else RAGGED.names, patience=1)
    wide = RAGGED.with_column("x", RAGGED.columns["x"].astype(np.float64))
    plan = shoal.Plan(PLAN.algorithm, rounds=4)
    wanted = shoal.simulate(plan, wide, availability=nobody_once, runtime=runtime)
    assert wanted.history.column("clients").count(0) == 1
    lazy = shoal.LazyPopulation(wide.names, lambda name: {n: wide[name].rows(n) for n in "xy"})
    for population in (mapped(wide, tmp_path), lazy):
        found = shoal.simulate(plan, population, availability=nobody_once, runtime=runtime)
        assert found.history.column("clients") == wanted.history.column("clients")
        np.testing.assert_allclose(found.vector, wanted.vector, rtol=1e-5, atol=1e-6)


def test_functions_by_names_that_are_no_texts_are_clients_too():
    by_number = {1: lambda: data_of("c0"), 2: lambda: data_of("c1")}
    assert shoal.simulate(shoal.Plan(PLAN.algorithm, rounds=1), by_number).history.column("clients") == [2]
    with pytest.raises(DataError, match="same name once it is a text"):
        shoal.LazyPopulation.of({1: list, "1": list})


def test_a_client_whose_data_cannot_be_read_as_arrays_is_rejected():
    class Tensor:
        def __array__(self, *args, **kwargs):
            raise RuntimeError("this tensor requires grad: 0.123")

    population = shoal.LazyPopulation(RAGGED.names, lambda name: (Tensor(), [1]) if name == "c1" else data_of(name))
    found = shoal.simulate(shoal.Plan(PLAN.algorithm, rounds=1), population)
    assert found.history.column("rejected") == [1]
    assert found.failures == ("client 'c1': what its function gives could not be read as arrays (RuntimeError)",)


def test_a_lazy_population_has_named_clients_and_a_function():
    with pytest.raises(DataError, match="at least one client"):
        shoal.LazyPopulation([], data_of)
    with pytest.raises(DataError, match="two clients have the same name"):
        shoal.LazyPopulation(["a", "a"], data_of)
    with pytest.raises(DataError, match="load is a function"):
        shoal.LazyPopulation(["a"], {"a": 1})
    with pytest.raises(DataError, match="no client 'b'"):
        shoal.LazyPopulation(["a"], data_of)["b"]
