"""A run in the store: what its machine's effects are as rows, and what the rows say of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from shoal.plan import Plan
from shoal.rounds.events import Abandoned, Became, Close, Effect, Issued, Opened, Settled
from shoal.rounds.rules import Rules
from shoal.rounds.snapshot import Snapshot, TaskRow
from shoal.server.closing import Outcome
from shoal.server.services import Services
from shoal.store.store import Row, Store, Write
from shoal.wire.messages import Manifest

Stored = tuple[Manifest, Manifest]
"""The blobs of a run's state and of what its clients are sent."""


@dataclass(frozen=True)
class RunFacts:
    """What does not change in a run."""

    run: str
    name: str
    plan: Plan
    rules: Rules
    seed: int


@dataclass(frozen=True)
class Contribution:
    """A result that may count: its blob, and how long its work took."""

    manifest: Manifest
    train_s: float


@dataclass(frozen=True)
class Record:
    """What is durable of a run: how far its writes are, its model, its open round's tasks, and clients' states."""

    step: int
    stored: Stored
    saved: Snapshot
    rows: tuple[Row, ...]
    current: dict[str, str]
    terms: bytes | None = None
    steps: tuple[Row, ...] = ()
    """Of the open attempt's secure sum: its terms, and the messages that came."""


def writes_of(
    effect: Effect, facts: RunFacts, services: Services, *, attempt: int, given: Contribution | None
) -> Iterable[Write]:
    """What makes an effect durable. `given` is the result that counts, if one does."""
    run, now = facts.run, services.wall()
    match effect:
        case Opened(round, attempt, cohort, _):
            opened = {"run": run, "round": round, "attempt": attempt, "cohort": cohort, "opened": now}
            yield Write("round_open", opened, wants=1)
        case Issued(task, client, round, attempt, position):
            yield Write("task_issue", {"id": task, "run": run, "round": round, "attempt": attempt, "client": client,
                                        "position": position, "issued": now}, wants=1)  # fmt: skip
        case Settled(task, status, reason, scale):
            counts = given if status == "counted" else None
            yield Write(
                "task_settle",
                {
                    "id": task,
                    "status": status,
                    "reason": reason,
                    "scale": scale,
                    "manifest": msgspec.msgpack.encode(counts.manifest) if counts else None,
                    "bytes": counts.manifest.size_bytes if counts else 0,
                    "train_s": counts.train_s if counts else 0.0,
                    "settled": now,
                },
                wants=1,
            )
        case Close(round, tasks):
            yield Write("round_closing", {"run": run, "round": round, "attempt": attempt})
            for task in tasks:
                yield Write("task_sum", {"id": task, "summed": round})
        case Abandoned(round, attempt, reason):
            ended = {"run": run, "round": round, "attempt": attempt, "reason": reason, "closed": now}
            yield Write("round_abandon", ended)
            yield Write("tasks_discard", {"run": run, "round": round})
        case Became(status, reason):
            yield Write("run_status", {"id": run, "status": status, "reason": reason, "updated": now}, wants=1)
            yield from services.audit("server", f"run {status}", run, reason)


def closing_writes(
    facts: RunFacts, services: Services, *, round: int, attempt: int, outcome: Outcome, made: Stored,
    rows: Sequence[Row], released: Mapping[str, str],
) -> list[Write]:  # fmt: skip
    """What makes a round's end durable: its model, from the rows of its tasks. `released` has the tasks after which
    clients' states are the current ones."""
    now = services.wall()
    rejected = Counter(
        row["reason"] for row in rows
        if row["status"] == "rejected" and (row["round"], row["attempt"]) == (round, attempt)
    )  # fmt: skip
    state, call = map(msgspec.msgpack.encode, made)
    return [
        Write("round_close", {"run": facts.run, "round": round, "attempt": attempt, "closed": now,
                              "clients": outcome.clients, "metrics": outcome.metrics,
                              "rejected": json.dumps(rejected)}, wants=1),
        Write("run_advance", {"id": facts.run, "round": round + 1, "state": state, "model": call,
                              "updated": now}, wants=1),
        *(Write("release", {"run": facts.run, "client": client, "task": task})
          for client, task in released.items()),
    ]  # fmt: skip


def read_record(store: Store, run: str, *, buffered: bool) -> Record:
    """What a run is built from again."""
    (row,) = store.read("run", id=run)
    found = store.read("round_last", run=run)
    last = found[0] if found and found[0]["round"] == row["round"] else None
    live = last is not None and last["status"] in ("open", "closing")
    attempt = 0 if last is None else last["attempt"] + (0 if live else 1)
    rows = round_rows(store, run, row["round"], attempt, buffered=buffered)
    tasks = tuple(
        TaskRow(t["id"], t["client"], t["round"], t["attempt"], t["position"], t["status"], t["scale"]) for t in rows
    )
    closes = live and last is not None and last["status"] == "closing"
    closing = tuple(t["id"] for t in rows if t["summed"] == row["round"]) if closes else None
    cohort = last["cohort"] if live and last is not None else None
    at = {"run": run, "round": row["round"], "attempt": attempt}
    terms, steps = store.read("secure_terms", **at), store.read("secure_steps", **at)
    sealed = any(step["stage"] == "advertise" and not step["client"] for step in steps)
    saved = Snapshot(row["status"], row["reason"], row["round"], attempt, cohort, tasks, closing, sealed)
    current = {released["client"]: released["task"] for released in store.read("released", run=run)}
    secure = (bytes(terms[0]["terms"]), tuple(steps)) if terms else (None, ())
    return Record(row["step"], stored_of(row), saved, tuple(rows), current, *secure)


def round_rows(store: Store, run: str, round: int, attempt: int, *, buffered: bool) -> list[Row]:
    """The tasks that an open round is made of."""
    rows = store.read("tasks_of_round", run=run, round=round, attempt=attempt)
    if not buffered:
        return rows
    every = {row["id"]: row for row in (*store.read("tasks_open", run=run), *rows)}
    return sorted(every.values(), key=lambda row: (row["settled"] or 0.0, row["id"]))


def stored_of(row: Mapping[str, Any]) -> Stored:
    """The blobs of a run's row."""
    decode = msgspec.msgpack.Decoder(Manifest).decode
    return decode(row["state"]), decode(row["model"])


def manifest_of_row(row: Mapping[str, Any]) -> Manifest:
    """The blob of a task's result."""
    return msgspec.msgpack.decode(row["manifest"], type=Manifest)
