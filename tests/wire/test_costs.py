"""What a secure sum is said to cost is what a whole session of the protocol sends."""

from __future__ import annotations

from collections import Counter

import pytest

import shoal
from shoal import Clip, Mean, Quantize, SecureSum, models
from shoal.errors import PlanError
from shoal.wire.costs import Costs
from tests.secure.session import SENT, Clients, clients, play


def plan(threshold, cohort=None):
    chain = Clip(1.0) >> Quantize(1e-4) >> SecureSum(threshold) >> Mean()
    return shoal.Plan(shoal.FedAvg(models.logistic(13), aggregation=chain), rounds=2, cohort=cohort)


@pytest.mark.parametrize(("threshold", "cohort"), [(3, None), (3, 5), (20, 30)])
def test_the_bytes_are_those_of_a_session(threshold, cohort):
    costs = Costs.of(plan(threshold, cohort))
    assert costs.masked is not None
    count = cohort or threshold
    about = clients(count, size=14, slots=4, bits=costs.masked.bits, threshold=threshold)
    group = Clients(about.terms, tuple(f"client of 16 {i:03d}" for i in range(count)))
    passed, bodies = Counter(), set()

    def line(what, client, message, body):
        if client == group.names[0]:
            passed["up" if what in SENT.values() else "down"] += len(message)
            bodies.update({len(body)} - {0})
        return message, body

    play(group, line=line)
    assert (costs.masked.up_bytes, costs.masked.down_bytes) == (passed["up"], passed["down"])
    assert bodies == {costs.up_bytes}
    assert (costs.masked.clients, costs.masked.threshold) == (count, threshold)


def test_a_plan_without_a_secure_sum_has_no_such_costs():
    assert Costs.of(shoal.Plan(shoal.FedAvg(models.logistic(13)), rounds=2)).masked is None


def test_a_sum_that_no_graph_makes_secure_is_a_mistake_in_the_plan():
    with pytest.raises(PlanError, match="cannot be secure"):
        Costs.of(plan(2, 1000))
