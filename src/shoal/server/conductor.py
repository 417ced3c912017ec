"""One run on the server: its machine, what is durable of it, and its sums.

The machine decides, this carries out. Whatever an event leads to is one transaction; nobody is told of it before it
is durable. If the store fails, the machine is built anew from what is durable, as after a restart.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from shoal.algorithms import Algorithm
from shoal.errors import ServerError, ShoalError, StoreError, WireError
from shoal.key import Key
from shoal.plan import Plan
from shoal.rounds.buffered import BufferedMachine
from shoal.rounds.events import (
    Abandoned,
    Became,
    Broke,
    Cancel,
    Close,
    Closed,
    Dropped,
    Effect,
    Event,
    Gone,
    Issued,
    Opened,
    Pause,
    Refused,
    Reported,
    Resume,
    Seen,
    Settled,
    Tick,
)  # fmt: skip
from shoal.rounds.machine import RunMachine
from shoal.rounds.rules import Rules
from shoal.rounds.snapshot import Snapshot, TaskRow
from shoal.server import closing
from shoal.server.services import Services
from shoal.server.sums import RoundSum, check
from shoal.store.faults import point
from shoal.store.incoming import Incoming
from shoal.store.store import Write
from shoal.wire.blobs import blob_id
from shoal.wire.messages import INLINE_BYTES, Declined, Manifest, Missing, Result, RunInfo, Task, Upload, Verdict
from shoal.wire.payloads import payload_schema
from shoal.wire.plans import plan_bytes

_VERDICTS = {"counted": "counted", "rejected": "rejected", "cancelled": "cancelled"}


Stored = tuple[Manifest, Manifest]
"""The blobs of a run's state and of what its clients are sent."""


@dataclass
class _Held:
    """A task that is given out: whose it is, and what its client is sent."""

    client: str
    message: Task
    until: float
    offered: Manifest | None = None
    arriving: Incoming | None = None
    """Held as long as the task is: whoever asks for it anew has to hash what has come."""


@dataclass(frozen=True)
class RunFacts:
    """What does not change in a run."""

    run: str
    name: str
    plan: Plan
    rules: Rules
    seed: int


@dataclass
class _Last:
    """The newest write of a run, and whether one failed."""

    written: asyncio.Future[None] | None = None
    broken: bool = False
    reporting: dict[str, tuple[str, asyncio.Future[Verdict]]] = field(default_factory=dict)


class Conductor:
    """Carries a run from its first round to its last."""

    def __init__(self, services: Services, facts: RunFacts, model: closing.Model, stored: Stored) -> None:
        self.facts, self._services = facts, services
        self._algorithm: Algorithm[Any, Any, Any] = facts.plan.algorithm
        self._schema = payload_schema(self._algorithm)
        self._most = self._schema.most_bytes
        self._model, (self._state, self._call) = model, stored
        services.hold(*stored)
        self._remembers = closing.remembers(self._algorithm)
        self._current: dict[str, str] = {}
        self._held: dict[str, _Held] = {}
        self._of: dict[str, str] = {}
        self._seen: set[str] = set()
        self._counted: dict[str, Manifest] = {}
        self._rejected: dict[str, int] = {}
        self._sum = self._new_sum()
        self._last = _Last()
        self._timer: asyncio.TimerHandle | None = None
        self._jobs: set[asyncio.Task[None]] = set()
        self._machine = self._new_machine()

    # what the coordinator asks

    @property
    def status(self) -> str:
        """The run's status."""
        return self._machine.status

    @property
    def reason(self) -> str:
        """Why it has that status."""
        return self._machine.reason

    @property
    def round(self) -> int:
        """How many rounds are closed."""
        return self._machine.round

    @property
    def there(self) -> frozenset[str]:
        """The clients that would take a task."""
        return frozenset(self._seen)

    def tasks(self) -> dict[str, int]:
        """Tasks that are given out and not reported, and contributions counted in the open round."""
        return {"issued": len(self._held), "counted": len(self._counted)}

    def waits_for(self) -> str:
        """A sentence: why nothing happens right now; empty if something does."""
        rules = self.facts.rules
        if self.status == "waiting":
            wanted = rules.opens_with(self.facts.plan.sampler)
            return f"round {self.round + 1} waits for {wanted} clients; there: {len(self._seen)}"
        if self.status in ("open", "pausing") and self._held:
            names = ", ".join(sorted(held.client for held in self._held.values())[:5])
            return f"round {self.round + 1} waits for {len(self._held)} results: {names}"
        return ""

    @property
    def model(self) -> closing.Model:
        """The model after the last closed round."""
        return self._model

    def info(self) -> RunInfo:
        """What a client is told before it decides."""
        plan = self.facts.plan
        return RunInfo(
            run=self.facts.run, name=self.facts.name, plan=plan_bytes(plan), plan_digest=plan.digest(),
            minimum_cohort=self.facts.rules.at_least,
        )  # fmt: skip

    def task_of(self, client: str) -> Task | None:
        """The task that a client has in this run, to be sent to it; None if it has none."""
        held = self._held.get(self._of.get(client, ""))
        if held is None:
            return None
        return msgspec.structs.replace(held.message, seconds_left=max(0.0, held.until - self._now()))

    def names_blob(self, client: str, blob: str) -> bool:
        """Whether a client's task says that it may have a blob."""
        held = self._held.get(self._of.get(client, ""))
        return held is not None and blob_id(held.message.model) == blob

    def seen(self, client: str) -> asyncio.Future[None] | None:
        """A client would take a task. What to wait for before it is told of one."""
        if client in self._of or client in self._seen:
            return None
        self._seen.add(client)
        return self._handle(Seen(client))

    def gone(self, client: str) -> None:
        """A client would not take a task."""
        if client in self._seen:
            self._seen.discard(client)
            self._handle(Gone(client))

    async def command(self, what: str) -> None:
        """Pauses, resumes or cancels; done when it is durable."""
        event: Event = {"pause": Pause("paused by an operator"), "resume": Resume(), "cancel": Cancel()}[what]
        written = self._handle(event)
        if written is not None:
            await written

    async def offer(self, client: str, task: str, message: Upload) -> Missing | Verdict:
        """Which parts of a result are wanted."""
        held = await self._open_task(client, task)
        if isinstance(held, Verdict):
            return held
        if message.manifest.size_bytes > self._most or message.manifest.raw_bytes > self._most:
            return await self._refuse(task, f"a result of this run has at most {self._most:,} bytes")
        if held.offered is not None and held.offered != message.manifest:
            self._services.blobs.incoming(task, held.offered).abandon()
        held.offered = message.manifest
        if self._services.blobs.has(blob_id(message.manifest)):
            return Missing(parts=())
        held.arriving = await self._services.thread(self._services.blobs.incoming, task, message.manifest)
        return Missing(parts=held.arriving.missing())

    def incoming(self, client: str, task: str) -> Incoming:
        """Where the parts of a result are written."""
        held = self._held.get(task)
        if held is None or held.client != client:
            raise ServerError(f"{task} is not a task of yours that is open", code="task-unknown")
        if held.offered is None:
            raise ServerError("say first what will be uploaded (POST .../upload)", code="not-offered")
        if held.arriving is not None and held.arriving.open and held.arriving.manifest == held.offered:
            return held.arriving
        return self._services.blobs.incoming(task, held.offered)

    async def report(self, client: str, task: str, message: Result) -> Verdict:
        """What becomes of a result. The same report again has the same answer."""
        identity = blob_id(message.manifest)
        running = self._last.reporting.get(task)
        if running is not None:
            if running[0] != identity:
                raise ServerError(f"another result of {task} is being taken", code="conflict")
            return await asyncio.shield(running[1])
        held = await self._open_task(client, task)
        if isinstance(held, Verdict):
            return held
        answer: asyncio.Future[Verdict] = asyncio.ensure_future(self._take(task, message))
        self._last.reporting[task] = identity, answer
        answer.add_done_callback(lambda _: self._last.reporting.pop(task, None))
        return await asyncio.shield(answer)

    async def decline(self, client: str, task: str, message: Declined) -> Verdict:
        """A client does not do a task."""
        held = await self._open_task(client, task)
        if isinstance(held, Verdict):
            return held
        reason = f"{message.reason}: {message.message}" if message.message else message.reason
        written = self._handle(Dropped(task, reason[:500]))
        if written is not None:
            await written
        return Verdict(verdict="cancelled", message=message.reason)

    async def stop(self) -> None:
        """Ends what is under way; everything durable stays."""
        if self._timer is not None:
            self._timer.cancel()
        for job in list(self._jobs):
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    # results

    async def _open_task(self, client: str, task: str) -> _Held | Verdict:
        held = self._held.get(task)
        if held is not None:
            if held.client != client:
                raise ServerError(f"{task} is another client's task", code="not-yours")
            return held
        rows = await self._services.thread(self._services.store.read, "task", id=task)
        if not rows or rows[0]["run"] != self.facts.run:
            raise ServerError(f"there is no task {task}", code="task-unknown")
        if rows[0]["client"] != client:
            raise ServerError(f"{task} is another client's task", code="not-yours")
        return _verdict(rows[0]["status"], rows[0]["reason"] or "")

    async def _take(self, task: str, message: Result) -> Verdict:
        """Brings a result to the disk, looks at it, and counts it."""
        blobs = self._services.blobs
        try:
            if not blobs.has(blob_id(message.manifest)):
                incoming = blobs.incoming(task, message.manifest)
                if message.inline is not None:
                    incoming.put(0, message.inline)
                await self._services.thread(incoming.commit)
        except WireError as error:
            return await self._refuse(task, str(error))
        point("result on disk")
        self._services.hold(message.manifest)
        try:
            await self._services.thread(check, self._algorithm, self._schema, blobs, message.manifest)
        except WireError as error:
            verdict = await self._refuse(task, str(error))
            self._services.let_go(message.manifest)
            return verdict
        about = {"manifest": msgspec.msgpack.encode(message.manifest), "bytes": message.manifest.size_bytes,
                 "train_s": message.train_s}  # fmt: skip
        self._counted[task] = message.manifest
        written = self._handle(Reported(task), about)
        if written is None:  # its round closed meanwhile
            del self._counted[task]
            self._services.let_go(message.manifest)
            rows = await self._services.thread(self._services.store.read, "task", id=task)
            return _verdict(rows[0]["status"], rows[0]["reason"] or "")
        await written
        point("result counted")
        rows = await self._services.thread(self._services.store.read, "task", id=task)
        return _verdict(rows[0]["status"], rows[0]["reason"] or "")

    async def _refuse(self, task: str, reason: str) -> Verdict:
        written = self._handle(Refused(task, reason[:500]))
        if written is not None:
            await written
        return Verdict(verdict="rejected", message=reason[:500])

    # events and effects

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _handle(self, event: Event, about: dict[str, Any] | None = None) -> asyncio.Future[None] | None:
        """Lets the machine take an event; the future is done when all that follows is durable."""
        effects = self._machine.handle(event, self._now())
        self._set_timer()
        return self._carry_out(effects, about or {}) if effects else None

    def _carry_out(self, effects: list[Effect], about: dict[str, Any]) -> asyncio.Future[None]:
        writes: list[Write] = []
        woken: list[str] = []
        for effect in effects:
            writes.extend(self._writes(effect, about))
            match effect:
                case Issued():
                    self._issue(effect)
                    woken.append(effect.client)
                case Settled(task, status, reason):
                    self._settle(task, status, reason, woken)
                case Abandoned():
                    self._services.let_go(*self._counted.values())
                    self._counted = {}
                case Opened():
                    self._rejected = {}
                case _:
                    pass
        point("before effects")
        written = asyncio.wrap_future(self._services.store.write(*writes))
        done: asyncio.Future[None] = asyncio.ensure_future(self._durable(written, effects, woken, about))
        self._keep(done)
        return done

    async def _durable(
        self, written: asyncio.Future[None], effects: list[Effect], woken: list[str], about: dict[str, Any]
    ) -> None:
        try:
            await written
        except StoreError as error:
            await self._reload()
            raise ServerError(f"the store failed: {error}", code="store", retry_after_s=5.0) from error
        point("after effects")
        for client in woken:
            self._services.wake(client)
        for effect in effects:
            match effect:
                case Settled(task, status) if self.facts.rules.buffer is None:
                    self._spawn(self._sum.settled(_position(task), self._counted_as(task, status)))
                case Opened():
                    self._sum = self._new_sum()
                case Close(round, tasks):
                    self._spawn(self._close(round, tasks))
                case Became(status):
                    self._services.changed(self.facts.run, status)
                case _:
                    pass

    def _counted_as(self, task: str, status: str) -> tuple[str, Manifest] | None:
        return (task, self._counted[task]) if status == "counted" and task in self._counted else None

    def _issue(self, effect: Issued) -> None:
        key = Key.from_seed(self.facts.seed).split("round", effect.round).split("client", effect.client)
        small = len(self._model.call) <= INLINE_BYTES
        message = Task(
            task=effect.task, run=self.facts.run, plan_digest=self.facts.plan.digest(), round=effect.round,
            key=(int(key.high), int(key.low)), model=self._call, inline=self._model.call if small else None,
            state_of=self._current.get(effect.client), seconds_left=self.facts.rules.deadline_s, most_bytes=self._most,
        )  # fmt: skip
        self._services.hold(self._call)
        self._held[effect.task] = _Held(effect.client, message, self._now() + self.facts.rules.deadline_s)
        self._of[effect.client] = effect.task
        self._seen.discard(effect.client)

    def _settle(self, task: str, status: str, reason: str, woken: list[str]) -> None:
        if status == "rejected":
            self._rejected[reason] = self._rejected.get(reason, 0) + 1
        held = self._held.pop(task, None)
        if held is not None:
            self._of.pop(held.client, None)
            self._services.let_go(held.message.model)
            woken.append(held.client)

    def _writes(self, effect: Effect, about: dict[str, Any]) -> Iterable[Write]:
        run, now = self.facts.run, self._services.wall()
        match effect:
            case Opened(round, attempt, cohort, _):
                given = {"run": run, "round": round, "attempt": attempt, "cohort": cohort, "opened": now}
                yield Write("round_open", given)
            case Issued(task, client, round, attempt, position):
                yield Write("task_issue", {"id": task, "run": run, "round": round, "attempt": attempt, "client": client,
                                            "position": position, "issued": now})  # fmt: skip
            case Settled(task, status, reason, scale):
                given = {"manifest": None, "bytes": 0, "train_s": 0.0, **(about if status == "counted" else {})}
                about_it = {"id": task, "status": status, "reason": reason, "scale": scale, "settled": now}
                yield Write("task_settle", about_it | given, wants=1)
            case Close(round, tasks):
                yield Write("round_closing", {"run": run, "round": round, "attempt": self._machine.attempt})
                for task in tasks:
                    yield Write("task_sum", {"id": task, "summed": round})
            case Abandoned(round, attempt, reason):
                given = {"run": run, "round": round, "attempt": attempt, "reason": reason, "closed": now}
                yield Write("round_abandon", given)
                yield Write("tasks_discard", {"run": run, "round": round})
            case Became(status, reason):
                yield Write("run_status", {"id": run, "status": status, "reason": reason, "updated": now})
                yield from self._services.audit("server", f"run {status}", run, reason)

    # closing

    async def _close(self, round: int, tasks: tuple[str, ...]) -> None:
        """From the sum to the next model; then the machine goes on."""
        algorithm, services, facts = self._algorithm, self._services, self.facts
        try:
            chosen = {row["id"]: row for row in await services.thread(self._rows, round, self._machine.attempt)}
            given = [
                (t, msgspec.msgpack.decode(chosen[t]["manifest"], type=Manifest), chosen[t]["scale"]) for t in tasks
            ]
            total = await self._sum.of(given)
            outcome = await services.thread(
                lambda: closing.close(algorithm, self._model, total, seed=facts.seed, round=round)
            )
        except (ShoalError, OSError) as error:
            await self._handle_durably(Broke(str(error)[:500]))
            return
        state, call = await services.thread(self._stored, outcome.model)
        point("model on disk")
        writes = [
            Write("round_close", {"run": facts.run, "round": round, "attempt": self._machine.attempt,
                                  "closed": services.wall(), "clients": outcome.clients, "metrics": outcome.metrics,
                                  "rejected": json.dumps(self._rejected)}, wants=1),
            Write("run_advance", {"id": facts.run, "round": round + 1, "state": msgspec.msgpack.encode(state),
                                  "model": msgspec.msgpack.encode(call), "updated": services.wall()}, wants=1),
        ]  # fmt: skip
        released = {chosen[t]["client"]: t for t in tasks} if outcome.released and self._remembers else {}
        writes += [Write("release", {"run": facts.run, "client": c, "task": t}) for c, t in released.items()]
        services.hold(state, call)
        try:
            await asyncio.wrap_future(services.store.write(*writes))
        except StoreError:
            await self._reload()
            return
        point("round closed")
        old = (self._state, self._call)
        for task in tasks:
            self._counted.pop(task, None)
        self._model, self._state, self._call = outcome.model, state, call
        self._current |= released
        self._sum = self._new_sum()
        await self._handle_durably(Closed(round))
        services.let_go(*old, *(manifest for _, manifest, _ in given))

    async def _handle_durably(self, event: Event) -> None:
        written = self._handle(event)
        if written is not None:
            await asyncio.gather(written, return_exceptions=True)

    def _stored(self, model: closing.Model) -> tuple[Manifest, Manifest]:
        return self._services.blobs.put_bytes(model.state), self._services.blobs.put_bytes(model.call)

    # restarts

    async def restore(self) -> None:
        """Takes the run up from what is durable."""
        rows = await self._services.thread(self._services.store.read, "run", id=self.facts.run)
        saved = await self._services.thread(self._snapshot, rows[0])
        self._held, self._of, self._seen = {}, {}, set()
        self._machine, self._sum = self._new_machine(), self._new_sum()
        released = await self._services.thread(self._services.store.read, "released", run=self.facts.run)
        self._current = {row["client"]: row["task"] for row in released}
        effects = self._machine.restore(saved, self._now())
        for task in saved.tasks:
            if task.status == "issued":
                self._issue(Issued(task.task, task.client, task.round, task.attempt, task.position))
        self._refold(saved)
        self._set_timer()
        if effects:
            await asyncio.gather(self._carry_out(effects, {}), return_exceptions=True)

    def _snapshot(self, row: dict[str, Any]) -> Snapshot:
        found = self._services.store.read("round_last", run=self.facts.run)
        last = found[0] if found and found[0]["round"] == row["round"] else None
        live = last is not None and last["status"] in ("open", "closing")
        attempt = 0 if last is None else last["attempt"] + (0 if live else 1)
        rows = self._rows(row["round"], attempt)
        tasks = tuple(
            TaskRow(t["id"], t["client"], t["round"], t["attempt"], t["position"], t["status"], t["scale"])
            for t in rows
        )
        closes = live and last is not None and last["status"] == "closing"
        closing_now = tuple(t["id"] for t in rows if t["summed"] == row["round"]) if closes else None
        cohort = last["cohort"] if live and last is not None else None
        return Snapshot(row["status"], row["reason"], row["round"], attempt, cohort, tasks, closing_now)

    def _rows(self, round: int, attempt: int) -> list[dict[str, Any]]:
        """The tasks that an open round is made of."""
        store, run = self._services.store, self.facts.run
        rows = store.read("tasks_of_round", run=run, round=round, attempt=attempt)
        if self.facts.rules.buffer is None:
            return rows
        every = {row["id"]: row for row in (*store.read("tasks_open", run=run), *rows)}
        return sorted(every.values(), key=lambda row: (row["settled"] or 0.0, row["id"]))

    def _refold(self, saved: Snapshot) -> None:
        """Adds up again what was counted before."""
        rows = self._rows(saved.round, saved.attempt) if saved.cohort is not None else []
        self._counted = {row["id"]: _manifest(row) for row in rows if row["status"] == "counted"}
        self._services.hold(*self._counted.values())
        if self.facts.rules.buffer is None:
            for row in rows:
                if row["status"] != "issued":
                    counted = self._counted_as(row["id"], row["status"])
                    self._spawn(self._sum.settled(row["position"], counted))

    async def _reload(self) -> None:
        """After a failure of the store: what is not durable never happened."""
        if self._last.broken:
            return
        self._last.broken = True
        delay = 0.2
        while True:
            try:
                await self.restore()
                break
            except StoreError:
                await asyncio.sleep(delay)
                delay = min(10.0, delay * 2)
        self._last.broken = False

    # small things

    def _new_sum(self) -> RoundSum:
        return RoundSum(self._services, self._algorithm, self._schema)

    def _new_machine(self) -> RunMachine | BufferedMachine:
        facts = self.facts
        if facts.rules.buffer is not None:
            return BufferedMachine(facts.run, rules=facts.rules, rounds=facts.plan.rounds)
        key = Key.from_seed(facts.seed)
        return RunMachine(facts.run, rules=facts.rules, sampler=facts.plan.sampler, rounds=facts.plan.rounds, key=key)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self._machine.due()
        if due is not None:
            self._timer = asyncio.get_running_loop().call_at(due, lambda: self._handle(Tick()))

    def _spawn(self, job: Any) -> None:
        self._keep(asyncio.ensure_future(job))

    def _keep(self, job: Any) -> None:
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        job.add_done_callback(lambda done: None if done.cancelled() else done.exception())


def _position(task: str) -> int:
    return int(task.rpartition("-")[2])


def _manifest(row: Mapping[str, Any]) -> Manifest:
    return msgspec.msgpack.decode(row["manifest"], type=Manifest)


def _verdict(status: str, reason: str) -> Verdict:
    return Verdict(verdict=_VERDICTS.get(status, "late"), message=reason)  # type: ignore[arg-type]
