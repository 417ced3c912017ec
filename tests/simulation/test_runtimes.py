"""Every runtime gives what the readable one gives: equality is the specification."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest

import shoal
from shoal import (
    AdaptiveClip,
    Clip,
    Collect,
    Gaussian,
    Mean,
    Median,
    NoiseShare,
    Over,
    PlainSum,
    Quantize,
    Remember,
    Round,
    SecureSum,
    TopK,
    Weigh,
    models,
)
from shoal.errors import UnsupportedError
from shoal.simulation.cohorts import Cohorts
from shoal.simulation.compiled import CompiledRuntime, lanes
from shoal.simulation.cores import LARGE, CoresRuntime, suits
from tests.conftest import classification

RAGGED = classification(sizes=(7, 3, 12, 5, 1, 30))
EQUAL = classification(sizes=(6,) * 9)
LOGISTIC = models.logistic(4)
WIDE = shoal.FedAvg(models.mlp(4, hidden=(400, 300)), batch_size=4)

AGGREGATIONS = {
    "weighted": shoal.weighted_mean(),
    "equal": shoal.mean(),
    "clipped": Clip(0.1) >> PlainSum() >> Mean(),
    "capped": AdaptiveClip(0.1) >> Weigh(5) >> PlainSum() >> Mean(),
    "rounded": Round(3) >> PlainSum() >> Mean(),
    "sparse": TopK(0.4) >> PlainSum() >> Mean(),
    "remembered": Remember(TopK(0.2)) >> Weigh(20) >> PlainSum() >> Mean(),
    "median": Clip(1.0) >> Collect() >> Median(),
    "noised": Clip(0.5) >> PlainSum() >> Gaussian(1.0, clients=4),
}
GRIDS = {
    "grid": Clip(0.5) >> Quantize(1e-4) >> SecureSum(threshold=2) >> Mean(),
    "weighted grid": Clip(0.5) >> Weigh(5) >> Quantize(1e-4) >> SecureSum(threshold=2) >> Mean(),
    "remembered grid": Remember(TopK(0.4)) >> Clip(0.5) >> Quantize(1e-4) >> SecureSum(threshold=2) >> Mean(),
    "noised grid": Clip(0.5) >> Quantize(1e-4) >> NoiseShare(0.1, at_least=2) >> SecureSum(threshold=2) >> Over(4),
}
COHORTS = {"everyone": None, "three": 3, "half": 0.5, "poisson": shoal.Poisson(0.4)}


def both(algorithm, *, cohort=None, rounds=5, population=RAGGED, seed=3):
    plan = shoal.Plan(algorithm, rounds=rounds, cohort=cohort)
    return [shoal.simulate(plan, population, seed=seed, runtime=name) for name in ("compiled", "local")]


def assert_same(compiled, local, atol=0.0):
    scale = max(float(np.linalg.norm(local.vector)), 1e-30)
    if atol:
        np.testing.assert_allclose(compiled.vector, local.vector, rtol=0, atol=atol)
    else:
        assert np.linalg.norm(compiled.vector - local.vector) <= 1e-6 * scale
    assert np.linalg.norm(local.vector) > 0, "nothing was learned, so nothing is compared"
    for one, other in zip(compiled.history, local.history, strict=True):
        assert one.keys() == other.keys()
        assert [one[k] for k in ("round", "clients", "rejected")] == [
            other[k] for k in ("round", "clients", "rejected")
        ]
        metrics = one.keys() - {"round", "clients", "rejected", "released", "noise", "seconds"}
        np.testing.assert_allclose([one[m] for m in metrics], [other[m] for m in metrics], rtol=2e-5)


CASES = [(name, RAGGED) for name in AGGREGATIONS] + [("remembered", EQUAL), ("noised", EQUAL), ("median", EQUAL)]
GRID_CASES = [(name, RAGGED) for name in GRIDS] + [("noised grid", EQUAL)]


@pytest.mark.parametrize(("name", "population"), CASES)
def test_every_aggregation_is_the_local_one_and_the_same_seed_twice_is_equal_to_the_bit(name, population):
    algorithm = shoal.FedAvg(LOGISTIC, epochs=2, batch_size=4, aggregation=AGGREGATIONS[name])
    runs = both(algorithm, cohort=4, population=population)
    assert_same(*runs)
    for run, again, other in zip(
        runs,
        both(algorithm, cohort=4, population=population),
        both(algorithm, cohort=4, population=population, seed=4),
        strict=True,
    ):
        assert run.vector.tobytes() == again.vector.tobytes()
        assert run.vector.tobytes() != other.vector.tobytes()


@pytest.mark.parametrize(("name", "population"), GRID_CASES)
def test_sums_on_a_grid_are_within_one_unit_a_client(name, population):
    algorithm = shoal.FedAvg(LOGISTIC, epochs=2, batch_size=4, aggregation=GRIDS[name])
    # One round: a client's float may fall on the other side of a rounding, never further.
    runs = both(algorithm, cohort=4, population=population, rounds=1)
    lightest = population.counts.min() if name == "weighted grid" else 1
    assert_same(*runs, atol=4 * 1e-4 / (4 * lightest) + 1e-7)
    for run, again in zip(runs, both(algorithm, cohort=4, population=population, rounds=1), strict=True):
        assert run.vector.tobytes() == again.vector.tobytes()


@pytest.mark.parametrize("name", COHORTS)
def test_every_cohort_is_the_local_one(name):
    assert_same(*both(shoal.FedAvg(LOGISTIC), cohort=COHORTS[name], rounds=12))


@pytest.mark.parametrize(
    "algorithm",
    [
        shoal.FedAvg(LOGISTIC, steps=7, batch_size=3),
        shoal.FedAvg(LOGISTIC, batch_size="all", epochs=3),
        shoal.FedAvg(LOGISTIC, order="given", batch_size=5),
        shoal.FedProx(LOGISTIC, mu=0.5, epochs=3, batch_size=2),
        shoal.FedAvg(LOGISTIC, client_optimizer=shoal.sgd(shoal.schedules.cosine(0.5, rounds=5))),
        shoal.FedAvg(LOGISTIC, client_optimizer=shoal.adam(0.05), server_optimizer=shoal.adam(0.1)),
        shoal.FedAvg(LOGISTIC, server_optimizer=shoal.sgd(1.0, momentum=0.9)),
        shoal.FedAvg(models.mlp(4, hidden=(8,)), batch_size=4),
    ],
    ids=lambda algorithm: str(algorithm)[:60],
)
def test_every_way_to_train_is_the_local_one(algorithm):
    assert_same(*both(algorithm, cohort=4))


def test_equal_tiny_clients_go_in_lockstep_and_others_do_not():
    assert lanes(shoal.FedAvg(LOGISTIC), EQUAL) == 9
    assert lanes(shoal.FedAvg(LOGISTIC), RAGGED) == 1
    assert lanes(shoal.FedAvg(models.mlp(4, hidden=(500,))), EQUAL) == 1


def test_a_cohort_that_does_not_fill_its_lanes_is_the_local_one():
    many = classification(sizes=(4,) * 40)
    assert lanes(shoal.FedAvg(LOGISTIC), many) == 32
    algorithm = shoal.FedAvg(LOGISTIC, aggregation=Remember(TopK(0.4)) >> PlainSum() >> Mean())
    assert_same(*both(algorithm, cohort=37, population=many))
    assert_same(*both(shoal.FedAvg(LOGISTIC), cohort=shoal.Poisson(0.5), population=many, rounds=9))


def test_what_clients_remember_is_the_same_in_both():
    algorithm = shoal.FedAvg(LOGISTIC, aggregation=AGGREGATIONS["remembered"])
    plan = shoal.Plan(algorithm, rounds=4, cohort=3)
    key = shoal.Key.from_seed(1)
    after = []
    for kind in (CompiledRuntime, shoal.simulation.local.LocalRuntime):
        runtime, run = (
            kind(algorithm, RAGGED, Cohorts(RAGGED.names, plan.sampler, key)),
            shoal.algorithms.start(algorithm, key),
        )
        while int(run.round) < plan.rounds:
            run, _ = runtime.advance(run, plan.rounds - int(run.round))
        after.append(runtime.states)
    compiled, local = after
    for place, name in enumerate(RAGGED):
        mine = jax.tree.leaves(jax.tree.map(lambda leaf, at=place: np.asarray(leaf)[at], compiled))
        theirs = jax.tree.leaves(local[name])
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(compiled))


def test_a_large_model_on_all_cores_is_the_local_one():
    plan = shoal.Plan(WIDE, rounds=3, cohort=5)
    assert WIDE.layout.size >= LARGE
    key = shoal.Key.from_seed(2)
    cohorts = Cohorts(RAGGED.names, plan.sampler, key)
    assert suits(WIDE, cohorts) == (shoal.simulation.cores.cores() > 1)
    runtime = CoresRuntime(WIDE, RAGGED, cohorts)
    run = shoal.algorithms.start(WIDE, key)
    first = np.asarray(run.state.vector)
    for _ in range(plan.rounds):
        run, (record,) = runtime.advance(run, 1)
    local = shoal.simulate(plan, RAGGED, seed=2, runtime="local")
    assert np.linalg.norm(run.state.vector - local.vector) <= 1e-6 * np.linalg.norm(local.vector)
    assert np.linalg.norm(run.state.vector - first) > 0.01
    assert record.metrics["loss"] == pytest.approx(local.history.rows[-1]["loss"], rel=1e-5)


def test_rejected_clients_are_named_alike_by_every_runtime():
    poisoned = poison(RAGGED, "c2")
    plan, key = shoal.Plan(WIDE, rounds=1), shoal.Key.from_seed(0)
    for kind in (CompiledRuntime, CoresRuntime, shoal.simulation.local.LocalRuntime):
        runtime = kind(WIDE, poisoned, Cohorts(poisoned.names, plan.sampler, key))
        _, (record,) = runtime.advance(shoal.algorithms.start(WIDE, key), 1)
        assert (record.rejected, record.clients) == (("c2",), 5)


def poison(population, client):
    x = population.columns["x"].copy()
    x[population[client].start, 0] = np.nan
    return population.with_column("x", x)


def test_plain_python_runs_locally_to_the_bit_and_cannot_be_compiled():
    from sklearn.linear_model import SGDClassifier

    plan = shoal.Plan(shoal.FedAvg(models.SklearnModel(SGDClassifier(), features=4, classes=(0, 1))), rounds=3)
    auto, local = shoal.simulate(plan, RAGGED), shoal.simulate(plan, RAGGED, runtime="local")
    assert auto.vector.tobytes() == local.vector.tobytes()
    with pytest.raises(UnsupportedError, match="use runtime='local', or 'auto'"):
        shoal.simulate(plan, RAGGED, runtime="compiled")


def test_rounds_in_one_call_are_the_rounds_one_by_one_to_the_bit():
    plan = shoal.Plan(shoal.FedAvg(LOGISTIC, aggregation=AGGREGATIONS["remembered"]), rounds=12, cohort=3)
    together = shoal.simulate(plan, RAGGED, every=12)
    one_by_one = shoal.simulate(plan, RAGGED, every=1)
    assert together.vector.tobytes() == one_by_one.vector.tobytes()


def test_the_data_of_a_client_that_is_not_drawn_changes_nothing():
    plan = shoal.Plan(shoal.FedAvg(LOGISTIC), rounds=1, cohort=3)
    result = shoal.simulate(plan, RAGGED, seed=1)
    drawn = plan.sampler.draw(shoal.Key.from_seed(1).split("round", 0).split("cohort"), len(RAGGED))
    other = RAGGED.names[next(place for place in range(len(RAGGED)) if place not in drawn)]
    changed = RAGGED.with_column("x", np.where(owner(RAGGED) == other, 9.0, RAGGED.columns["x"].T).T.astype(np.float32))
    assert shoal.simulate(plan, changed, seed=1).vector.tobytes() == result.vector.tobytes()
    drawn_name = RAGGED.names[int(drawn[0])]
    x = np.where(owner(RAGGED) == drawn_name, 9.0, RAGGED.columns["x"].T).T.astype(np.float32)
    assert shoal.simulate(plan, RAGGED.with_column("x", x), seed=1).vector.tobytes() != result.vector.tobytes()


def owner(population):
    return np.repeat(population.names, population.counts)


def test_a_plan_runs_the_same_whatever_the_order_of_the_clients():
    reordered = RAGGED.select(RAGGED.names[::-1])
    plan = shoal.Plan(replace(shoal.FedAvg(LOGISTIC), batch_size=4), rounds=3)
    one, other = shoal.simulate(plan, RAGGED), shoal.simulate(plan, reordered)
    np.testing.assert_allclose(one.vector, other.vector, rtol=1e-5, atol=1e-6)
