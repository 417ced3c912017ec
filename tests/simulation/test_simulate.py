"""What a person sees of `simulate`: results, histories, and sentences for mistakes."""

from __future__ import annotations

import numpy as np
import optax
import pytest
from sklearn.linear_model import LogisticRegression

import shoal
from shoal import Clip, Gaussian, PlainSum, models
from shoal.errors import DataError, DivergedError, RejectedError, SettingError, UnsupportedError
from tests.conftest import classification, regression

LABELS = classification(sizes=(7, 3, 12, 5))
WORK = shoal.FedAvg(models.logistic(4), batch_size=4)
PLAN = shoal.Plan(WORK, rounds=7)


def spoiled(population, *clients, value=np.nan):
    x = population.columns["x"].copy()
    for client in clients:
        x[population[client].start, 0] = value
    return population.with_column("x", x)


def test_a_run_learns_and_tells_of_every_round():
    result = shoal.simulate(PLAN, LABELS, test=LABELS, every=3)
    assert [row["round"] for row in result.history] == list(range(1, 8))
    assert [row["round"] for row in result.history if "test accuracy" in row] == [3, 6, 7]
    assert all(row["clients"] == 4 and row["rejected"] == 0 and row["loss"] > 0 for row in result.history)
    assert result.history.rows[-1]["loss"] < result.history.rows[0]["loss"]
    assert result.evaluate(LABELS).pooled["accuracy"] == result.history.rows[-1]["test accuracy"]
    assert (result.predict(LABELS.columns["x"]) == LABELS.columns["y"]).mean() == pytest.approx(
        result.history.rows[-1]["test accuracy"]
    )


def test_a_function_of_the_state_is_a_test():
    result = shoal.simulate(PLAN, LABELS, test=lambda state: {"size": float(np.abs(state.vector).sum())}, every=7)
    assert result.history.rows[-1]["test size"] == pytest.approx(np.abs(result.vector).sum())


def test_a_run_starts_with_the_vector_that_is_given():
    first = shoal.simulate(PLAN, LABELS)
    again = shoal.simulate(shoal.Plan(WORK, rounds=1), LABELS, start=first.vector)
    assert again.history.rows[0]["loss"] < first.history.rows[0]["loss"]


@pytest.mark.parametrize("data", ["pairs", "columns", "examples"])
def test_a_dict_of_clients_is_a_population(data):
    given = {
        "pairs": {name: (LABELS[name].rows("x"), LABELS[name].rows("y")) for name in LABELS},
        "columns": {name: {c: LABELS[name].rows(c) for c in "xy"} for name in LABELS},
        "examples": {name: LABELS[name] for name in LABELS},
    }[data]
    assert shoal.simulate(PLAN, given).vector.tobytes() == shoal.simulate(PLAN, LABELS).vector.tobytes()


@pytest.mark.parametrize("runtime", ["compiled", "local"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_client_with_nan_is_rejected_counted_and_changes_nothing(runtime, value):
    result = shoal.simulate(PLAN, spoiled(LABELS, "c2", value=value), runtime=runtime)
    assert [(row["clients"], row["rejected"]) for row in result.history] == [(3, 1)] * 7
    without = shoal.simulate(PLAN, LABELS.without("c2"), runtime=runtime)
    np.testing.assert_allclose(result.vector, without.vector, rtol=1e-6)


def test_a_number_that_is_too_large_for_float32_rejects_its_client_and_no_neighbour():
    wide = LABELS.with_column("x", LABELS.columns["x"].astype(np.float64))
    result = shoal.simulate(PLAN, spoiled(wide, "c1", value=1e39))
    assert [(row["clients"], row["rejected"]) for row in result.history] == [(3, 1)] * 7


def test_a_client_whose_training_diverges_is_rejected_and_the_run_goes_on():
    population = regression()
    y = population.columns["y"].copy()
    y[population["c1"].start] = 3e38
    work = shoal.FedAvg(models.linear(4), client_optimizer=shoal.sgd(0.1), epochs=5)
    result = shoal.simulate(shoal.Plan(work, rounds=3), population.with_column("y", y))
    assert [row["rejected"] for row in result.history] == [1, 1, 1]
    assert np.isfinite(result.vector).all()
    assert all(np.isfinite(row["loss"]) for row in result.history)


def test_a_run_can_be_asked_to_stop_at_the_first_rejection():
    with pytest.raises(RejectedError, match=r"round 1: the contribution of 'c0', 'c2' is not finite"):
        shoal.simulate(PLAN, spoiled(LABELS, "c0", "c2"), on_reject="stop")


def test_rows_of_a_client_never_meet_its_neighbours_or_what_fills_up_a_batch():
    """A network that divides by the length of a row makes NaN of a row of zeros, and 0 * NaN is NaN."""
    import jax.numpy as jnp

    def unit(params, x):
        return (x / jnp.linalg.norm(x, axis=1, keepdims=True)) @ params["w"]

    model = models.from_functions(lambda key: {"w": jnp.zeros(4)}, unit, loss="squared_error")
    for order in ("given", "shuffled"):
        work = shoal.FedAvg(model, batch_size=4, order=order)
        result = shoal.simulate(shoal.Plan(work, rounds=2), regression(sizes=(5, 3, 7)))
        assert [row["rejected"] for row in result.history] == [0, 0]


@pytest.mark.parametrize("runtime", ["compiled", "local"])
def test_an_empty_cohort_is_a_round_that_only_noise_can_change(runtime):
    plain = shoal.simulate(shoal.Plan(WORK, rounds=3, cohort=shoal.Poisson(1e-9)), LABELS, runtime=runtime)
    assert not plain.vector.any()
    assert [(row["clients"], row["released"]) for row in plain.history] == [(0, False)] * 3
    noised = shoal.FedAvg(models.logistic(4), aggregation=Clip(1.0) >> PlainSum() >> Gaussian(1.0, clients=4))
    result = shoal.simulate(shoal.Plan(noised, rounds=3, cohort=shoal.Poisson(1e-9)), LABELS, runtime=runtime)
    assert np.all(result.vector != 0)
    assert all("released" not in row for row in result.history)


@pytest.mark.parametrize("runtime", ["compiled", "local"])
def test_a_secure_sum_of_too_few_releases_nothing_and_forgets_nothing(runtime):
    chain = shoal.Remember(shoal.TopK(0.2)) >> Clip(1.0) >> shoal.Quantize(1e-4) >> shoal.SecureSum(4) >> shoal.Mean()
    plan = shoal.Plan(shoal.FedAvg(models.logistic(4), aggregation=chain), rounds=2)
    result = shoal.simulate(plan, spoiled(LABELS, "c2"), runtime=runtime)
    assert not result.vector.any()
    assert [row["released"] for row in result.history] == [False, False]


def test_schedules_go_by_rounds_also_when_rounds_change_nothing():
    stopped = shoal.schedules.piecewise(1.0, factors={3: 1e-30})
    work = shoal.FedAvg(models.logistic(4), client_optimizer=shoal.sgd(stopped))
    plan = shoal.Plan(work, rounds=30, cohort=shoal.Poisson(0.1))
    result = shoal.simulate(plan, LABELS, seed=1, test=size, every=1)
    clients, sizes = result.history.column("clients"), result.history.column("test size")
    assert sum(clients[:3]) > 0
    assert 0 in clients[:3], "a round that changes nothing counts too"
    assert sum(clients[3:]) > 5
    assert sizes[-1] == sizes[2] > 0


def size(state):
    return {"size": float(np.abs(state.vector).sum())}


def test_a_model_that_is_not_finite_any_more_ends_the_run_with_a_sentence():
    work = shoal.FedAvg(models.logistic(4), client_optimizer=shoal.sgd(100.0), server_optimizer=shoal.sgd(3e38))
    with pytest.raises(DivergedError, match="the model is not finite any more"):
        shoal.simulate(shoal.Plan(work, rounds=50), LABELS)


def test_a_test_clients_nan_is_left_out_and_named():
    result = shoal.simulate(PLAN, LABELS, test=spoiled(LABELS, "c1"), every=7)
    found = result.evaluate(spoiled(LABELS, "c1"))
    assert found.rejected == ("c1",)
    assert found.pooled == result.evaluate(LABELS.without("c1")).pooled
    assert result.history.rows[-1]["test accuracy"] == found.pooled["accuracy"]


X, Y = LABELS.columns["x"], LABELS.columns["y"]
SECURE = shoal.Plan(
    shoal.FedAvg(
        models.logistic(4), aggregation=Clip(1.0) >> shoal.Quantize(0.1) >> shoal.SecureSum(9) >> shoal.Mean()
    ),
    rounds=1,
)
GROUPS = np.repeat(LABELS.names, LABELS.counts)


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        (lambda: shoal.simulate(shoal.Plan(WORK, rounds=1, cohort=9), LABELS), SettingError, "larger than the populat"),
        (lambda: shoal.simulate(SECURE, LABELS), SettingError, r"SecureSum\(threshold=9\) would never be released"),
        (lambda: shoal.Plan(WORK, rounds=0), SettingError, "at least one round, not 0"),
        (lambda: shoal.Plan(WORK, rounds=2.5), SettingError, "at least one round, not 2.5"),
        (lambda: shoal.Plan(WORK, rounds=1, cohort="all"), SettingError, "None for everyone, not 'all'"),
        (lambda: shoal.Plan(models.logistic(4), rounds=1), SettingError, "begins with an algorithm"),
        (lambda: shoal.simulate(WORK, LABELS), SettingError, r"write Plan\(FedAvg\(...\), rounds=...\)"),
        (lambda: shoal.simulate(PLAN, LABELS, every=0), SettingError, "every 1 or more rounds"),
        (lambda: shoal.simulate(PLAN, LABELS, seed=1.5), SettingError, "a seed is a whole number"),
        (lambda: shoal.simulate(PLAN, LABELS, save_every_s="3"), SettingError, "every 0 or more seconds"),
        (lambda: shoal.simulate(PLAN, LABELS, test=lambda state: 0.5, every=7), SettingError, "numbers by name"),
        (lambda: shoal.adam(0.1, b1="3"), SettingError, "b1 of adam is a number"),
        (lambda: shoal.schedules.linear(0.1, rounds=3, final="3"), SettingError, "ends at 0 or more"),
        (lambda: LABELS.split_clients("0.2"), SettingError, "over 0 and under 1, not '0.2'"),
        (lambda: LABELS.split_clients(0.5, seed=None), SettingError, "a seed is a whole number"),
        (lambda: shoal.Population.from_clients([(X, Y)]), DataError, "in a dict of clients"),
        (lambda: shoal.simulate(PLAN, LABELS, on_reject="raise"), SettingError, "'count' or 'stop'"),
        (lambda: shoal.simulate(PLAN, LABELS, runtime="fast"), SettingError, "'auto', 'compiled' or 'local'"),
        (lambda: shoal.simulate(PLAN, LABELS, progress="yes"), SettingError, "'auto' or 'off'"),
        (lambda: shoal.simulate(PLAN, LABELS, test=(X, Y)), SettingError, "a population or a function"),
        (lambda: shoal.simulate(PLAN, LABELS, start=np.ones(3)), SettingError, "starts with a vector of 5 numbers"),
        (lambda: shoal.simulate(PLAN, LABELS, start=np.full(5, np.nan)), SettingError, "starts with finite numbers"),
        (lambda: shoal.simulate(PLAN, {}), DataError, "at least one client"),
        (lambda: shoal.simulate(PLAN, [X]), DataError, "a Population or a dict of clients, not a list"),
        (lambda: shoal.simulate(PLAN, {"a": (X[:0], Y[:0])}), DataError, "client 'a' has no examples"),
        (lambda: shoal.simulate(PLAN, {"a": (X, Y), "b": (X[:, :2], Y)}), DataError, "those of client 'a'"),
        (lambda: shoal.simulate(PLAN, LABELS.with_column("y", Y + 5)), DataError, "labels are whole numbers from 0"),
        (lambda: shoal.simulate(PLAN, LABELS.with_column("x", X[:, :2])), DataError, "which this network does not"),
        (lambda: shoal.simulate(PLAN, shoal.Population.from_arrays(X, groups=GROUPS)), DataError, "no column 'y'"),
        (lambda: shoal.simulate(PLAN, LABELS, test=LABELS.with_column("y", Y + 5)), DataError, "labels are whole"),
        (lambda: shoal.simulate(PLAN, spoiled(LABELS, *LABELS)), DataError, "every client holds NaN or infinity"),
        (lambda: shoal.FedAvg(models.SklearnModel(LogisticRegression(), features=4)), UnsupportedError, "partial_fit"),
        (lambda: shoal.FedAvg(LogisticRegression()), SettingError, "SklearnModel"),
        (lambda: shoal.FedAvg(models.logistic(4), client_optimizer=optax.sgd(0.1)), SettingError, "shoal.sgd"),
        (lambda: shoal.FedAvg(models.logistic(4), server_optimizer=0.1), SettingError, "server_optimizer is one of"),
        (lambda: shoal.FedAvg(models.logistic(4), aggregation=shoal.mean), SettingError, "from the first step to a"),
        (lambda: shoal.FedAvg(models.logistic(4), aggregation=PlainSum()), SettingError, "from the first step to a"),
        (lambda: shoal.sgd(optax.cosine_decay_schedule(0.1, 5)), SettingError, "shoal.schedules.cosine"),
        (lambda: shoal.sgd(float("inf")), SettingError, "a learning rate is over 0 and finite"),
        (lambda: shoal.schedules.cosine(0.0, rounds=5), SettingError, "starts over 0"),
        (lambda: shoal.schedules.linear(1.0, rounds=0), SettingError, "at least one round"),
    ],
)  # fmt: skip
def test_a_mistake_gets_a_sentence_before_anything_runs(run, error, message):
    with pytest.raises(error, match=message):
        run()


def test_numbers_of_numpy_are_settings_too():
    plan = shoal.Plan(WORK, rounds=np.int64(2), cohort=np.int64(3))
    assert plan == shoal.Plan(WORK, rounds=2, cohort=3)
    assert shoal.Plan(WORK, rounds=1, cohort=np.float32(0.5)).cohort == shoal.Fraction(0.5)


def test_an_algorithm_without_a_model_has_no_vector_but_a_state():
    result = shoal.simulate(shoal.Plan(shoal.analytics.MeanAndVariance((4,)), rounds=1), LABELS)
    np.testing.assert_allclose(result.state.mean, X.mean(0), rtol=1e-6)
    with pytest.raises(SettingError, match="its result is in `state`"):
        result.vector  # noqa: B018
    with pytest.raises(SettingError, match="trains no model"):
        result.predict(X)
