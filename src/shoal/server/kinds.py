"""The kinds of runs: with rounds or without, with sums that the server sees into or not."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
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


def machine_of(facts: RunFacts) -> Machine:
    """The machine of a run that nothing has happened to."""
    if facts.rules.buffer is not None:
        return BufferedMachine(facts.run, rules=facts.rules, rounds=facts.plan.rounds)
    key = Key.from_seed(facts.seed)
    return RunMachine(facts.run, rules=facts.rules, sampler=facts.plan.sampler, rounds=facts.plan.rounds, key=key)


def sums_of(
    facts: RunFacts, services: Services, *, take: Take, spawn: Callable[[Coroutine[Any, Any, None]], object]
) -> PlainSums | SecureRun:
    """What adds up the contributions of a run."""
    if facts.plan.algorithm.aggregation.threshold:
        return SecureRun(services, facts, take)
    algorithm, buffered = facts.plan.algorithm, facts.rules.buffer is not None
    return PlainSums(services, algorithm, payload_schema(algorithm), buffered=buffered, spawn=spawn)
