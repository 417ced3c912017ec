"""A store that fails, or fails to say that it did not, changes nothing about the model that a run ends in."""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import Future

import numpy as np
import pytest

import shoal
from shoal import models
from shoal.errors import ServerError, StoreError
from shoal.rounds.rules import Rules
from shoal.server.coordinator import Coordinator
from shoal.store.blobs import Blobs
from shoal.store.store import open_store
from shoal.testing import Fleet
from tests.conftest import classification

SITES = classification(sizes=(8, 8, 8))
SPARSE = shoal.Remember(shoal.TopK(0.4)) >> shoal.PlainSum() >> shoal.Mean()
PLAN = shoal.Plan(shoal.FedAvg(models.logistic(4), batch_size=8, aggregation=SPARSE), rounds=3)
PLAIN = shoal.Plan(shoal.FedAvg(models.logistic(4), batch_size=8), rounds=3)  # its clients remember nothing
GRID = shoal.Clip(1.0) >> shoal.Quantize(1e-3) >> shoal.SecureSum(threshold=3) >> shoal.Mean()
MASKED = shoal.Plan(shoal.FedAvg(models.logistic(4), batch_size=8, aggregation=GRID), rounds=3)
RULES = Rules(at_least=3)
AGAIN = {"store", "busy", "disk-full"}


class Failing:
    """A store whose transactions of some numbers end in an error: undone before it, or done all the same."""

    def __init__(self, store, *, undone=(), done=()):
        self._store, self._undone, self._done = store, set(undone), set(done)
        self.writes = 0

    def write(self, *writes):
        self.writes += 1
        if self.writes in self._undone:
            future = Future()
            future.set_exception(StoreError("the disk is tired"))
            return future
        written = self._store.write(*writes)
        if self.writes in self._done:
            written.result()
            future = Future()
            future.set_exception(StoreError("nobody knows whether it is done"))
            return future
        return written

    def read(self, name, /, **given):
        return self._store.read(name, **given)

    def close(self):
        self._store.close()


class FullAtTimes(Blobs):
    """Blobs on a disk that is full the first times that a model or a result is to be kept."""

    full = 0

    def put_bytes(self, data, *, coding=""):
        if self.full:
            self.full -= 1
            raise StoreError("could not write a blob: there is no room for it on the disk")
        return super().put_bytes(data, coding=coding)


class Patient:
    """A coordinator as an agent sees it: asked again for as long as it says that this may help."""

    def __init__(self, coordinator):
        self._coordinator = coordinator

    def __getattr__(self, name):
        found = getattr(self._coordinator, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def again(*given, **named):
            while True:
                try:
                    return await found(*given, **named)
                except ServerError as error:
                    if error.code not in AGAIN:
                        raise
                except StoreError:
                    pass
                await asyncio.sleep(0.02)

        return again


async def ran(store, blobs, *, plan=PLAN, seed=3):
    """A run from beginning to end; the model, the rows of its tasks, and the blobs that are left."""
    coordinator = Coordinator(store, blobs, federation="testing")
    await coordinator.start([plan])
    fleet = Fleet(Patient(coordinator), plan, {name: SITES[name] for name in SITES.names})
    run = await Patient(coordinator).submit(plan, name="run", rules=RULES, seed=seed)
    if isinstance(blobs, FullAtTimes):
        blobs.full = 3
    fleet.start()
    try:
        view = await asyncio.wait_for(coordinator.until_over(run), 30)
        assert view.status == "completed", view
        state = await coordinator.state(run)
        rows = [row for round in range(3) for row in _counted(store, run, view, round)]
        return np.asarray(state.vector), rows, set(blobs.ids())
    finally:
        await fleet.stop()
        await coordinator.stop()


def _counted(store, run, view, round):
    (attempt,) = [past.attempt for past in view.history if past.round == round and past.status == "closed"]
    rows = store.read("tasks_of_round", run=run, round=round, attempt=attempt)
    return [(round, row["client"]) for row in rows if row["summed"] == round]


@pytest.fixture(scope="module")
def wanted():
    return np.asarray(shoal.simulate(PLAN, SITES, seed=3, runtime="local", progress="off").vector)


@pytest.fixture(scope="module")
def writes(tmp_path_factory):
    """How many transactions a run without a failure has."""
    store = Failing(open_store("memory:"))
    asyncio.run(ran(store, Blobs(tmp_path_factory.mktemp("blobs"))))
    store.close()
    return store.writes


def check(store, blobs, wanted, plan=PLAN):
    vector, rows, left = asyncio.run(ran(store, blobs, plan=plan))
    store.close()
    assert np.array_equal(vector, wanted)
    assert Counter(rows) == Counter((round, name) for round in range(3) for name in SITES.names)
    assert len(left) == 2  # the run's state, and what its clients were sent last


@pytest.mark.parametrize("kind", ["undone", "done"])
@pytest.mark.parametrize("place", [0.15, 0.3, 0.45, 0.6, 0.75, 0.9])
def test_a_transaction_that_fails_is_as_if_it_never_was_or_never_failed(kind, place, writes, wanted, tmp_path):
    number = 2 + int(place * (writes - 2))  # the first one submits the run
    check(Failing(open_store("memory:"), **{kind: [number]}), Blobs(tmp_path), wanted)


@pytest.mark.parametrize("kind", ["undone", "done"])
@pytest.mark.parametrize("place", [0.1, 0.25, 0.4, 0.5, 0.65, 0.8, 0.95])
def test_in_the_middle_of_a_secure_sum_too(kind, place, tmp_path):
    number = 8 + int(place * 60)  # after the run and its clients are known, and before its end
    wanted = shoal.simulate(MASKED, SITES, seed=3, runtime="local", progress="off")
    check(Failing(open_store("memory:"), **{kind: [number]}), Blobs(tmp_path), np.asarray(wanted.vector), MASKED)


def test_many_that_fail_in_a_row_are_waited_for(writes, wanted, tmp_path):
    middle = writes // 2
    store = Failing(open_store("memory:"), undone=range(middle, middle + 4), done=[middle + 5, middle + 8])
    check(store, Blobs(tmp_path), wanted)


def test_a_model_that_finds_no_room_on_the_disk_is_made_again(wanted, tmp_path):
    check(Failing(open_store("memory:")), FullAtTimes(tmp_path), wanted)


def test_two_runs_of_one_plan_and_seed_share_blobs_and_lose_none(tmp_path):
    async def both():
        store, blobs = open_store("memory:"), Blobs(tmp_path)
        coordinator = Coordinator(store, blobs, federation="testing")
        await coordinator.start([PLAIN])
        fleet = Fleet(coordinator, PLAIN, {name: SITES[name] for name in SITES.names})
        first = await coordinator.submit(PLAIN, name="first", rules=RULES, seed=3)
        fleet.start()
        second = await coordinator.submit(PLAIN, name="second", rules=RULES, seed=3)
        views = [await asyncio.wait_for(coordinator.until_over(run), 30) for run in (first, second)]
        vectors = [np.asarray((await coordinator.state(run)).vector) for run in (first, second)]
        await fleet.stop()
        await coordinator.stop()
        store.close()
        return [view.status for view in views], vectors

    wanted = np.asarray(shoal.simulate(PLAIN, SITES, seed=3, runtime="local", progress="off").vector)
    statuses, vectors = asyncio.run(both())
    assert statuses == ["completed", "completed"]
    assert all(np.array_equal(vector, wanted) for vector in vectors)
