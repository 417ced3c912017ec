"""Agents and a server that talk over TLS on this machine end in the model of the local simulation."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier

import shoal
from shoal import models
from shoal.client.ledger import Ledger
from shoal.rounds.rules import Rules
from tests.client.federation import Federation
from tests.conftest import classification

SITES = classification(sizes=(7, 20, 12))
GRID = shoal.Clip(0.5) >> shoal.Quantize(1e-4) >> shoal.PlainSum() >> shoal.Mean()
SPARSE = shoal.Remember(shoal.TopK(0.4)) >> shoal.PlainSum() >> shoal.Mean()
ADAPTIVE = shoal.AdaptiveClip(0.05) >> shoal.PlainSum() >> shoal.Mean()
SKLEARN = models.SklearnModel(SGDClassifier(loss="log_loss"), features=4, classes=(0, 1))
PLANS = {
    "a large jax model on a grid": shoal.FedAvg(models.mlp(4, hidden=(300, 300)), batch_size=4, aggregation=GRID),
    "a jax model, remembering": shoal.FedAvg(models.logistic(4), batch_size=4, aggregation=SPARSE),
    "sklearn, adaptive": shoal.FedAvg(SKLEARN, epochs=2, aggregation=ADAPTIVE),
}


@pytest.fixture
def federation(tmp_path):
    federation = Federation(tmp_path, SITES)
    yield federation
    federation.stop()


def begun(federation, coordinator, call, plan):
    token = call(coordinator.token(uses=3))
    for name in SITES.names:
        federation.join(name, token)
    return call(coordinator.submit(plan, name="study", rules=Rules(at_least=3), seed=5))


def assert_as_simulated(plan, vector):
    simulated = shoal.simulate(plan, SITES, seed=5, runtime="local").vector
    assert np.linalg.norm(simulated) > 0
    if "Quantize" in str(plan.algorithm.aggregation):
        assert vector.tobytes() == simulated.tobytes()
    np.testing.assert_allclose(vector, simulated, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", PLANS)
def test_a_run_over_tls_gives_the_model_of_the_simulation(federation, name):
    plan = shoal.Plan(PLANS[name], rounds=3)
    with federation.server() as (coordinator, call):
        run = begun(federation, coordinator, call, plan)
        view = call(coordinator.until_over(run), timeout_s=120)
        assert view.status == "completed", view
        assert_as_simulated(plan, np.asarray(call(coordinator.state(run)).vector))
        federation.stop()
    for site in SITES.names:
        with Ledger(federation.folder / site / "ledger.db") as ledger:
            assert ledger.verify() == ()
            told = [(entry.kind, entry.detail) for entry in ledger.entries() if entry.kind in ("result", "verdict")]
        assert [kind for kind, _ in told] == ["result", "verdict"] * 3
        assert {detail for kind, detail in told if kind == "verdict"} == {"counted"}


def test_agents_wait_for_a_server_that_is_restarted_in_mid_run_and_the_model_is_the_same(federation):
    plan = shoal.Plan(PLANS["a large jax model on a grid"], rounds=6)
    with federation.server() as (coordinator, call):
        run = begun(federation, coordinator, call, plan)

        async def round_closed():
            while coordinator.run(run).round < 2:
                await coordinator._services.thread(threading.Event().wait, 0.01)

        call(round_closed(), timeout_s=120)
    with federation.server() as (coordinator, call):
        assert call(coordinator.until_over(run), timeout_s=120).status == "completed"
        assert_as_simulated(plan, np.asarray(call(coordinator.state(run)).vector))
        federation.stop()
