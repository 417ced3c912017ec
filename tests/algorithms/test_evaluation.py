"""Federated evaluation: its figure is the pooled one."""

import numpy as np
import pytest

import shoal
from tests.conftest import classification


def test_federated_metrics_are_the_pooled_metrics(random):
    population = classification(sizes=(9, 4, 30), classes=3)
    model = shoal.models.logistic(4, classes=3)
    vector = random.normal(size=model.layout.size).astype(np.float32)
    row = shoal.simulate(shoal.Plan(shoal.FedEval(model, vector), rounds=1), population).history.rows[0]
    params = model.params(vector)
    scores = population.columns["x"] @ params["weight"] + params["bias"]
    labels = population.columns["y"]
    logs = np.log(np.exp(scores).sum(1)) - scores[np.arange(len(labels)), labels]
    assert row["accuracy"] == pytest.approx((scores.argmax(1) == labels).mean(), rel=1e-6)
    assert row["loss"] == pytest.approx(logs.mean(), rel=1e-5)


def test_evaluate_gives_the_same_and_each_client_by_itself(random):
    population = classification(sizes=(9, 4, 30), classes=3)
    model = shoal.models.logistic(4, classes=3)
    vector = random.normal(size=model.layout.size).astype(np.float32)
    together = shoal.evaluate(model, vector, population)
    for name in population:
        alone = shoal.evaluate(model, vector, population.select([name])).pooled
        assert together.of(name) == pytest.approx(alone, rel=1e-6)
    mean = np.average(together.clients["accuracy"], weights=population.counts)
    assert together.pooled["accuracy"] == pytest.approx(mean, rel=1e-6)


def test_nothing_of_the_model_leaves_a_client_in_evaluation():
    assert shoal.FedEval(shoal.models.logistic(4)).layout.size == 0


def test_plans_that_measure_other_models_are_other_plans():
    model = shoal.models.logistic(2)
    zeros, ones = (shoal.FedEval(model, vector=np.full(3, v, np.float32)) for v in (0, 1))
    assert zeros != ones
    assert zeros == shoal.FedEval(model, vector=np.zeros(3, np.float32))
    assert shoal.Plan(zeros, rounds=1).digest() != shoal.Plan(ones, rounds=1).digest()
