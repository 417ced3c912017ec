"""Agents and a server over TLS, with secure sums: the model of the simulation, also with one that is killed."""

from __future__ import annotations

import numpy as np
import pytest

import shoal
from shoal import Clip, Mean, Quantize, Remember, SecureSum, TopK, Weigh, models
from shoal.client.identity import Home
from shoal.client.ledger import Ledger
from shoal.client.policy import Policy
from shoal.client.roster import FILE, write_roster
from shoal.rounds.rules import Rules
from shoal.wire.signing import public_key_of
from tests.client.federation import Federation
from tests.conftest import classification

SITES = classification(sizes=(7, 20, 12, 16))
WEIGHED = Clip(0.5) >> Weigh(30) >> Quantize(1e-4) >> SecureSum(3) >> Mean()
SPARSE = Remember(TopK(0.4)) >> Clip(0.5) >> Quantize(1e-4) >> SecureSum(3) >> Mean()
LARGE = shoal.FedAvg(models.mlp(4, hidden=(300, 300)), batch_size=4, aggregation=WEIGHED)
SMALL = shoal.FedAvg(models.logistic(4), batch_size=4, aggregation=SPARSE)
KILLED = "c3"
POINTS = ("client-secure-advertise", "client-secure-share", "client-sent-before", "client-secure-confirm",
          "client-secure-answer")  # fmt: skip
"""Before the message of each stage leaves."""


class Secure(Federation):
    """Agents that know each other's keys. One of them dies at one point after the other, and comes back."""

    def __init__(self, folder, points=()):
        super().__init__(folder, SITES)
        self.points = list(points)
        keys = {name: public_key_of(Home(folder / name).private_key) for name in SITES.names}
        for name in SITES.names:
            write_roster(folder / name / FILE, keys)

    def agent(self, name):
        policy = Policy(allow="any", secure_sum=True, minimum_cohort=3, minimum_threshold=0.75)
        return super().agent(name, policy=policy, **({"point": self.point} if name == KILLED else {}))

    def point(self, name):
        if self.points and name == self.points[0]:
            raise SystemExit(self.points.pop(0))


def ran(federation, plan, *, stage_s):
    """The run at its end, and its model."""
    with federation.server() as (coordinator, call):
        token = call(coordinator.token(uses=4))
        for name in SITES.names:
            federation.join(name, token)
        rules = Rules(at_least=3, wait_for=4, stage_s=stage_s)
        run = call(coordinator.submit(plan, name="study", rules=rules, seed=5))
        view = call(coordinator.until_over(run), timeout_s=120)
        assert view.status == "completed", view
        vector = np.asarray(call(coordinator.state(run)).vector)
        federation.stop()
    return view, vector


@pytest.mark.parametrize("work", [LARGE, SMALL], ids=["large", "remembering"])
def test_a_run_with_secure_sums_over_tls_gives_the_model_of_the_simulation_to_the_bit(tmp_path, work):
    plan = shoal.Plan(work, rounds=3)
    federation = Secure(tmp_path)
    view, vector = ran(federation, plan, stage_s=60.0)
    simulated = shoal.simulate(plan, SITES, seed=5, runtime="local")
    assert np.linalg.norm(vector) > 0 and vector.tobytes() == simulated.vector.tobytes()
    assert view.history[-1].metrics["loss"] == pytest.approx(simulated.history.rows[-1]["loss"], abs=1e-5)
    for site in SITES.names:
        with Ledger(federation.folder / site / "ledger.db") as ledger:
            assert ledger.verify() == ()
            kinds = [entry.kind for entry in ledger.entries()][1:]
        assert kinds == ["keys", "keys", "result", "verdict", "keys", "keys"] * 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the thread that is killed
def test_a_site_that_is_killed_in_every_stage_costs_its_own_contribution_if_that_had_not_arrived(tmp_path):
    plan = shoal.Plan(SMALL, rounds=6)
    view, vector = ran(Secure(tmp_path, POINTS), plan, stage_s=5.0)
    assert [round.clients for round in view.history] == [3, 3, 3, 4, 4, 4]
    there = shoal.Availability(online=lambda round, check: [n for n in SITES.names if round > 3 or n != KILLED])
    simulated = shoal.simulate(plan, SITES, seed=5, runtime="local", availability=there)
    assert vector.tobytes() == simulated.vector.tobytes()


def test_a_site_that_the_others_do_not_know_stops_the_sum_and_the_operator_reads_whose_line_to_bring(tmp_path):
    federation = Secure(tmp_path)
    known = {name: public_key_of(Home(tmp_path / name).private_key) for name in SITES.names if name != KILLED}
    for name in known:
        write_roster(tmp_path / name / FILE, known)
    with federation.server() as (coordinator, call):
        token = call(coordinator.token(uses=4))
        for name in SITES.names:
            federation.join(name, token)
        rules = Rules(at_least=3, wait_for=4, stage_s=2.0, retries=0)
        run = call(coordinator.submit(shoal.Plan(SMALL, rounds=1), name="study", rules=rules, seed=5))
        view = call(coordinator.until_over(run), timeout_s=60)
        federation.stop()
    assert view.status == "paused"
    assert "has 'c3', which is not on this client's roster" in view.reason
