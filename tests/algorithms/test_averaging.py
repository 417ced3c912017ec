"""FedAvg, FedProx and every server optimizer beside plain NumPy in float64, on full-batch problems."""

from __future__ import annotations

import numpy as np
import pytest

import shoal
from shoal.errors import SettingError
from tests.conftest import classification, regression

ROUNDS, EPOCHS, RATE = 4, 3, 0.05


def gradient_linear(weights, x, y):
    """Of half the mean squared error of x @ w + b."""
    error = x @ weights[1:] + weights[0] - y
    return np.concatenate([[error.mean()], x.T @ error / len(y)])


def gradient_logistic(weights, x, y):
    """Of the mean logistic loss."""
    error = 1 / (1 + np.exp(-(x @ weights[1:] + weights[0]))) - y
    return np.concatenate([[error.mean()], x.T @ error / len(y)])


def local_training(weights, x, y, gradient, mu=0.0):
    now = weights.copy()
    for _ in range(EPOCHS):
        now = now - RATE * (gradient(now, x, y) + mu * (now - weights))
    return now - weights


class Sgd:
    def __init__(self, rate, momentum=0.0):
        self.rate, self.momentum, self.memory = rate, momentum, 0.0

    def __call__(self, weights, gradient):
        self.memory = self.momentum * self.memory + gradient
        return weights - self.rate * self.memory


class Adam:
    def __init__(self, rate, b1=0.9, b2=0.999, eps=1e-8):
        self.rate, self.b1, self.b2, self.eps, self.m, self.v, self.t = rate, b1, b2, eps, 0.0, 0.0, 0

    def second(self, gradient):
        return self.b2 * self.v + (1 - self.b2) * gradient**2

    def __call__(self, weights, gradient):
        self.t += 1
        self.m = self.b1 * self.m + (1 - self.b1) * gradient
        self.v = self.second(gradient)
        m, v = self.m / (1 - self.b1**self.t), self.v / (1 - self.b2**self.t)
        return weights - self.rate * m / (np.sqrt(v) + self.eps)


class Yogi(Adam):
    """Starts both moments at 1e-6, as optax does."""

    def __init__(self, rate):
        super().__init__(rate, eps=1e-3)
        self.m = self.v = 1e-6

    def second(self, gradient):
        return self.v - (1 - self.b2) * np.sign(self.v - gradient**2) * gradient**2


class Adagrad:
    def __init__(self, rate):
        self.rate, self.total = rate, 0.1

    def __call__(self, weights, gradient):
        self.total = self.total + gradient**2
        return weights - self.rate * gradient / np.sqrt(self.total + 1e-7)


def reference(population, gradient, server, weighted=True, mu=0.0):
    weights = np.zeros(population.columns["x"].shape[1] + 1)
    for _ in range(ROUNDS):
        updates, counts = [], []
        for name in population:
            x, y = (population[name].rows(c).astype(np.float64) for c in "xy")
            updates.append(local_training(weights, x, y, gradient, mu))
            counts.append(len(y))
        mean = np.average(updates, axis=0, weights=counts if weighted else None)
        weights = server(weights, -mean)
    return weights


def run(algorithm, population, runtime="compiled"):
    return shoal.simulate(shoal.Plan(algorithm, rounds=ROUNDS), population, runtime=runtime).vector


def settings(**more):
    return {"epochs": EPOCHS, "batch_size": "all", "client_optimizer": shoal.sgd(RATE), **more}


def assert_same(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6 * max(1.0, np.abs(wanted).max()))


PROBLEMS = {
    "linear": (regression, shoal.models.linear(4), gradient_linear),
    "logistic": (classification, shoal.models.logistic(4), gradient_logistic),
}
SERVERS = {
    "none": (None, lambda: Sgd(1.0)),
    "FedAvgM": (shoal.sgd(0.7, momentum=0.9), lambda: Sgd(0.7, 0.9)),
    "FedAdam": (shoal.adam(0.03), lambda: Adam(0.03)),
    "FedYogi": (shoal.yogi(0.03), lambda: Yogi(0.03)),
    "FedAdagrad": (shoal.adagrad(0.1), lambda: Adagrad(0.1)),
}


@pytest.mark.parametrize("runtime", ["compiled", "local"])
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_fedavg_with_every_server_optimizer_is_numpy(problem, server, runtime):
    make, model, gradient = PROBLEMS[problem]
    optimizer, numpy_server = SERVERS[server]
    population = make()
    found = run(shoal.FedAvg(model, **settings(server_optimizer=optimizer)), population, runtime)
    assert_same(found, reference(population, gradient, numpy_server()))


@pytest.mark.parametrize("mu", [0.0, 0.1, 3.0])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_fedprox_is_numpy(problem, mu):
    make, model, gradient = PROBLEMS[problem]
    population = make()
    found = run(shoal.FedProx(model, mu=mu, **settings()), population)
    assert_same(found, reference(population, gradient, Sgd(1.0), mu=mu))


@pytest.mark.parametrize("problem", PROBLEMS)
def test_an_unweighted_mean_counts_every_client_alike(problem):
    make, model, gradient = PROBLEMS[problem]
    population = make()
    found = run(shoal.FedAvg(model, **settings(aggregation=shoal.mean())), population)
    assert_same(found, reference(population, gradient, Sgd(1.0), weighted=False))


def test_clients_larger_than_what_is_held_at_once_have_the_same_gradient():
    population = regression(sizes=(700, 30, 301))
    found = run(shoal.FedAvg(shoal.models.linear(4), **settings()), population)
    assert_same(found, reference(population, gradient_linear, Sgd(1.0)))


def test_batches_in_the_order_given_are_those_of_a_plain_loop():
    population = regression(sizes=(7, 23, 11))
    algorithm = shoal.FedAvg(
        shoal.models.linear(4), epochs=2, batch_size=5, order="given", client_optimizer=shoal.sgd(RATE)
    )
    found = run(algorithm, population)
    weights = np.zeros(5)
    for _ in range(ROUNDS):
        updates = []
        for name in population:
            x, y = (population[name].rows(c).astype(np.float64) for c in "xy")
            now = weights.copy()
            for _ in range(2):
                for i in range(0, len(y), 5):
                    now = now - RATE * gradient_linear(now, x[i : i + 5], y[i : i + 5])
            updates.append(now - weights)
        weights = weights + np.average(updates, axis=0, weights=population.counts)
    assert_same(found, weights)


def test_steps_go_round_the_batches():
    population = regression(sizes=(7, 3))
    algorithm = shoal.FedAvg(
        shoal.models.linear(4), steps=4, batch_size=3, order="given", client_optimizer=shoal.sgd(RATE)
    )
    found = shoal.simulate(shoal.Plan(algorithm, rounds=1), population).vector
    updates = []
    for name in population:
        x, y = (population[name].rows(c).astype(np.float64) for c in "xy")
        batches = [slice(i, i + 3) for i in range(0, len(y), 3)]
        now = np.zeros(5)
        for step in range(4):
            rows = batches[step % len(batches)]
            now = now - RATE * gradient_linear(now, x[rows], y[rows])
        updates.append(now)
    assert_same(found, np.average(updates, axis=0, weights=population.counts))


def test_a_rate_schedule_is_that_of_the_round():
    population = regression()
    rates = shoal.schedules.linear(0.1, rounds=4, final=0.02)
    found = run(shoal.FedAvg(shoal.models.linear(4), batch_size="all", client_optimizer=shoal.sgd(rates)), population)
    weights = np.zeros(5)
    for round in range(ROUNDS):
        rate = 0.1 - 0.08 * round / 4
        updates = []
        for name in population:
            x, y = (population[name].rows(c).astype(np.float64) for c in "xy")
            updates.append(-rate * gradient_linear(weights, x, y))
        weights = weights + np.average(updates, axis=0, weights=population.counts)
    assert_same(found, weights)


def test_shuffled_epochs_see_every_example_once():
    # With a rate too small to matter, a pass over shuffled batches of a linear loss adds up to the whole gradient.
    population = regression(sizes=(24, 12))
    tiny = shoal.sgd(1e-4)
    model = shoal.models.linear(4)
    shuffled = shoal.FedAvg(model, batch_size=4, client_optimizer=tiny)
    given = shoal.FedAvg(model, batch_size=4, order="given", client_optimizer=tiny)
    a, b = (shoal.simulate(shoal.Plan(algorithm, rounds=1), population).vector for algorithm in (shuffled, given))
    assert not np.array_equal(a, b)
    np.testing.assert_allclose(a, b, atol=1e-3 * np.abs(b).max())


def test_the_loss_of_training_is_the_mean_over_examples_seen():
    population = regression()
    algorithm = shoal.FedAvg(shoal.models.linear(4), batch_size="all", client_optimizer=shoal.sgd(1e-12))
    history = shoal.simulate(shoal.Plan(algorithm, rounds=1), population).history
    wanted = 0.5 * np.mean(population.columns["y"].astype(np.float64) ** 2)
    assert history.rows[0]["loss"] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "at least one epoch"),
        ({"steps": 0}, "at least one step"),
        ({"batch_size": 0}, "at least one example"),
        ({"batch_size": "whole"}, "'all'"),
        ({"order": "random"}, "'shuffled' or 'given'"),
    ],
)
def test_settings_outside_their_range_are_refused(wrong, message):
    with pytest.raises(SettingError, match=message):
        shoal.FedAvg(shoal.models.linear(4), **wrong)


def test_a_negative_pull_is_refused():
    with pytest.raises(SettingError, match="mu is at least 0"):
        shoal.FedProx(shoal.models.linear(4), mu=-1.0)
