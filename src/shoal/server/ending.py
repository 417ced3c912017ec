"""The end of a round: from the rows of its tasks to the next model on the disk, and what makes that durable."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from shoal.aggregation import Bag, Payload
from shoal.server import closing
from shoal.server.keeping import Kept
from shoal.server.records import RunFacts, Stored, closing_writes, round_rows
from shoal.server.services import Services
from shoal.store.store import Row, Write

Adds = Callable[[Sequence[Row]], Awaitable[Payload | Bag | None]]
"""The sum of the contributions in rows of tasks."""


@dataclass(frozen=True)
class Ended:
    """A round that ended: its model, whose blobs are there, the clients whose state is another one now with the tasks
    after which it is, and what makes all of it durable."""

    outcome: closing.Outcome
    made: Stored
    released: Mapping[str, str]
    writes: Sequence[Write]


async def ended(
    services: Services, facts: RunFacts, kept: Kept, *, round: int, attempt: int, tasks: Sequence[str], adds: Adds
) -> Ended:
    """Makes the next model of the contributions of these tasks. Its noise is drawn when the ledger has its release."""
    algorithm, model, seed = facts.plan.algorithm, kept.model, facts.seed
    rows = await services.thread(lambda: _rows(services, facts, round, attempt))
    total = await adds([rows[task] for task in tasks])
    await services.spending.record(facts.plan, run=facts.run, round=round, attempt=attempt, time=services.wall())
    outcome = await services.thread(lambda: closing.close(algorithm, model, total, seed=seed, round=round))
    made = await kept.keep(outcome.model)
    remembered = outcome.released and closing.remembers(algorithm)
    released = {rows[task]["client"]: task for task in tasks} if remembered else {}
    writes = closing_writes(
        facts, services, round=round, attempt=attempt, outcome=outcome, made=made, rows=list(rows.values()),
        released=released,
    )  # fmt: skip
    return Ended(outcome, made, released, writes)


def _rows(services: Services, facts: RunFacts, round: int, attempt: int) -> dict[str, Row]:
    buffered = facts.rules.buffer is not None
    return {row["id"]: row for row in round_rows(services.store, facts.run, round, attempt, buffered=buffered)}
