"""A site whose agent can be killed, and the runs and tasks that the server of the tests has for it."""

from __future__ import annotations

import jax
import numpy as np

import shoal
from shoal import models
from shoal.algorithms import open_round, start
from shoal.client.agent import Agent
from shoal.client.backoff import Backoff
from shoal.client.enrolment import enrol
from shoal.client.events import Settled
from shoal.client.identity import Home
from shoal.client.ledger import Ledger
from shoal.client.line import Line
from shoal.client.policy import Policy
from shoal.wire.messages import RunInfo, Task
from shoal.wire.payloads import pack_tree
from shoal.wire.plans import plan_bytes
from tests.conftest import classification

SITE = classification(sizes=(20,))["c0"]
COLUMNS = {name: np.array(SITE.rows(name)) for name in "xy"}
PLAN = shoal.Plan(shoal.FedAvg(models.logistic(4), epochs=2, batch_size=4), rounds=3)


class Data:
    """A site's data, and how often they were touched."""

    def __init__(self, columns=COLUMNS):
        self.columns, self.loads = columns, 0

    def load(self, plan):
        self.loads += 1
        if isinstance(self.columns, Exception):
            raise self.columns
        return self.columns


class Site:
    """A site with an agent that can be killed: everything but its files is gone then."""

    def __init__(self, folder, url, **options):
        self.home, self.events, self.data = Home(folder), [], Data()
        self.options = {"policy": Policy(allow="any"), "hold_s": 0.0} | options
        line = Line(url)
        with Ledger(folder / "ledger.db") as ledger:
            enrol(self.home, line, token="one-time", name="a", ledger=ledger)
        line.close()

    def agent(self, point=lambda name: None):
        backoff = Backoff(first_s=0.01, most_s=0.02)
        return Agent(self.home, self.data, tell=self.events.append, backoff=backoff, point=point, **self.options)

    def steps(self, count=2, point=lambda name: None):
        with self.agent(point) as agent:
            for _ in range(count):
                agent.step()

    def settled(self):
        return [(event.task, event.verdict) for event in self.events if isinstance(event, Settled)]

    def told(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    def ledger(self):
        with Ledger(self.home.folder / "ledger.db") as ledger:
            assert ledger.verify() == ()
            return [(entry.kind, entry.task, entry.detail) for entry in ledger.entries()]


def info(of=PLAN, run="r1", **changed):
    told = {"plan": plan_bytes(of), "plan_digest": of.digest(), "minimum_cohort": 3} | changed
    return RunInfo(run=run, name=f"study {run}", **told)


def task(server, name="r1-0-0-0", *, plan=PLAN, round=0, inline=True, state_of=None, **changed):
    run = start(plan.algorithm, shoal.Key.from_seed(round))
    container = pack_tree(jax.tree.map(np.asarray, open_round(plan.algorithm, run)))
    manifest = server.add_blob(container)
    told = {"plan_digest": plan.digest(), "seconds_left": 60.0, "most_bytes": 10**6} | changed
    return Task(
        task=name, run=name.split("-")[0], round=round, key=(1, round), model=manifest,
        inline=container if inline else None, state_of=state_of, **told,
    )  # fmt: skip
