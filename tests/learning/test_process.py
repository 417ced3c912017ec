"""Learning processes compute what NumPy computes, and what a simulation of the same cohorts does."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import shoal
from shoal import learning
from shoal.errors import DataError, SettingError, UnsupportedError
from shoal.learning.rounds import rounded
from tests.conftest import classification, regression

RATE = 0.1


def gradient(vector, x, y):
    """The mean gradient of (x @ w + b - y)^2 / 2, with the bias first as in the layout."""
    error = x @ vector[1:] + vector[0] - y
    return np.concatenate([[error.mean()], x.T @ error / len(x)])


def datasets(population):
    return [(population[name].rows("x"), population[name].rows("y")) for name in population]


def means(population, weights, vector, step):
    """The weighted mean of the clients' updates from a vector."""
    updates = [step(vector, x.astype(np.float64), y.astype(np.float64)) for x, y in datasets(population)]
    return np.average(updates, axis=0, weights=weights)


@pytest.fixture(scope="module")
def clients():
    return regression()


def linear():
    return shoal.models.linear(4)


def test_weighted_and_unweighted_averages_are_those_of_numpy(clients):
    def step(vector, x, y):
        return -RATE * gradient(vector, x, y)

    for build, weights in (
        (learning.build_weighted_fed_avg, clients.counts),
        (learning.build_unweighted_fed_avg, np.ones(len(clients))),
    ):
        process = build(linear, lambda: shoal.sgd(RATE), batch_size="all")
        state, vector = process.initialize(), np.zeros(5)
        for _ in range(2):
            state, metrics = process.next(state, datasets(clients))
            vector = vector + means(clients, weights, vector, step)
        assert np.allclose(process.get_model_weights(state), vector, atol=1e-6)
        assert metrics["client_work"]["train"]["num_examples"] == clients.counts.sum()


def test_fed_prox_pulls_towards_the_model_that_was_sent(clients):
    def twice(vector, x, y):
        now = vector - RATE * gradient(vector, x, y)
        now = now - RATE * (gradient(now, x, y) + 0.5 * (now - vector))
        return now - vector

    for build, weights in (
        (learning.build_weighted_fed_prox, clients.counts),
        (learning.build_unweighted_fed_prox, np.ones(len(clients))),
    ):
        process = build(linear, 0.5, shoal.sgd(RATE), batch_size="all", epochs=2)
        state = process.next(process.initialize(), clients).state
        assert np.allclose(process.get_model_weights(state), means(clients, weights, np.zeros(5), twice), atol=1e-6)


def test_fed_sgd_is_a_gradient_step_on_the_pooled_rows(clients):
    process = learning.build_fed_sgd(linear, lambda: shoal.sgd(0.3))
    start = np.arange(5.0) / 5
    state = process.next(process.set_model_weights(process.initialize(), start), datasets(clients)).state
    x, y = (clients.columns[name].astype(np.float64) for name in "xy")
    assert np.allclose(state.global_model_weights, start - 0.3 * gradient(start, x, y), atol=1e-6)


def test_the_servers_optimizer_takes_the_mean_update_as_its_gradient(clients):
    process = learning.build_weighted_fed_avg(linear, shoal.sgd(RATE), shoal.sgd(0.5), batch_size="all")
    state = process.next(process.initialize(), clients).state
    step = means(clients, clients.counts, np.zeros(5), lambda v, x, y: -RATE * gradient(v, x, y))
    assert np.allclose(state.global_model_weights, 0.5 * step, atol=1e-6)


def test_a_process_gives_what_a_simulation_with_the_same_seed_and_cohorts_gives():
    population = classification(sizes=(7, 3, 12, 5, 40, 33))
    model = shoal.models.logistic(4)
    process = learning.build_weighted_fed_avg(model, shoal.sgd(RATE), epochs=2, batch_size=4)
    state = process.initialize(seed=3)
    for _ in range(3):
        state = process.next(state, population).state
    plan = shoal.Plan(shoal.FedAvg(model, client_optimizer=shoal.sgd(RATE), epochs=2, batch_size=4), rounds=3)
    simulated = shoal.simulate(plan, population, seed=3)
    assert np.allclose(state.global_model_weights, simulated.vector, atol=1e-6)


def test_rounds_of_like_size_have_arrays_of_the_same_shapes_so_that_one_program_serves_them(clients):
    first = rounded(clients)
    for sizes in ((8, 3, 11, 5), (2, 9, 10, 3, 3, 2), (9, 9, 8, 4, 1)):
        other = rounded(regression(sizes=sizes))
        assert jax.tree.structure(other) == jax.tree.structure(first)
        assert jax.tree.map(np.shape, other) == jax.tree.map(np.shape, first)


def test_a_dataset_is_a_pair_or_columns_or_examples_and_the_same_client_by_any_of_them(clients):
    process = learning.build_weighted_fed_avg(linear, shoal.sgd(RATE), batch_size=2)
    state = process.initialize()
    pairs = datasets(clients)
    columns = [{"x": x, "y": y} for x, y in pairs]
    examples = [clients[name] for name in clients]
    named = {str(place): pair for place, pair in enumerate(pairs)}
    results = [process.next(state, given).state.global_model_weights for given in (pairs, columns, examples, named)]
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_a_state_is_a_value_to_go_on_from_twice(clients):
    process = learning.build_weighted_fed_avg(linear, shoal.sgd(RATE), batch_size=2)
    state = process.next(process.initialize(), clients).state
    before = state.global_model_weights.copy()
    first, second = (process.next(state, clients).state.global_model_weights for _ in range(2))
    assert np.array_equal(first, second)
    assert np.array_equal(state.global_model_weights, before)


def test_weights_that_were_set_come_back_and_other_shapes_are_refused(clients):
    process = learning.build_fed_sgd(linear)
    state = process.initialize()
    vector = np.arange(5, dtype=np.float32)
    named = {"bias": vector[:1], "weight": vector[1:].reshape(4, 1)}
    for weights in (vector, named):
        assert np.array_equal(process.get_model_weights(process.set_model_weights(state, weights)), vector)
    layers = [vector[1:].reshape(4, 1), vector[:1]]
    for wrong in (vector[1:], {"weight": vector}, np.full(5, np.nan), layers, ["a"] * 5, None):
        with pytest.raises(SettingError):
            process.set_model_weights(state, wrong)


def test_learning_rates_are_read_and_changed_between_rounds(clients):
    process = learning.build_weighted_fed_prox(linear, 0.0, shoal.sgd(RATE), shoal.sgd(1.0), batch_size="all")
    state = process.initialize()
    assert process.get_hparams(state) == {
        "client_work": {"learning_rate": RATE, "proximal_strength": 0.0}, "finalizer": {"learning_rate": 1.0},
    }  # fmt: skip
    other = process.set_hparams(state, {"client_work": {"learning_rate": 2 * RATE}})
    other = process.set_hparams(other, {"finalizer": {"learning_rate": 0.25}})
    assert process.get_hparams(other)["client_work"] == {"learning_rate": 2 * RATE, "proximal_strength": 0.0}
    usual, changed = (process.next(begin, clients).state.global_model_weights for begin in (state, other))
    assert np.allclose(changed, usual / 2, atol=1e-7)
    with pytest.raises(SettingError, match=r"no client_work momentum to set; there are client_work: learning_rate"):
        process.set_hparams(state, {"client_work": {"momentum": 0.9}})
    with pytest.raises(SettingError, match="numbers by name"):
        process.set_hparams(state, {"client_work": 0.1})
    with pytest.raises(SettingError, match="over 0"):
        process.set_hparams(state, {"client_work": {"learning_rate": -1.0}})


def test_a_client_that_holds_nan_is_counted_and_left_out(clients):
    process = learning.build_weighted_fed_avg(linear, shoal.sgd(RATE), batch_size="all")
    given = datasets(clients)
    bad = (np.full((3, 4), np.nan, np.float32), np.zeros(3, np.float32))
    with_bad, metrics = process.next(process.initialize(), [*given, bad])
    without = process.next(process.initialize(), given).state
    assert np.allclose(with_bad.global_model_weights, without.global_model_weights, atol=1e-7)
    assert metrics["aggregator"] == {"clients": 4, "rejected": 1, "released": True}
    assert metrics["finalizer"] == {"update_non_finite": 0}
    with pytest.raises(DataError, match="every client holds NaN"):
        process.next(process.initialize(), [bad])


def test_an_update_that_is_not_finite_changes_nothing(clients):
    process = learning.build_fed_sgd(linear, shoal.sgd(1e38))
    loud = [(x * 100, y) for x, y in datasets(clients)]
    state, metrics = process.next(process.initialize(), loud)
    assert metrics["finalizer"] == {"update_non_finite": 1}
    assert np.array_equal(state.global_model_weights, np.zeros(5))
    assert int(state.run.round) == 1


def test_evaluation_is_the_mean_over_the_pooled_rows(clients):
    process = learning.build_fed_eval(linear)
    vector = np.arange(5) / 5
    state = process.set_model_weights(process.initialize(), vector)
    few = clients.select(["c0", "c1"])
    state, first = process.next(state, datasets(few))
    after, second = process.next(state, clients)

    def loss(population):
        x, y = (population.columns[name].astype(np.float64) for name in "xy")
        return float((0.5 * (x @ vector[1:] + vector[0] - y) ** 2).mean())

    now, total = (second["client_work"]["eval"][name] for name in ("current_round_metrics", "total_rounds_metrics"))
    assert first["client_work"]["eval"]["current_round_metrics"]["loss"] == pytest.approx(loss(few), rel=1e-6)
    assert now["loss"] == pytest.approx(loss(clients), rel=1e-6)
    assert (now["num_examples"], total["num_examples"]) == (27, 37)
    assert total["loss"] == pytest.approx((loss(few) * 10 + loss(clients) * 27) / 37, rel=1e-6)
    assert np.array_equal(after.global_model_weights, vector.astype(np.float32))


def test_a_model_that_is_not_jax_goes_through_the_same_moves():
    from sklearn.linear_model import SGDClassifier

    population = classification(sizes=(30, 20))
    model = shoal.models.SklearnModel(SGDClassifier(loss="log_loss"), features=4, classes=(0, 1))
    process = learning.build_weighted_fed_avg(lambda: model, None)
    state = process.next(process.initialize(), population).state
    simulated = shoal.simulate(shoal.Plan(shoal.FedAvg(model), rounds=1), population)
    assert np.allclose(state.global_model_weights, simulated.vector, atol=1e-6)


def test_a_chain_takes_the_place_of_the_weighted_mean(clients):
    chain = shoal.AdaptiveClip(1e-3) >> shoal.PlainSum() >> shoal.Mean()
    process = learning.build_weighted_fed_avg(linear, shoal.sgd(RATE), aggregation=chain)
    state, first = process.next(process.initialize(), clients)
    assert 0 < np.linalg.norm(state.global_model_weights) <= 1e-3 * (1 + 1e-6)
    _, second = process.next(state, clients)
    norms = [metrics["aggregator"]["clipping norm"] for metrics in (first, second)]
    assert norms == pytest.approx([1e-3, 1e-3 * np.exp(0.2 * 0.5)]), "all were clipped in the first round"


def test_nonsense_gets_a_sentence(clients):
    process = learning.build_fed_sgd(linear)
    state = process.initialize()
    for given, said in (
        (3, "list of datasets"),
        ([], "at least one client"),
        (["abc"], "client '0'"),
        ([(np.zeros((2, 3)), np.zeros(2))], "does not take"),
    ):
        with pytest.raises(DataError, match=said):
            process.next(state, given)
    with pytest.raises(SettingError, match="a state is one"):
        process.next((state, {}), clients)
    with pytest.raises(SettingError, match="a state is one"):
        process.next(learning.build_fed_sgd(shoal.models.linear(3)).initialize(), clients)
    with pytest.raises(UnsupportedError, match="remembers each client"):
        chain = shoal.Remember(shoal.TopK(0.5)) >> shoal.PlainSum() >> shoal.Mean()
        learning.build_weighted_fed_avg(linear, shoal.sgd(RATE), aggregation=chain)


def test_models_and_optimizers_that_are_none_get_a_sentence():
    for model_fn, said in (
        (3, "model_fn is a function"),
        (lambda: 3, "model_fn gives a model"),
        (shoal.models.linear, "without arguments"),
        (None, "model_fn is a function"),
    ):
        with pytest.raises(SettingError, match=said):
            learning.build_fed_sgd(model_fn)
    with pytest.raises(SettingError, match="has its own"):
        learning.build_fed_sgd(linear, loss="mse")
    for optimizer, said in (
        (0.1, "client_optimizer_fn is one of shoal's"),
        (lambda: 0.1, "client_optimizer_fn is one of shoal's"),
        (shoal.sgd, "without arguments"),
    ):
        with pytest.raises(SettingError, match=said):
            learning.build_weighted_fed_avg(linear, optimizer)
