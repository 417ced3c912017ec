"""The runtime for torch models beside the readable one."""

from __future__ import annotations

import gc
import multiprocessing

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
    PlainSum,
    Quantize,
    Remember,
    Round,
    SecureSum,
    TopK,
    Weigh,
    models,
)
from shoal.algorithms import start
from shoal.cohort import Everyone
from shoal.errors import RunError, UnsupportedError
from shoal.simulation.cohorts import Cohorts
from shoal.simulation.cores import cores
from tests.conftest import classification

torch = pytest.importorskip(
    "torch", reason="needs torch, which the test command leaves out: run  make torch  and test again"
)
nn = torch.nn

from shoal.simulation.torch import TorchRuntime  # noqa: E402 (needs torch)
from shoal.simulation.torch_workers import can_fork  # noqa: E402

RAGGED = classification(sizes=(7, 3, 12, 5, 1, 30))
AGGREGATIONS = {
    "weighted": shoal.weighted_mean(),
    "equal": shoal.mean(),
    "capped": Weigh(5) >> PlainSum() >> Mean(),
    "clipped": Clip(0.1) >> Weigh(5) >> PlainSum() >> Mean(),
    "rounded": Round(3) >> PlainSum() >> Mean(),
    "remembered": Remember(TopK(0.2)) >> Weigh(20) >> PlainSum() >> Mean(),
    "remembered rounding": Remember(Round(3)) >> AdaptiveClip(0.1) >> Weigh(20) >> PlainSum() >> Mean(),
    "median": Clip(1.0) >> Collect() >> Median(),
    "noised": Clip(0.5) >> PlainSum() >> Gaussian(1.0, clients=4),
    "grid": Clip(0.5) >> Quantize(1e-4) >> SecureSum(threshold=2) >> Mean(),
}


def network(*middle):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), *middle, nn.ReLU(), nn.Linear(8, 2))


def both(algorithm, population=RAGGED, *, rounds=4, **given):
    plan = shoal.Plan(algorithm, rounds=rounds, cohort=given.pop("cohort", 4))
    return [shoal.simulate(plan, population, seed=3, runtime=name, **given) for name in ("auto", "local")]


def assert_same(fast, local, rtol=1e-5, atol=1e-6):
    assert np.linalg.norm(local.vector) > 0
    np.testing.assert_allclose(fast.vector, local.vector, rtol=rtol, atol=atol)
    for one, other in zip(fast.history, local.history, strict=True):
        assert one.keys() == other.keys()
        metrics = one.keys() - {"noise", "seconds"}
        np.testing.assert_allclose([one[m] for m in metrics], [other[m] for m in metrics], rtol=2e-5)


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_every_aggregation_is_the_local_one_and_the_same_seed_twice_is_equal_to_the_bit(name):
    model = models.from_torch(network(nn.Dropout(0.3)), loss="cross_entropy")
    algorithm = shoal.FedProx(model, epochs=2, batch_size=4, aggregation=AGGREGATIONS[name])
    fast, local = both(algorithm)
    assert_same(fast, local, atol=5e-4 if name == "grid" else 1e-6)
    assert both(algorithm)[0].vector.tobytes() == fast.vector.tobytes()


@pytest.mark.parametrize("cohort", [None, 0.5, shoal.Poisson(0.3)], ids=str)
@pytest.mark.parametrize("name", ["weighted", "clipped"])
def test_every_cohort_is_the_local_one(cohort, name):
    model = models.from_torch(network(), loss="cross_entropy")
    assert_same(*both(shoal.FedAvg(model, aggregation=AGGREGATIONS[name]), cohort=cohort, rounds=8))


def test_a_server_optimizer_and_a_schedule_are_the_local_ones():
    model = models.from_torch(network(), loss="cross_entropy")
    rate = shoal.schedules.cosine(0.3, rounds=4)
    algorithm = shoal.FedAvg(model, client_optimizer=shoal.sgd(rate), server_optimizer=shoal.adam(0.05))
    assert_same(*both(algorithm))


@pytest.mark.parametrize("name", ["weighted", "clipped", "median"])
def test_a_client_that_is_not_finite_is_rejected_and_keeps_its_state(name):
    x = RAGGED.columns["x"].copy()
    x[RAGGED.offsets[2]] = np.nan
    model = models.from_torch(network(), loss="cross_entropy")
    fast, local = both(shoal.FedAvg(model, aggregation=AGGREGATIONS[name]), RAGGED.with_column("x", x), cohort=None)
    assert_same(fast, local)
    assert fast.history.rows[0]["rejected"] == 1
    wild = shoal.FedAvg(model, client_optimizer=shoal.sgd(1e38), steps=3, aggregation=AGGREGATIONS[name])
    assert both(wild, cohort=None, rounds=1)[0].history.rows[0]["rejected"] == len(RAGGED)


def test_what_clients_remember_comes_back_from_a_checkpoint(tmp_path):
    model = models.from_torch(network(), loss="cross_entropy")
    algorithm = shoal.FedAvg(model, aggregation=AGGREGATIONS["remembered"])
    whole = shoal.simulate(shoal.Plan(algorithm, rounds=6, cohort=4), RAGGED)
    plan, file = shoal.Plan(algorithm, rounds=6, cohort=4), tmp_path / "run"

    def stop(rows, run):
        return "so far" if len(rows) and rows[-1]["round"] >= 3 else None

    shoal.simulate(plan, RAGGED, checkpoint=file, every=3, callbacks=[stop])
    resumed = shoal.simulate(plan, RAGGED, checkpoint=file, every=3)
    assert resumed.vector.tobytes() == whole.vector.tobytes()


def test_clients_that_are_loaded_or_lie_on_disk_give_what_clients_in_memory_give(tmp_path):
    model = models.from_torch(network(), loss="cross_entropy")
    plan = shoal.Plan(shoal.FedAvg(model), rounds=3, cohort=4)
    wanted = shoal.simulate(plan, RAGGED)
    clients = {name: (RAGGED[name].rows("x"), RAGGED[name].rows("y")) for name in RAGGED}
    loaded = shoal.simulate(plan, {name: lambda name=name: clients[name] for name in clients})
    assert loaded.vector.tobytes() == wanted.vector.tobytes()

    def broken(name):
        if name == "c2":
            raise OSError("gone")
        return clients[name]

    lazy = shoal.LazyPopulation(RAGGED.names, broken)
    fast, local = both(shoal.FedAvg(model), lazy, cohort=None)
    assert_same(fast, local)
    assert fast.history.rows[0]["rejected"] == 1
    assert fast.failures == local.failures


def test_the_callers_random_numbers_and_threads_are_left_as_they_were():
    model = models.from_torch(network(nn.Dropout(0.5)), loss="cross_entropy")
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    with torch.no_grad():
        both(shoal.FedAvg(model))
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def normalised():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def test_running_statistics_travel_and_are_averaged_and_single_rows_are_skipped():
    model = models.from_torch(normalised(), loss="cross_entropy")
    assert model.statistics == ("1.running_mean", "1.running_var")
    fast, local = both(shoal.FedAvg(model, batch_size=4, order="given"), cohort=None, rounds=1)
    assert_same(fast, local)
    wanted = np.zeros(8)
    for name in RAGGED:
        module, rows = normalised(), RAGGED[name].rows("x")
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        for i in range(0, len(rows), 4):
            if len(rows) - i > 1:
                y = torch.from_numpy(RAGGED[name].rows("y")[i : i + 4].astype(np.int64))
                optimizer.zero_grad()
                nn.functional.cross_entropy(module(torch.from_numpy(rows[i : i + 4].copy())), y).backward()
                optimizer.step()
        wanted += module[1].running_mean.numpy() * len(rows)
    np.testing.assert_allclose(fast.params["1.running_mean"], wanted / RAGGED.counts.sum(), rtol=1e-4, atol=1e-6)
    assert int(model.fitted(fast.vector)[1].num_batches_tracked) == 0


def test_a_server_optimizer_takes_no_running_statistics():
    model = models.from_torch(normalised(), loss="cross_entropy")
    with pytest.raises(UnsupportedError, match=r"running statistics.*1.running_mean.*GroupNorm"):
        shoal.FedAvg(model, server_optimizer=shoal.adam(0.1))


class Moody(nn.Module):
    """It fails on five rows, and looks into them."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 2)

    def forward(self, x):
        if self.training and bool(x.isfinite().all()) and len(x) == 5:
            raise ArithmeticError("five rows")
        return self.inner(x)


def test_a_module_that_fails_in_training_names_the_client():
    model = models.from_torch(Moody(), loss="cross_entropy")
    with pytest.raises(RunError, match="client 'c3': the module failed in training: ArithmeticError: five rows"):
        shoal.simulate(shoal.Plan(shoal.FedAvg(model), rounds=1), RAGGED)


EQUAL = classification(sizes=(6,) * 9)


def in_lockstep(model, algorithm=None, population=EQUAL):
    algorithm = algorithm or shoal.FedAvg(model)
    return str(TorchRuntime(algorithm, population, Cohorts(population.names, Everyone(), shoal.Key.from_seed(0))))


@pytest.mark.parametrize("name", ["weighted", "equal", "clipped", "remembered rounding", "median"])
@pytest.mark.parametrize("given", [
    {"epochs": 2, "batch_size": 4}, {"steps": 3, "batch_size": 4}, {"order": "given", "batch_size": 4},
    {"batch_size": "all", "client_optimizer": shoal.adam(0.05)},
], ids=str)  # fmt: skip
def test_equal_tiny_clients_in_lockstep_are_the_local_ones(name, given):
    # Not the largest entries alone: of two that are nearly equal, a rounding decides which is sent.
    model = models.from_torch(network(), loss="cross_entropy")
    algorithm = shoal.FedProx(model, mu=0.5, aggregation=AGGREGATIONS[name], **given)
    assert in_lockstep(model, algorithm) == "torch (lockstep)"
    assert_same(*both(algorithm, EQUAL, cohort=7))


def test_lockstep_is_left_to_what_torch_can_do_in_lockstep():
    for module in (network(nn.Dropout(0.5)), normalised(), Moody()):
        assert in_lockstep(models.from_torch(module, loss="cross_entropy")) == "torch (1)"
    own = models.from_torch(network(), loss="cross_entropy", optimizer=lambda p: torch.optim.Adam(p, lr=0.1))
    assert in_lockstep(own) == "torch (1)"
    assert in_lockstep(models.from_torch(network(), loss="cross_entropy"), population=RAGGED) == "torch (1)"


def test_a_client_in_lockstep_that_is_not_finite_is_rejected():
    x = EQUAL.columns["x"].copy()
    x[EQUAL.offsets[2]] = np.nan
    model = models.from_torch(network(), loss="cross_entropy")
    fast, local = both(shoal.FedAvg(model), EQUAL.with_column("x", x), cohort=None)
    assert_same(fast, local)
    assert fast.history.rows[0]["rejected"] == 1
    wild = shoal.FedAvg(model, client_optimizer=shoal.sgd(1e38), steps=3)
    assert both(wild, EQUAL, cohort=None, rounds=1)[0].history.rows[0]["rejected"] == len(EQUAL)


def large():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 400), nn.Dropout(0.1), nn.ReLU(), nn.Linear(400, 256), nn.Linear(256, 2))


WORKERS = pytest.mark.skipif(not can_fork() or cores() < 2, reason="needs Linux and two cores")


@WORKERS
@pytest.mark.parametrize("name", ["weighted", "equal", "clipped", "median"])
def test_several_processes_give_what_one_gives(name):
    model = models.from_torch(large(), loss="cross_entropy")
    algorithm = shoal.FedProx(model, batch_size=4, aggregation=AGGREGATIONS[name])
    fast, local = both(algorithm, rounds=2)
    assert_same(fast, local)
    assert both(algorithm, rounds=2)[0].vector.tobytes() == fast.vector.tobytes()


def workers_of(plan):
    cohorts = Cohorts(RAGGED.names, plan.sampler, shoal.Key.from_seed(0))
    runtime = TorchRuntime(plan.algorithm, RAGGED, cohorts)
    runtime.advance(start(plan.algorithm, shoal.Key.from_seed(0)), 1)
    return runtime, [p for p in multiprocessing.active_children() if p.name.startswith("shoal worker")]


@WORKERS
def test_workers_end_with_the_runtime():
    plan = shoal.Plan(shoal.FedAvg(models.from_torch(large(), loss="cross_entropy")), rounds=1)
    runtime, workers = workers_of(plan)
    assert len(workers) == min(cores(), len(RAGGED))
    del runtime
    gc.collect()
    assert not [worker for worker in workers if worker.is_alive()]


@WORKERS
def test_a_worker_that_dies_is_told():
    plan = shoal.Plan(shoal.FedAvg(models.from_torch(large(), loss="cross_entropy")), rounds=2)
    runtime, workers = workers_of(plan)
    workers[0].kill()
    workers[0].join()
    with pytest.raises(RunError, match="a worker process ended while it trained clients"):
        runtime.advance(start(plan.algorithm, shoal.Key.from_seed(0)), 1)


class Wide(Moody):
    def __init__(self):
        super().__init__()
        self.more = nn.Linear(400, 400)


@WORKERS
def test_a_module_that_fails_in_a_worker_names_the_client():
    model = models.from_torch(Wide(), loss="cross_entropy")
    with pytest.raises(RunError, match="client 'c3': the module failed in training: ArithmeticError: five rows"):
        shoal.simulate(shoal.Plan(shoal.FedAvg(model), rounds=1), RAGGED)
