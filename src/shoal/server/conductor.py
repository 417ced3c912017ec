"""One run on the server: its machine, what is durable of it, and its sums.

The machine decides, this carries out. Whatever an event leads to is one transaction; nobody is told of it before it
is durable. Each transaction takes the run one step on from the one before it, so that none is done whose past is not.
If the store fails, the run is built anew from what is durable, as after a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import msgspec

from shoal.errors import SecureSumError, ServerError, ShoalError, StoreError
from shoal.key import Key
from shoal.rounds.events import (
    Abandoned,
    Became,
    Broke,
    Cancel,
    Close,
    Closed,
    Effect,
    Event,
    Gone,
    Issued,
    Opened,
    Pause,
    Resume,
    Seen,
    Settled,
    Tick,
    Undone,
)  # fmt: skip
from shoal.server import closing, logs
from shoal.server.ending import Ended, ended
from shoal.server.jobs import Jobs
from shoal.server.keeping import Kept
from shoal.server.kinds import machine_of, sums_of
from shoal.server.records import (
    Contribution,
    Record,
    RunFacts,
    Stored,
    manifest_of_row,
    read_record,
    writes_of,
)  # fmt: skip
from shoal.server.results import Results
from shoal.server.services import Services
from shoal.server.sums import Work
from shoal.server.tasks import Held, Tasks
from shoal.store.faults import point
from shoal.store.store import Write
from shoal.wire.blobs import blob_id
from shoal.wire.messages import Manifest, RunInfo, SecureNext, SecureStep, Task
from shoal.wire.plans import plan_bytes

FIRST_S, MOST_S = 0.2, 30.0
"""How long a run waits before it is built anew: the first time, and at most after failures in a row."""


class Conductor:
    """Carries a run from its first round to its last. It takes nothing before `restore`, nor while it is built anew."""

    def __init__(self, services: Services, facts: RunFacts, model: closing.Model, stored: Stored) -> None:
        self.facts, self._services = facts, services
        self._algorithm: Work = facts.plan.algorithm
        self._kept = Kept(services, model, stored)
        self._current: dict[str, str] = {}
        self._tasks = Tasks()
        self._jobs = Jobs(facts.run)
        self._sums = sums_of(facts, services, take=self._take, spawn=self._jobs.spawn)
        self.results = Results(services, facts.run, self._tasks, looks=self._sums, handle=self._handle)
        self._seen: set[str] = set()
        self._counted: dict[str, Manifest] = {}
        self._step = self._life = self._failures = 0
        self._ready = False
        self._timer: asyncio.TimerHandle | None = None
        self._machine = machine_of(self.facts, services)

    # what the coordinator asks

    @property
    def status(self) -> str:
        """The run's status."""
        return self._machine.status

    @property
    def round(self) -> int:
        """How many rounds are closed."""
        return self._machine.round

    @property
    def left(self) -> int:
        """How many rounds are still planned."""
        return self.facts.plan.rounds - self.round

    @property
    def there(self) -> frozenset[str]:
        """The clients that would take a task."""
        return frozenset(self._seen)

    def tasks(self) -> dict[str, int]:
        """Tasks that are given out and not reported, and contributions counted in the open round."""
        return {"issued": len(self._tasks), "counted": len(self._counted)}

    def waits_for(self) -> str:
        """A sentence: why nothing happens right now; empty if something does."""
        if not self._ready:
            return "the store failed: the run goes on when it answers"
        if self.status == "waiting":
            return f"round {self.round + 1} waits for {self._machine.wanted} clients; there: {len(self._seen)}"
        if self.status in ("open", "pausing") and len(self._tasks):
            names = ", ".join(sorted(held.client for held in self._tasks)[:5])
            return f"round {self.round + 1} waits for {len(self._tasks)} results: {names}"
        if silent := self._sums.waits_for():
            return f"round {self.round + 1} waits for {len(silent)} clients to unmask its sum: {', '.join(silent[:5])}"
        return ""

    def needs(self) -> Iterable[Manifest]:
        """The blobs that the run, or its next start, may need."""
        models = (held.message.model for held in self._tasks)
        return (*self._kept.needs(), *self._counted.values(), *self.results.taking(), *models)

    def info(self) -> RunInfo:
        """What a client is told before it decides."""
        plan = self.facts.plan
        return RunInfo(
            run=self.facts.run, name=self.facts.name, plan=plan_bytes(plan), plan_digest=plan.digest(),
            minimum_cohort=self.facts.rules.at_least,
        )  # fmt: skip

    def task_of(self, client: str) -> Task | None:
        """The task that a client has in this run, to be sent to it; None if it has none."""
        held = self._tasks.of(client)
        if held is None or not held.durable:
            return None
        return msgspec.structs.replace(held.message, seconds_left=max(0.0, held.until - self._now()))

    def names_blob(self, client: str, blob: str) -> bool:
        """Whether a client's task says that it may have a blob."""
        held = self._tasks.of(client)
        return held is not None and blob_id(held.message.model) == blob

    async def secure_step(self, client: str, task: str, message: SecureStep) -> SecureNext:
        """Takes a client's message of its round's secure sum; what it is sent after it."""
        if not self._ready:
            raise _unavailable()
        return await self._sums.step(client, task, message)

    def answer_all(self) -> None:
        """Whoever waits for others in a secure sum is answered."""
        self._sums.answer_all()

    def seen(self, client: str) -> asyncio.Future[None] | None:
        """A client would take a task. What to wait for before it is told of one."""
        if not self._ready or client in self._seen or self._tasks.of(client) is not None:
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

    async def stop(self) -> None:
        """Ends what is under way, after the results that are being taken; everything durable stays."""
        await self.results.settled()
        self._end_life()
        await self._jobs.stop()

    # events and effects

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _handle(self, event: Event, given: Contribution | None = None) -> asyncio.Future[None] | None:
        """Lets the machine take an event; the future is done when all that follows is durable."""
        if not self._ready:
            raise _unavailable()
        effects = self._machine.handle(event, self._now())
        self._set_timer()
        return self._carry_out(effects, given) if effects else None

    def _take(self, events: Sequence[Event], also: Sequence[Write]) -> asyncio.Future[None]:
        """Lets the machine take events of a secure sum, and makes its own writes durable in one with what follows."""
        if not self._ready:
            raise _unavailable()
        effects = [effect for event in events for effect in self._machine.handle(event, self._now())]
        self._set_timer()
        return self._carry_out(effects, also=also)

    def _carry_out(
        self, effects: Sequence[Effect], given: Contribution | None = None, also: Sequence[Write] = ()
    ) -> asyncio.Future[None]:
        writes: list[Write] = [*also]
        woken: set[str] = set()
        discarded: tuple[str, ...] = ()
        for effect in effects:
            writes.extend(writes_of(effect, self.facts, self._services, attempt=self._machine.attempt, given=given))
            writes.extend(self._sums.follow(effect, sent=self._kept.stored[1]))
            match effect:
                case Issued():
                    self._issue(effect)
                    woken.add(effect.client)
                case Settled(task, status):
                    woken |= self._settle(task)
                    if status == "counted" and given is not None:
                        self._counted[task] = given.manifest
                case Abandoned():
                    discarded = tuple(self._counted)
                case _:
                    pass
        point("effects-before")
        durable = self._durable(self._write(*writes), effects, woken, discarded, self._life)
        return self._jobs.spawn(durable)

    def _write(self, *writes: Write) -> asyncio.Future[None]:
        """One transaction, durable only if everything before it is: else the run would go on from what never was."""
        step = Write("run_step", {"id": self.facts.run, "step": self._step}, wants=1)
        self._step += 1
        return asyncio.wrap_future(self._services.store.write(step, *writes))

    async def _durable(
        self, written: asyncio.Future[None], effects: Sequence[Effect], woken: set[str], discarded: tuple[str, ...],
        life: int,
    ) -> None:  # fmt: skip
        try:
            await written
        except StoreError as error:
            self._failed(error, life)
            raise _unavailable() from error
        if life != self._life:
            return
        point("effects-after")
        for effect in effects:
            match effect:
                case Issued(task):
                    self._tasks.told(task)
                case Settled(task, "counted"):
                    self._sums.durable(effect, self._counted[task])
                case Settled() | Opened():
                    self._sums.durable(effect, None)
                case Abandoned():
                    self._services.let_go(*self._uncounted(discarded))
                case Close(round, tasks):
                    self._jobs.spawn(self._close(round, tasks, life))
                case Became(status):
                    self._services.changed(self.facts.run, status)
        for client in woken:
            self._services.wake(client)

    def _uncounted(self, tasks: Iterable[str]) -> list[Manifest]:
        """Takes contributions out of those that wait for their round's end."""
        found = (self._counted.pop(task, None) for task in tasks)
        return [manifest for manifest in found if manifest is not None]

    def _issue(self, effect: Issued, *, durable: bool = False) -> None:
        key = Key.from_seed(self.facts.seed).split("round", effect.round).split("client", effect.client)
        message = Task(
            task=effect.task, run=self.facts.run, plan_digest=self.facts.plan.digest(), round=effect.round,
            key=(int(key.high), int(key.low)), model=self._kept.stored[1], inline=self._kept.inline,
            state_of=self._current.get(effect.client), seconds_left=self.facts.rules.deadline_s,
            most_bytes=self.results.most_bytes, secure=self._sums.issued(effect),
        )  # fmt: skip
        self._tasks.add(Held(effect.client, message, self._now() + self.facts.rules.deadline_s, durable))
        self._seen.discard(effect.client)

    def _settle(self, task: str) -> set[str]:
        held = self._tasks.pop(task)
        if held is None:
            return set()
        if held.arriving is not None and held.arriving.open:
            held.arriving.abandon()
        return {held.client}

    # closing

    async def _close(self, round: int, tasks: tuple[str, ...], life: int) -> None:
        """From the sum to the next model; then the machine goes on."""
        attempt = self._machine.attempt
        try:
            end = await ended(
                self._services, self.facts, self._kept, round=round, attempt=attempt, tasks=tasks,
                adds=self._sums.total,
            )  # fmt: skip
            await self._sums.prepare(end.outcome.model, end.made[1])
            point("model-on-disk")
            if life != self._life:
                return
            await self._write(*end.writes, *self._sums.forgotten(round))
        except (StoreError, OSError) as error:
            self._failed(error, life)
            return
        except SecureSumError as error:
            if life == self._life:
                await self._take((Undone(round, attempt, f"{error}"[:500]),), ())
            return
        except Exception as error:
            self._broke(error, life)
            return
        point("round-closed")
        if life == self._life:
            await self._go_on(round, tasks, end)

    async def _go_on(self, round: int, tasks: tuple[str, ...], end: Ended) -> None:
        """After a round is closed for good."""
        over = (*self._kept.go_on(end.outcome.model, end.made), *self._uncounted(tasks))
        self._current |= end.released
        self._failures = 0
        self._sums.ended()
        written = self._handle(Closed(round))
        self._services.let_go(*over)
        if written is not None:
            await asyncio.gather(written, return_exceptions=True)

    def _broke(self, error: Exception, life: int) -> None:
        """The sum cannot become a model: the run fails, and says why."""
        if not isinstance(error, ShoalError):  # a defect, or a framework's own
            logs.failure("a round could not be closed", error, run=self.facts.run)
        if life == self._life:
            said = (
                str(error) if isinstance(error, ShoalError) else f"{type(error).__name__}: the server's log says more"
            )
            self._handle(Broke(said[:500]))

    # restarts

    async def restore(self) -> None:
        """Takes the run up from what is durable."""
        services, buffered = self._services, self.facts.rules.buffer is not None
        record = await services.thread(lambda: read_record(services.store, self.facts.run, buffered=buffered))
        models = await self._kept.restore(record.stored, self._algorithm, seed=self.facts.seed)
        await self._sums.prepare(self._kept.model, self._kept.stored[1])
        await self._sums.restore(record)
        issued = {row["id"] for row in record.rows if row["status"] == "issued"}  # these are reported again
        closed = (manifest for task, manifest in self._counted.items() if task not in issued)
        over = (*models, *closed)
        self._step, self._current = record.step, record.current
        self._counted = {row["id"]: manifest_of_row(row) for row in record.rows if row["status"] == "counted"}
        self._tasks.clear()
        self._seen = set()
        self._machine = machine_of(self.facts, services)
        self._ready = True
        services.let_go(*over)
        await self._go_on_from(record)
        services.wake_all()  # those who wait said that they are there to what is gone

    async def _go_on_from(self, record: Record) -> None:
        saved = record.saved
        effects = self._machine.restore(saved, self._now())
        for task in saved.tasks:
            if task.status == "issued":
                self._issue(Issued(task.task, task.client, task.round, task.attempt, task.position), durable=True)
            elif saved.cohort is not None:
                self._sums.durable(Settled(task.task, task.status), self._counted.get(task.task))
        self._set_timer()
        self._sums.go_on()
        if effects:
            await asyncio.gather(self._carry_out(effects), return_exceptions=True)

    def _failed(self, error: Exception, life: int) -> None:
        """After a failure of the store: what is not durable never happened."""
        if life != self._life:
            return
        logs.failure("a run is built anew from its store", error, run=self.facts.run)
        self._end_life()
        self._jobs.spawn(self._anew())

    async def _anew(self) -> None:
        while True:
            await asyncio.sleep(min(MOST_S, FIRST_S * 2.0 ** min(self._failures, 20)))
            self._failures += 1
            try:
                await self.restore()
                return
            except (StoreError, OSError) as error:
                logs.failure("a run waits for its store", error, run=self.facts.run)

    def _end_life(self) -> None:
        self._life += 1
        self._ready = False
        self._sums.ended(_unavailable())
        if self._timer is not None:
            self._timer.cancel()

    # small things

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self._machine.due()
        if due is not None:
            self._timer = asyncio.get_running_loop().call_at(due, lambda: self._handle(Tick()))


def _unavailable() -> ServerError:
    return ServerError("the store does not answer: nothing of it was done; ask again", code="store", retry_after_s=2.0)
