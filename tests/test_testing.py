"""A federation in one process gives the model that a simulation gives."""

from __future__ import annotations

import numpy as np
import pytest

import shoal
from shoal import AdaptiveClip, Clip, Collect, Mean, Median, PlainSum, Quantize, Remember, TopK, Weigh, models, simulate
from shoal.errors import PlanError, RunError, SettingError, UnsupportedError
from shoal.rounds.rules import Rules
from shoal.testing import deploy
from shoal.wire.messages import INLINE_BYTES

NAMES = ("Cleveland", "Hungary", "Switzerland", "VA Long Beach")


@pytest.fixture(scope="module")
def clients():
    """Four of one size, so that a client's turn is compiled once."""
    random = np.random.default_rng(0)
    x = random.standard_normal((120, 13), np.float32)
    y = (x @ random.standard_normal(13) > 0).astype(np.int32)
    return shoal.Population.from_arrays(x, y, groups=np.repeat(NAMES, 30))


def plan(aggregation=None, *, rounds=3, model=None, **settings):
    model = models.logistic(13) if model is None else model
    given = {"batch_size": 32, "client_optimizer": shoal.sgd(0.1), **settings}
    chain = {} if aggregation is None else {"aggregation": aggregation}
    return shoal.Plan(shoal.FedAvg(model, **given, **chain), rounds=rounds)


CHAINS = {
    "a mean": None,
    "a clipped mean": AdaptiveClip(1.0) >> Weigh(1000) >> PlainSum() >> Mean(),
    "what is left out remembered": Remember(TopK(0.3)) >> PlainSum() >> Mean(),
    "a median": Collect() >> Median(),
}


@pytest.mark.parametrize("name", CHAINS)
def test_the_model_is_that_of_a_simulation(clients, name):
    wanted = simulate(plan(CHAINS[name]), clients, seed=3, runtime="local", progress="off")
    found = deploy(plan(CHAINS[name]), clients, seed=3)
    assert np.array_equal(found.vector, wanted.vector)
    assert found.verdicts == {"counted": 12}


def test_on_a_grid_it_is_equal_to_the_bit(clients):
    grid = plan(Clip(1.0) >> Quantize(1e-3) >> PlainSum() >> Mean())
    assert np.array_equal(deploy(grid, clients).vector, simulate(grid, clients, runtime="local").vector)


def test_cohorts_are_those_of_a_simulation(clients):
    few = shoal.Plan(plan().algorithm, rounds=4, cohort=2)
    found = deploy(few, clients, seed=1, rules=Rules(wait_for=4))
    assert found.vector == pytest.approx(simulate(few, clients, seed=1, runtime="local").vector, rel=1e-6)
    assert [r.clients for r in found.run.history] == [2] * 4


def test_a_scikit_learn_model_is_that_of_a_simulation(clients):
    linear_model = pytest.importorskip("sklearn.linear_model")
    estimator = linear_model.SGDClassifier(loss="log_loss", random_state=0)
    model = models.SklearnModel(estimator, features=13, classes=[0, 1])
    given = plan(model=model, client_optimizer=None, batch_size=None)
    assert deploy(given, clients).vector == pytest.approx(simulate(given, clients).vector, rel=1e-6)


def test_a_torch_model_is_that_of_a_simulation(clients):
    missing = "needs torch, which the test command leaves out: run  make torch  and test again"
    torch = pytest.importorskip("torch", reason=missing)
    torch.manual_seed(0)
    given = plan(model=models.from_torch(torch.nn.Linear(13, 2), loss="cross_entropy"))
    wanted = simulate(given, clients, runtime="local", progress="off")
    assert deploy(given, clients).vector == pytest.approx(wanted.vector, rel=1e-6, abs=1e-7)


def test_what_is_large_comes_in_parts():
    random = np.random.default_rng(1)
    wide = {name: (random.random((2, 40_000), np.float32), np.zeros(2, np.int32)) for name in NAMES[:2]}
    asked = shoal.Plan(shoal.analytics.MeanAndVariance((40_000,)), rounds=1)
    assert asked.algorithm.layout.size_bytes > INLINE_BYTES
    found = deploy(asked, shoal.Population.from_clients(wide)).state
    assert np.asarray(found.mean) == pytest.approx(np.concatenate([x for x, _ in wide.values()]).mean(0))


def test_statistics_are_those_of_a_simulation(clients):
    asked = shoal.Plan(shoal.analytics.MeanAndVariance((13,)), rounds=1)
    found, wanted = deploy(asked, clients).state, simulate(asked, clients).state
    assert np.asarray(found.mean) == pytest.approx(np.asarray(wanted.mean))


def test_a_round_closes_without_those_who_drop_out(clients):
    given = plan(rounds=2)
    rules = Rules(at_least=3, wait_for=4, deadline_s=3.0)
    found = deploy(given, clients, rules=rules, drops=lambda name, round: name == NAMES[0] and round == 0)
    assert [round.clients for round in found.run.history] == [3, 4]
    one = shoal.Plan(given.algorithm, rounds=1)
    first = deploy(one, clients, rules=rules, drops=lambda name, round: name == NAMES[0])
    wanted = simulate(one, clients.select(NAMES[1:]), runtime="local", progress="off")
    assert first.vector == pytest.approx(wanted.vector, rel=1e-6)


def test_a_buffered_run_learns(clients):
    given = plan(rounds=30)
    found = deploy(given, clients, rules=Rules(buffer=2, at_least=2))
    evaluated = shoal.evaluate(models.logistic(13), found.vector, clients)
    assert evaluated.pooled["accuracy"] > 0.75
    assert found.run.round == 30


def test_a_client_whose_data_are_not_finite_counts_for_nobody(clients):
    broken = {name: clients[name] for name in NAMES}
    x = np.full((30, 13), np.nan, np.float32)
    broken["broken"] = shoal.Population.from_clients({"broken": (x, np.zeros(30, np.int32))})["broken"]
    given = plan(rounds=1)
    found = deploy(given, broken, rules=Rules(at_least=4, wait_for=5))
    assert found.verdicts == {"counted": 4, "rejected": 1}
    assert found.run.history[0].clients == 4
    assert found.vector == pytest.approx(simulate(given, clients, runtime="local").vector, rel=1e-6)


def test_too_few_who_never_come_are_told(clients):
    with pytest.raises(RunError, match="waits for 5 clients; there: 4"):
        deploy(plan(), clients, rules=Rules(at_least=5), timeout_s=0.5)


def test_a_secure_sum_is_the_whole_protocol_and_its_model_is_equal_to_the_bit(clients):
    masked = plan(Weigh(100) >> Clip(1.0) >> Quantize(1e-3) >> shoal.SecureSum(threshold=3) >> Mean())
    found = deploy(masked, clients, seed=3)
    assert np.array_equal(found.vector, simulate(masked, clients, seed=3, runtime="local", progress="off").vector)
    assert found.verdicts == {"counted": 12}


def test_a_secure_sum_of_a_scikit_learn_model_without_metrics_too(clients):
    linear_model = pytest.importorskip("sklearn.linear_model")
    estimator = linear_model.SGDClassifier(loss="log_loss", random_state=0)
    model = models.SklearnModel(estimator, features=13, classes=[0, 1])
    chain = Clip(1.0) >> Quantize(1e-3) >> shoal.SecureSum(threshold=3) >> Mean()
    masked = plan(chain, model=model, client_optimizer=None, batch_size=None, rounds=1)
    found = deploy(masked, clients)
    assert np.array_equal(found.vector, simulate(masked, clients, runtime="local", progress="off").vector)
    assert found.run.history[0].metrics == {}


def test_a_secure_sum_does_without_those_who_take_their_task_and_never_come(clients):
    masked = plan(Clip(1.0) >> Quantize(1e-3) >> shoal.SecureSum(threshold=3) >> Mean(), rounds=2)
    gone = (("Hungary", 0),)
    rules = Rules(at_least=3, wait_for=4, stage_s=0.5)
    found = deploy(masked, clients, rules=rules, drops=lambda name, round: (name, round) in gone)
    assert [past.clients for past in found.run.history] == [3, 4]


def test_protection_that_is_only_simulated_is_not_deployed(clients):
    matrix = shoal.matrices.Tree(2, separation=2)
    alone = Clip(1.0) >> PlainSum() >> shoal.MatrixGaussian(1.0, clients=2, matrix=matrix)
    correlated = shoal.Plan(shoal.FedAvg(models.logistic(13), aggregation=alone), 2, shoal.Rotation(2, separation=2))
    with pytest.raises(UnsupportedError, match="simulated"):
        deploy(correlated, clients)


def test_what_makes_a_contribution_private_by_itself_is_decided_by_no_seed(clients):
    alone = plan(Clip(1.0) >> shoal.LocalGaussian(8.0, 1e-6) >> PlainSum() >> shoal.Over(clients=4), rounds=1)
    one, other = (deploy(alone, clients).vector for _ in range(2))
    assert not np.array_equal(one, other)
    # The deviation of a sum of four clients' noise, over four, and of the difference of two.
    assert 0.3 < np.std(one - other) / (shoal.LocalGaussian(8.0, 1e-6).multiplier * 2 / 2 * np.sqrt(2)) < 2


@pytest.mark.parametrize("shared", [False, True])
def test_a_secure_sum_has_integer_noise_that_no_seed_decides(clients, shared):
    grid, masked = Clip(1.0) >> Quantize(1e-3), shoal.SecureSum(threshold=4)
    without = simulate(plan(grid >> masked >> Mean(), rounds=1), clients, runtime="local", progress="off").vector
    added = grid >> masked >> shoal.DiscreteGaussian(0.05, clients=4)
    noised = plan(grid >> shoal.NoiseShare(0.05, at_least=4) >> masked >> shoal.Over(4) if shared else added, rounds=1)
    noises = [(deploy(noised, clients).vector - without) * 4 / 1e-3 for _ in range(2)]
    assert np.allclose(noises, np.rint(noises), atol=0.01)
    assert not np.array_equal(*noises)
    assert 5 < np.std(noises) < 500  # 50 steps of the grid


def test_staleness_weights_need_floats(clients):
    with pytest.raises(PlanError, match="staleness"):
        deploy(plan(Collect() >> Median()), clients, rules=Rules(buffer=2))


def test_a_fleet_has_clients():
    with pytest.raises(SettingError, match="at least one client"):
        deploy(plan(), {})
