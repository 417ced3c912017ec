"""The federation on the server: its clients, who of them is there, and its runs."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import msgspec

from shoal.errors import ConflictError, ServerError, ShoalError, StoreError
from shoal.plan import Plan
from shoal.privacy.budget import Budget
from shoal.rounds.rules import Rules
from shoal.server import closing, logs
from shoal.server.conductor import Conductor
from shoal.server.coordination import Known
from shoal.server.records import RunFacts, Stored, stored_of
from shoal.server.roster import Roster
from shoal.server.secure_run import check_secure, fewest
from shoal.server.services import Services
from shoal.server.views import ClientView, LedgerView, RoundView, RunView, round_view
from shoal.store.blob_store import BlobStore
from shoal.store.incoming import Incoming
from shoal.store.store import Store, Write
from shoal.turns import check_deployable
from shoal.wire.blobs import blob_id
from shoal.wire.messages import (
    CheckIn,
    Declined,
    Enroll,
    Enrolled,
    Manifest,
    Missing,
    Orders,
    Result,
    SecureNext,
    SecureStep,
    Upload,
    Verdict,
)  # fmt: skip
from shoal.wire.plans import plan_bytes, rebuilt

LONG_POLL_S = 25.0
FLOOR_S, CALLS_A_SECOND = 5.0, 100.0
"""Clients that do not wait come back after at least so long, and together no more often than this."""
GRACE_S = 30.0
"""How much later than it was told a client may come, and still count as there."""
ARRIVING_S, TIDY_S = 2 * 86_400.0, 3600.0
"""How long an upload that stands still is kept, and how often what nobody needs is deleted."""
ACTIVE = ("waiting", "open", "pausing", "cancelling", "paused", "failed")
TOLD = ("waiting", "open", "paused")
"""In these a run is made known to clients."""


@dataclass
class _Presence:
    due: float
    waiting: asyncio.Event | None = None


class Coordinator:
    """Everything that clients and operators ask of a server, without HTTP."""

    def __init__(
        self, store: Store, blobs: BlobStore, *, federation: str, budget: Budget | None = None
    ) -> None:  # fmt: skip
        self.store, self.blobs, self.federation = store, blobs, federation
        self.boot = secrets.token_hex(8)
        self._services = Services(
            store, blobs, self._wake, self._wake_all, self._changed, self._needed, federation, self._keys, budget
        )
        self._audit = self._services.audit
        self._runs: dict[str, Conductor] = {}
        self._waits: dict[str, str] = {}
        self._plans: dict[str, Plan] = {}
        self._kept: dict[str, Stored] = {}
        self._roster = Roster(self._services, federation=federation)
        self._there: dict[str, _Presence] = {}
        self._draining = False
        self._ended = asyncio.Event()
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def budget(self) -> Budget | None:
        """What all runs together may give away of one client."""
        return self._services.budget

    @property
    def draining(self) -> bool:
        """Whether no new work is given out."""
        return self._draining

    async def start(self, plans: Iterable[Plan] = ()) -> None:
        """Takes up everything that the store knows. `plans` are those that only a study file defines."""
        await self._roster.load()
        self._plans = {plan.digest(): plan for plan in plans}
        for row in await self._services.thread(self.store.read, "runs"):
            self._kept[row["id"]] = stored_of(row)
            if row["status"] in ACTIVE:
                await self._take_up(row)
        await self._tidy()
        self._sweeper = asyncio.ensure_future(self._sweep())

    def drain(self) -> None:
        """Gives out no work from now on, and answers those who wait for some. Reports are taken as before."""
        self._draining = True
        self._wake_all()
        for conductor in self._runs.values():
            conductor.answer_all()

    async def stop(self) -> None:
        """Ends what is under way; everything durable stays."""
        self.drain()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for conductor in self._runs.values():
            await conductor.stop()
        self._services.close()

    # clients

    def public_key(self, client: str) -> bytes | None:
        """The key of a client that may talk to this server."""
        return self._roster.public_key(client)

    def known(self, client: str) -> Known | None:
        """The client with an id; None if nobody has it, or it was revoked."""
        return self._roster.known(client)

    async def enroll(self, message: Enroll) -> Enrolled:
        """A client with a token gets an id; the same client again gets the same one."""
        return await self._roster.enroll(message)

    async def check_in(self, client: Known, message: CheckIn, *, told: set[str]) -> Orders:
        """What a client is to do. It waits for work as long as the client asked, if there is none."""
        now = asyncio.get_running_loop().time()
        wait_s = min(message.wait_s, LONG_POLL_S)
        presence = self._there.setdefault(client.name, _Presence(now))
        presence.due = now + wait_s + GRACE_S
        orders = await self._orders(client, message, told)
        if wait_s and not (orders.tasks or orders.runs or orders.cancelled or self._draining):
            await self._wait(presence, wait_s)
            orders = await self._orders(client, message, told)
        pace = 0.0 if wait_s or orders.tasks or orders.runs else self._pace()
        presence.due = asyncio.get_running_loop().time() + pace + GRACE_S
        return msgspec.structs.replace(orders, wait_s=pace, draining=self._draining)

    async def _orders(self, client: Known, message: CheckIn, told: set[str]) -> Orders:
        news = [
            c.info() for run, c in self._runs.items() if run not in told and c.status in ("waiting", "open", "paused")
        ]
        told.update(info.run for info in news)
        if not news and not self._draining:
            pending = [self._present(c, run, client, message) for run, c in self._runs.items()]
            written = [future for future in pending if future is not None]
            if written:
                await asyncio.gather(*written, return_exceptions=True)
        holding = {held.task for held in message.holding}
        own = [task for c in self._runs.values() if (task := c.task_of(client.name)) is not None]
        fresh = () if message.busy or self._draining else tuple(task for task in own if task.task not in holding)
        gone = tuple(holding - {task.task for task in own})
        return Orders(wait_s=0.0, tasks=fresh, runs=tuple(news), cancelled=gone)

    def _present(self, conductor: Conductor, run: str, client: Known, message: CheckIn) -> asyncio.Future[None] | None:
        if message.busy or run in message.refuses:
            conductor.gone(client.name)
            return None
        return conductor.seen(client.name)

    async def _wait(self, presence: _Presence, seconds: float) -> None:
        if presence.waiting is not None:  # its connection is gone: who comes again has given it up
            presence.waiting.set()
        mine = presence.waiting = asyncio.Event()
        try:
            await asyncio.wait_for(mine.wait(), seconds)
        except TimeoutError:
            pass
        finally:
            if presence.waiting is mine:
                presence.waiting = None

    def _pace(self) -> float:
        """When a client that does not wait comes again, spread so that many do not come at once."""
        mean = max(FLOOR_S, len(self._there) / CALLS_A_SECOND)
        return mean * random.uniform(0.5, 1.5)

    def gone(self, client: Known) -> None:
        """A client's session ended."""
        self._wake(client.name)
        self._there.pop(client.name, None)
        for conductor in self._runs.values():
            conductor.gone(client.name)

    async def offer(self, client: Known, task: str, message: Upload) -> Missing | Verdict:
        """Which parts of a result are wanted."""
        return await self._of(task).results.offer(client.name, task, message)

    def incoming(self, client: Known, task: str) -> Incoming:
        """Where the parts of a result go."""
        return self._of(task).results.incoming(client.name, task)

    async def report(self, client: Known, task: str, message: Result) -> Verdict:
        """What becomes of a result."""
        return await self._of(task).results.report(client.name, task, message)

    async def part_done(self, client: Known, task: str, n: int) -> None:
        """A part is whole: nothing is to be done until the task is reported."""

    async def decline(self, client: Known, task: str, message: Declined) -> Verdict:
        """A client does not do a task."""
        return await self._of(task).results.decline(client.name, task, message)

    async def secure(self, client: Known, task: str, message: SecureStep) -> SecureNext:
        """What follows a client's message of its round's secure sum."""
        return await self._of(task).secure_step(client.name, task, message)

    def may_read(self, client: Known, blob: str) -> bool:
        """Whether a client's task names a blob."""
        return any(conductor.names_blob(client.name, blob) for conductor in self._runs.values())

    def _of(self, task: str) -> Conductor:
        conductor = self._runs.get(task.split("-")[0])
        if conductor is None:
            raise ServerError(f"there is no task {task}", code="task-unknown")
        return conductor

    # operators

    async def submit(
        self, plan: Plan | bytes, *, name: str, rules: Rules | None = None, seed: int | None = None
    ) -> str:
        """Begins a run; its id. PlanError if it cannot be deployed, a BudgetError if it would overspend."""
        plan = rebuilt(plan) if isinstance(plan, bytes) else plan
        rules = rules or Rules(at_least=fewest(plan))
        check_deployable(plan.algorithm)
        check_secure(plan, rules)
        if rules.buffer is not None:
            closing.check_buffered(plan)
        else:
            rules.check(plan.sampler)
        open_runs = [(c.facts.plan, c.left) for c in self._runs.values() if c.status in ACTIVE]
        await self._services.thread(self._services.spending.check, plan, open_runs)
        if any(conductor.facts.name == name for conductor in self._runs.values()):
            raise ServerError(f"there is a run called {name}: choose another name", code="name-taken")
        run = secrets.token_hex(6)
        seed = secrets.randbits(63) if seed is None else seed
        model = await self._services.thread(closing.first_model, plan.algorithm, seed)
        state, call = self._kept[run] = await self._services.thread(closing.manifests, model)
        now = self._services.wall()
        row = {"id": run, "name": name, "plan": plan_bytes(plan), "plan_digest": plan.digest(),
               "rules": json.dumps(asdict(rules)), "seed": str(seed), "study": None, "status": "waiting", "reason": "",
               "state": msgspec.msgpack.encode(state),
               "model": msgspec.msgpack.encode(call), "created": now}  # fmt: skip
        try:
            await self._services.move(closing.keep, model, self.blobs)
            writes = [Write("run_add", row, wants=1), *self._audit("operator", "submitted", run, name)]
            await asyncio.wrap_future(self.store.write(*writes))
        except ConflictError as error:
            del self._kept[run]
            raise ServerError(f"there is a run called {name}: choose another name", code="name-taken") from error
        conductor = Conductor(self._services, RunFacts(run, name, plan, rules, seed), model, (state, call))
        self._plans[plan.digest()] = plan
        await conductor.restore()
        self._runs[run] = conductor
        self._wake_all()
        return run

    async def command(self, run: str, what: Literal["pause", "resume", "cancel"], actor: str = "operator") -> RunView:
        """Pauses, resumes or cancels a run, by its id or its name."""
        found = self.run(run)
        conductor = self._runs.get(found.id)
        if conductor is None:
            reason = self._waits.get(found.id) or f"it is {found.status}"
            raise ServerError(f"{found.name} cannot be asked to {what}: {reason}", code="conflict")
        await asyncio.wrap_future(self.store.write(*self._audit(actor, what, found.id)))
        await conductor.command(what)
        self._wake_all()
        return self.run(found.id)

    def runs(self) -> list[RunView]:
        """All runs, the newest first, without their histories."""
        return [self._view(row, ()) for row in sorted(self.store.read("runs"), key=lambda row: -row["created"])]

    def ledger(self) -> LedgerView:
        """What the runs have released, and the budget of all of them together."""
        return self._services.spending.view()

    def run(self, run: str) -> RunView:
        """A run by its id or its name, with its history."""
        row = self._row(run)
        return self._view(row, tuple(round_view(found) for found in self.store.read("rounds", run=row["id"])))

    def clients(self) -> list[ClientView]:
        """All clients, by name."""
        now = asyncio.get_running_loop().time()
        views: list[ClientView] = []
        for row in sorted(self.store.read("clients"), key=lambda row: row["name"]):
            presence = self._there.get(row["name"])
            tasks = tuple(t.task for c in self._runs.values() if (t := c.task_of(row["name"])) is not None)
            views.append(ClientView(id=row["id"], name=row["name"], status=row["status"], label=row["token_label"],
                                    enrolled=row["enrolled"], last_seen=row["last_seen"], tasks=tasks,
                                    online=presence is not None and now < presence.due))  # fmt: skip
        return views

    async def token(self, *, label: str = "", uses: int = 1, lasts_s: float = 7 * 86_400) -> str:
        """A new token with which `uses` clients may enrol. Only its hash is kept."""
        return await self._roster.token(label=label, uses=uses, lasts_s=lasts_s)

    async def revoke(self, client: str) -> None:
        """Takes a client's rights away, by its id or its name."""
        self.gone(await self._roster.revoke(client))

    async def model(self, run: str) -> Path:
        """A safetensors file with the run's model after its last closed round."""
        row = self._row(run)
        path = self.blobs.folder / "models" / f"{row['id']}.safetensors"
        await self._services.move(lambda: closing.write_model_file(path, *self._read_model(row)))
        return path

    async def state(self, run: str) -> Any:
        """What the server holds of a run after its last closed round: the algorithm's state."""
        _, model = await self._services.move(self._read_model, self._row(run))
        return model.run.state

    def _row(self, run: str) -> Mapping[str, Any]:
        for row in self.store.read("runs"):
            if run in (row["id"], row["name"]):
                return row
        raise ServerError(f"there is no run {run}", code="run-unknown")

    def _view(self, row: Mapping[str, Any], history: tuple[RoundView, ...]) -> RunView:
        conductor = self._runs.get(row["id"])
        reason = self._waits.get(row["id"]) or row["reason"] or ""
        waits, tasks, there = "", dict[str, int](), 0
        if conductor is not None:
            tasks, there = conductor.tasks(), len(conductor.there)
            waits = conductor.waits_for()
        return RunView(
            id=row["id"], name=row["name"], plan_digest=row["plan_digest"],
            status=row["status"], reason=reason, waits_for=waits, round=row["round"],
            rounds=json.loads(bytes(row["plan"]))["rounds"], there=there, tasks=tasks, history=history,
            created=row["created"], updated=row["updated"],
        )  # fmt: skip

    # what is under way

    async def _take_up(self, row: Mapping[str, Any]) -> None:
        try:
            plan, model = await self._services.move(self._read_model, row)
        except (ShoalError, OSError) as error:
            self._waits[row["id"]] = f"it cannot go on: {error}"
            return
        facts = RunFacts(row["id"], row["name"], plan, Rules(**json.loads(row["rules"])), int(row["seed"]))
        conductor = Conductor(self._services, facts, model, stored_of(row))
        self._runs[row["id"]] = conductor
        await conductor.restore()

    async def until_over(self, run: str) -> RunView:
        """The run when it is completed, cancelled, failed or paused."""
        while (view := self.run(run)).status in ("waiting", "open", "pausing"):
            await self._ended.wait()
        return view

    def _read_model(self, row: Mapping[str, Any]) -> tuple[Plan, closing.Model]:
        """A run's plan, and its model after the last closed round."""
        plan = self._plans.get(row["plan_digest"]) or rebuilt(bytes(row["plan"]))
        state = stored_of(row)[0]
        data = self.blobs.read(blob_id(state), offset=0, length=state.size_bytes)
        return plan, closing.model_of(plan.algorithm, int(row["seed"]), data)

    def _keys(self) -> Mapping[str, bytes]:
        return self._roster.keys()

    def _needed(self) -> Iterable[Manifest]:
        """The blobs that some run needs: what it goes on from, or its last model."""
        idle = (self._kept[run] for run in self._kept.keys() - self._runs.keys())
        return chain.from_iterable((*idle, *(conductor.needs() for conductor in self._runs.values())))

    async def _tidy(self) -> None:
        """Deletes what nobody needs and nobody comes back for."""
        try:
            await self._services.move(lambda: self.blobs.sweep(older_s=ARRIVING_S))
            if not self._waits:  # a run that could not be taken up may need what nobody names
                await self._services.sweep()
        except StoreError as error:
            logs.failure("what nobody needs could not be deleted", error)

    def _wake(self, name: str) -> None:
        presence = self._there.get(name)
        if presence is not None and presence.waiting is not None:
            presence.waiting.set()

    def _wake_all(self) -> None:
        for name in self._there:
            self._wake(name)

    def _changed(self, run: str, status: str) -> None:
        if status in ("paused", "completed", "failed", "cancelled"):
            self._ended.set()
            self._ended = asyncio.Event()

    async def _sweep(self) -> None:
        """Notices clients that did not come again."""
        tidied = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(5.0)
            now = asyncio.get_running_loop().time()
            if now > tidied + TIDY_S:
                tidied = now
                await self._tidy()
            for name, presence in list(self._there.items()):
                if presence.waiting is None and presence.due < now:
                    del self._there[name]
                    for conductor in self._runs.values():
                        conductor.gone(name)
