"""Whatever arrives twice, late or in another order counts once."""

from __future__ import annotations

import asyncio
import random

import msgspec
import numpy as np

import shoal
from shoal import models
from shoal.rounds.rules import Rules
from shoal.server.coordinator import Coordinator
from shoal.store.blobs import Blobs
from shoal.store.store import open_store
from shoal.testing import Fleet

NAMES = ("a", "b", "c", "d")


class Echoing:
    """A coordinator to which a network brings everything twice or three times, late, and in any order."""

    def __init__(self, coordinator, seed):
        self._coordinator, self._random = coordinator, random.Random(seed)
        self.answers = []

    def __getattr__(self, name):
        return getattr(self._coordinator, name)

    async def check_in(self, client, message, *, told):
        orders = await self._coordinator.check_in(client, message, told=set(told))
        again = msgspec.structs.replace(message, wait_s=0.0)
        self._later(self._coordinator.check_in(client, again, told=set(told)))
        told.update(info.run for info in orders.runs)
        return orders

    async def report(self, client, task, message):
        calls = [self._coordinator.report(client, task, message) for _ in range(self._random.randint(1, 3))]
        answers = await asyncio.gather(*calls)
        self.answers.append(answers)
        self._later(self._coordinator.report(client, task, message))
        return answers[-1]

    def _later(self, call):
        async def wait_and_call():
            await asyncio.sleep(self._random.random() / 20)
            self.answers.append([await call])

        self._jobs = [*getattr(self, "_jobs", []), asyncio.ensure_future(wait_and_call())]

    async def done(self):
        await asyncio.gather(*self._jobs, return_exceptions=True)


def population():
    random = np.random.default_rng(2)
    x = random.standard_normal((80, 5), np.float32)
    return shoal.Population.from_arrays(x, (x.sum(1) > 0).astype(np.int32), groups=np.repeat(NAMES, 20))


async def run(plan, clients, folder, store):
    coordinator = Coordinator(store, Blobs(folder), federation="twice")
    await coordinator.start([plan])
    echoing = Echoing(coordinator, seed=5)
    fleet = Fleet(echoing, plan, {name: clients[name] for name in NAMES})
    started = await coordinator.submit(plan, name="run", rules=Rules(at_least=4), seed=7)
    fleet.start()
    view = await asyncio.wait_for(coordinator.until_over(started), 60)
    state = await coordinator.state(started)
    await echoing.done()
    await fleet.stop()
    await coordinator.stop()
    return view, state, echoing.answers


def test_everything_twice_and_in_any_order_ends_in_the_simulations_model(tmp_path):
    clients, store = population(), open_store("memory:")
    plan = shoal.Plan(shoal.FedAvg(models.logistic(5), batch_size=10), rounds=4)
    view, state, answers = asyncio.run(run(plan, clients, tmp_path, store))
    wanted = shoal.simulate(plan, clients, seed=7, runtime="local", progress="off")
    assert np.array_equal(state.vector, wanted.vector)
    assert [(found.round, found.clients) for found in view.history] == [(number, 4) for number in range(4)]
    rows = [row for number in range(4) for row in store.read("tasks_of_round", run=view.id, round=number, attempt=0)]
    assert sorted((row["round"], row["client"]) for row in rows) == [(n, name) for n in range(4) for name in NAMES]
    assert all(row["status"] == "counted" for row in rows)
    reports = [answer for several in answers for answer in several if hasattr(answer, "verdict")]
    assert len(reports) > 16
    assert {answer.verdict for answer in reports} == {"counted"}
    store.close()
