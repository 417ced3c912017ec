"""The kinds of runs: with rounds or without, with sums that the server sees into or not."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from shoal.key import Key
from shoal.rounds.buffered import BufferedMachine
from shoal.rounds.machine import Machine
from shoal.rounds.synchronous import RunMachine
from shoal.server.records import RunFacts
from shoal.server.secure import Take
from shoal.server.secure_run import SecureRun
from shoal.server.services import Services
from shoal.server.sums import PlainSums
from shoal.wire.payloads import payload_schema


def machine_of(facts: RunFacts, services: Services) -> Machine:
    """The machine of a run that nothing has happened to. It opens no round that would overspend the budget."""
    plan, rules = facts.plan, facts.rules
    why_not = partial(services.spending.why_not, plan)
    if rules.buffer is not None:
        return BufferedMachine(facts.run, rules=rules, rounds=plan.rounds, why_not=why_not)
    key = Key.from_seed(facts.seed)
    return RunMachine(facts.run, rules=rules, sampler=plan.sampler, rounds=plan.rounds, key=key, why_not=why_not)


def sums_of(
    facts: RunFacts, services: Services, *, take: Take, spawn: Callable[[Coroutine[Any, Any, None]], object]
) -> PlainSums | SecureRun:
    """What adds up the contributions of a run."""
    if facts.plan.algorithm.aggregation.threshold:
        return SecureRun(services, facts, take)
    algorithm, buffered = facts.plan.algorithm, facts.rules.buffer is not None
    return PlainSums(services, algorithm, payload_schema(algorithm), buffered=buffered, spawn=spawn)
