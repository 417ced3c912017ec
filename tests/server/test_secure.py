"""Secure sums over the network: a server that never sees a contribution ends in the model of the simulation."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import shoal
from shoal import Clip, Mean, Quantize, SecureSum, models
from shoal.errors import PlanError
from shoal.rounds.rules import Rules
from shoal.secure.messages import Advertisement, decode, encode
from shoal.store.store import open_store
from tests.server.sites import STAGES, Refused, Server, Sites, Turn

NAMES = ("a", "b", "c", "d")
MASKED = Clip(1.0) >> Quantize(1e-3) >> SecureSum(threshold=3) >> Mean()
RULES = Rules(at_least=3, wait_for=4, stage_s=20.0)


def plan(rounds=1, aggregation=MASKED):
    return shoal.Plan(shoal.FedAvg(models.logistic(5), batch_size=10, aggregation=aggregation), rounds=rounds)


@pytest.fixture(scope="module")
def population():
    random = np.random.default_rng(2)
    x = random.standard_normal((80, 5), np.float32)
    return shoal.Population.from_arrays(x, (x.sum(1) > 0).astype(np.int32), groups=np.repeat(NAMES, 20))


@pytest.fixture
def start(tmp_path, tls):
    """Starts servers of plans, which end with the test."""
    begun = []

    def start(plan):
        store = open_store("memory:")
        server = Server(tmp_path, store, tls, plan)
        server.start()
        begun.append((server, store))
        return server

    yield start
    for server, store in begun:
        server.stop()
        store.close()


def simulated(plan, population, names=NAMES):
    """What a simulation of these clients ends in."""
    x, y = (np.concatenate([population[name].rows(column) for name in names]) for column in ("x", "y"))
    some = shoal.Population.from_arrays(x, y, groups=np.repeat(names, len(y) // len(names)))
    return shoal.simulate(plan, some, seed=7, runtime="local", progress="off")


def ran(server, sites, rules=RULES):
    with sites.there():
        run = server.submit(rules)
        return run, server.wait_over(run)


def sites_of(server, population, before=lambda site, task, stage: True):
    return Sites(server, {name: population[name] for name in NAMES}, before)


def test_the_model_and_its_metrics_are_those_of_a_simulation(start, population):
    server = start(plan(rounds=3))
    sites = sites_of(server, population)
    run, view = ran(server, sites)
    wanted = shoal.simulate(plan(rounds=3), population, seed=7, runtime="local", progress="off")
    assert np.array_equal(server.vector(run), wanted.vector)
    assert [(past.round, past.attempt, past.status, past.clients) for past in view.history] == [
        (number, 0, "closed", 4) for number in range(3)
    ]  # fmt: skip
    losses = [past.metrics["loss"] for past in view.history]
    assert losses == pytest.approx([row["loss"] for row in wanted.history], rel=1e-5)
    assert all(site.verdicts == ["counted"] * 3 for site in sites.sites.values())
    assert len({session for site in sites.sites.values() for session in site.sessions}) == 3
    for number in range(3):  # nothing of a session outlives its round
        at = {"run": run, "round": number, "attempt": 0}
        assert server.store.read("secure_steps", **at) == server.store.read("secure_terms", **at) == []
    assert len(list(server.coordinator.blobs.ids())) == 2


@pytest.mark.parametrize("lost_at", STAGES)
def test_a_client_that_is_lost_at_any_stage_costs_at_most_its_own_contribution(start, population, lost_at):
    server = start(plan())
    sites = sites_of(server, population, lambda site, task, stage: (site.name, stage) != ("b", lost_at))
    in_sum = NAMES if lost_at in ("confirm", "answer") else ("a", "c", "d")
    wanted = simulated(plan(), population, in_sum)
    run, view = ran(server, sites, Rules(at_least=3, wait_for=4, stage_s=0.7, deadline_s=5.0))
    assert [(past.status, past.clients) for past in view.history] == [("closed", len(in_sum))]
    assert np.array_equal(server.vector(run), wanted.vector)
    (row,) = [row for row in server.store.read("tasks_of_round", run=run, round=0, attempt=0) if row["client"] == "b"]
    late = {"advertise": "declined", "share": "declined", "mask": "expired"}
    assert row["status"] == late.get(lost_at, "counted")


@pytest.mark.parametrize("lost_at", ["share", "answer"])
def test_an_attempt_with_too_few_is_abandoned_and_tried_again_with_new_keys(start, population, lost_at):
    def before(site, task, stage):
        return not (site.name in ("b", "c") and stage == lost_at and site.sessions[0] == site.sessions[-1])

    server = start(plan())
    sites = sites_of(server, population, before)
    wanted = simulated(plan(), population)
    run, view = ran(server, sites, Rules(at_least=3, wait_for=4, stage_s=0.7))
    assert [past.status for past in view.history] == ["abandoned", "closed"]
    assert "2 clients" in view.history[0].reason and "it takes 3" in view.history[0].reason
    assert np.array_equal(server.vector(run), wanted.vector)
    assert all(len(set(site.sessions)) == 2 for site in sites.sites.values())
    if lost_at == "share":
        assert sites.sites["a"].codes == ["secure-over"]


def test_attempts_that_never_come_to_a_sum_pause_the_run_and_say_why(start, population):
    server = start(plan())
    sites = sites_of(server, population, lambda site, task, stage: site.name < "c" or stage != "share")
    _, view = ran(server, sites, Rules(at_least=3, wait_for=4, stage_s=0.3, retries=1))
    assert view.status == "paused"
    assert "was abandoned 2 times" in view.reason and "shared their secrets" in view.reason


@pytest.mark.parametrize("stage", STAGES)
def test_a_server_that_starts_again_goes_on_with_the_same_session(start, population, stage):
    server = start(plan())
    everybody = threading.Barrier(4, action=server.restart)

    def before(site, task, now):
        if now == stage:
            everybody.wait(30)
        return True

    sites = sites_of(server, population, before)
    wanted = simulated(plan(), population)
    run, view = ran(server, sites)
    assert server.starts == 2
    assert [(past.attempt, past.status) for past in view.history] == [(0, "closed")]
    assert np.array_equal(server.vector(run), wanted.vector)
    assert all(site.verdicts == ["counted"] and not site.codes for site in sites.sites.values())


@pytest.mark.parametrize("stage", STAGES)
def test_a_server_that_starts_again_when_half_of_a_stage_has_come_goes_on_with_the_same_session(
    start, population, stage
):
    server = start(plan())
    half, later = threading.Barrier(2, action=server.restart), threading.Event()

    def before(site, task, now):
        if now == stage and site.name in ("c", "d"):
            until = {name: STAGES.index(stage) for name in ("a", "b")}
            while any(len(spoken[name]) <= place for name, place in until.items()):
                later.wait(0.02)
            half.wait(30)
        return True

    spoken = {name: [] for name in NAMES}

    class Speaking(Turn):
        def say(self, stage, message, *, wait_s=0.0):
            answer = super().say(stage, message, wait_s=wait_s)
            if stage not in spoken[self.site.name]:
                spoken[self.site.name].append(stage)
            return answer

    sites = sites_of(server, population, before)
    for site in sites.sites.values():
        site.turn = Speaking
    wanted = simulated(plan(), population)
    run, view = ran(server, sites)
    assert server.starts == 2
    assert [(past.attempt, past.status, past.clients) for past in view.history] == [(0, "closed", 4)]
    assert np.array_equal(server.vector(run), wanted.vector)


def test_wrong_messages_are_refused_and_change_nothing(start, population):
    server = start(plan())
    refused = {}

    class Wrong(Turn):
        def step(self, stage, message):
            name = self.site.name
            if stage == "advertise" and name == "a":
                sent = decode(message, Advertisement)
                other = encode(Advertisement("b", sent.box_key, sent.mask_key, sent.signature))
                changed = encode(Advertisement("a", sent.mask_key, sent.box_key, sent.signature))
                for said, kind in ((b"\xc1", "noise"), (other, "another's"), (changed, "unsigned")):
                    self.refused(kind, stage, said)
                self.refused("early", "answer", message)
                self.refused("not uploaded", "mask", message)
            if stage == "share" and name == "a":
                self.refused("second", "advertise", encode(Advertisement("a", b"1" * 32, b"2" * 32, b"3" * 64)))
            if stage == "confirm" and name == "a":
                self.refused("over", "share", b"another")
            return super().step(stage, message)

        def refused(self, kind, stage, message):
            self.site.waits = False
            try:
                self.say(stage, message)
            except Refused as error:
                refused[kind] = error.code
            self.site.waits = True

    sites = sites_of(server, population)
    sites.sites["a"].turn = Wrong
    wanted = simulated(plan(), population)
    run, _ = ran(server, sites)
    assert refused == {
        "noise": "rejected", "another's": "rejected", "unsigned": "rejected", "early": "busy",
        "not uploaded": "conflict", "second": "rejected", "over": "rejected",
    }  # fmt: skip
    assert np.array_equal(server.vector(run), wanted.vector)


@pytest.mark.parametrize("wrong", ["unmasked", "another body", "too long"])
def test_a_result_that_is_no_masked_contribution_is_rejected_and_the_others_are_summed(start, population, wrong):
    server = start(plan())

    class Wrong(Turn):
        def report(self, message, body):
            match wrong:
                case "unmasked":
                    return super().report(None, body)
                case "another body":
                    return super().report(message, bytes(len(body)))
                case _:
                    return super().report(message, body + bytes(8))

    sites = sites_of(server, population)
    sites.sites["d"].turn = Wrong
    wanted = simulated(plan(), population, NAMES[:3])
    run, view = ran(server, sites)
    assert sites.sites["d"].verdicts == ["rejected"]
    assert [past.clients for past in view.history] == [3]
    assert np.array_equal(server.vector(run), wanted.vector)


def test_nobody_speaks_for_another_and_no_task_of_another_kind_has_a_sum(start, population):
    server = start(plan())
    codes = {}

    class Thief(Turn):
        def step(self, stage, message):
            own = self.task
            for name, task in (("another's", own.task[:-1] + str(1 - int(own.task[-1]) % 2)), ("none", "x-0-0-0")):
                self.task = type(own)(
                    **{field: getattr(own, field) for field in own.__struct_fields__} | {"task": task}
                )
                try:
                    self.say(stage, message)
                except Refused as refused:
                    codes[name] = refused.code
            self.task = own
            return super().step(stage, message)

    sites = sites_of(server, population)
    sites.sites["b"].turn = Thief
    ran(server, sites)
    assert codes == {"another's": "not-yours", "none": "task-unknown"}


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (Rules(at_least=2), "shows itself from 3 on: use Rules\\(at_least=3\\)"),
        (Rules(at_least=3, over_selection=2.0), "over_selection is at most 1.5 with a secure sum, not 2.0"),
        (Rules(at_least=3, buffer=3), "staleness weights need float sums"),
    ],
)
def test_rules_under_which_no_secure_sum_comes_about_are_refused(start, rules, said):
    server = start(plan())
    with pytest.raises(PlanError, match=said):
        server.submit(rules)


def test_a_threshold_that_cannot_be_secure_for_a_large_cohort_is_refused(start):
    large = shoal.Plan(plan().algorithm, rounds=1, cohort=1000)
    server = start(large)
    with pytest.raises(PlanError, match=r"1200 clients are asked in a round: .*cannot be secure: a threshold of"):
        server.submit(Rules(at_least=3, over_selection=1.2))


def test_without_rules_a_round_waits_for_as_many_as_the_sum_needs(start):
    server = start(plan())

    async def submit():
        run = await server.coordinator.submit(server.plan, name="run")
        return server.coordinator.run(run).waits_for

    assert server.call(submit) == "round 1 waits for 3 clients; there: 0"
