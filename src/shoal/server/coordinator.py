"""The federation on the server: its clients, who of them is there, and its runs."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import msgspec

from shoal.errors import ConflictError, PlanError, ServerError, ShoalError, StoreError
from shoal.model_file import write_model
from shoal.plan import Plan
from shoal.rounds.rules import Rules
from shoal.server import closing, logs
from shoal.server.conductor import Conductor
from shoal.server.coordination import Known
from shoal.server.records import RunFacts, Stored, stored_of
from shoal.server.services import Services
from shoal.server.views import ClientView, RoundView, RunView
from shoal.store.blob_store import BlobStore
from shoal.store.incoming import Incoming
from shoal.store.store import Store, Write
from shoal.turns import check_deployable
from shoal.whole_file import write_whole
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


@dataclass
class _Clients:
    keys: dict[str, bytes] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    there: dict[str, _Presence] = field(default_factory=dict)


class Coordinator:
    """Everything that clients and operators ask of a server, without HTTP."""

    def __init__(self, store: Store, blobs: BlobStore, *, federation: str) -> None:
        self.store, self.blobs, self.federation = store, blobs, federation
        self.boot = secrets.token_hex(8)
        self._services = Services(store, blobs, self._wake, self._wake_all, self._changed, self._needed)
        self._audit = self._services.audit
        self._runs: dict[str, Conductor] = {}
        self._waits: dict[str, str] = {}
        self._plans: dict[str, Plan] = {}
        self._kept: dict[str, Stored] = {}
        self._clients = _Clients()
        self._draining = False
        self._ended = asyncio.Event()
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def draining(self) -> bool:
        """Whether no new work is given out."""
        return self._draining

    async def start(self, plans: Iterable[Plan] = ()) -> None:
        """Takes up everything that the store knows. `plans` are those that only a study file defines."""
        rows = await self._services.thread(self.store.read, "clients")
        for row in rows:
            self._clients.names[row["id"]] = row["name"]
            if row["status"] == "active":
                self._clients.keys[row["id"]] = bytes(row["public_key"])
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
        return self._clients.keys.get(client)

    def known(self, client: str) -> Known | None:
        """The client with an id; None if nobody has it, or it was revoked."""
        return Known(client, self._clients.names[client]) if client in self._clients.keys else None

    async def enroll(self, message: Enroll) -> Enrolled:
        """A client with a token gets an id; the same client again gets the same one."""
        known = await self._enrolled(message.public_key)
        if known is not None:
            return known
        client = secrets.token_hex(8)
        token = hashlib.sha256(message.token.encode()).hexdigest()
        now = self._services.wall()
        rows = await self._services.thread(self.store.read, "token", hash=token)
        if not rows or rows[0]["uses_left"] < 1 or rows[0]["expires"] <= now:
            raise ServerError("this token is unknown, used up or expired: ask for a new one", code="token")
        if message.name in self._clients.names.values():
            raise ServerError(
                f"a client called {message.name} is there already: choose another name", code="name-taken"
            )
        writes = [
            Write("token_use", {"hash": token, "now": now}, wants=1),
            *self._audit("client", "enrolled", client, rows[0]["label"]),
            Write("client_add", {"id": client, "name": message.name, "public_key": message.public_key,
                                    "token_label": rows[0]["label"], "enrolled": now}),
        ]  # fmt: skip
        try:
            await asyncio.wrap_future(self.store.write(*writes))
        except ConflictError as error:
            known = await self._enrolled(message.public_key)  # the same request, twice at once
            if known is not None:
                return known
            raise ServerError(
                "this token or this name was taken just now: ask for a new token", code="token"
            ) from error
        self._clients.keys[client], self._clients.names[client] = message.public_key, message.name
        return Enrolled(client=client, name=message.name, federation=self.federation)

    async def _enrolled(self, key: bytes) -> Enrolled | None:
        """The client of a key, if it is there: also one whose answer was lost with the store's."""
        rows = await self._services.thread(self.store.read, "client_by_key", public_key=key)
        if not rows or rows[0]["status"] != "active":
            return None
        client, name = rows[0]["id"], rows[0]["name"]
        self._clients.keys[client], self._clients.names[client] = key, name
        return Enrolled(client=client, name=name, federation=self.federation)

    async def check_in(self, client: Known, message: CheckIn, *, told: set[str]) -> Orders:
        """What a client is to do. It waits for work as long as the client asked, if there is none."""
        now = asyncio.get_running_loop().time()
        wait_s = min(message.wait_s, LONG_POLL_S)
        presence = self._clients.there.setdefault(client.name, _Presence(now))
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
        mean = max(FLOOR_S, len(self._clients.there) / CALLS_A_SECOND)
        return mean * random.uniform(0.5, 1.5)

    def gone(self, client: Known) -> None:
        """A client's session ended."""
        self._wake(client.name)
        self._clients.there.pop(client.name, None)
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
        """Begins a run; its id. PlanError if it cannot be deployed."""
        plan = rebuilt(plan) if isinstance(plan, bytes) else plan
        rules = rules or Rules(at_least=max(2, plan.min_clients))
        check_deployable(plan.algorithm)
        if rules.buffer is not None:
            _check_buffered(plan)
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

    def run(self, run: str) -> RunView:
        """A run by its id or its name, with its history."""
        row = self._row(run)
        return self._view(row, tuple(_round_view(found) for found in self.store.read("rounds", run=row["id"])))

    def clients(self) -> list[ClientView]:
        """All clients, by name."""
        now = asyncio.get_running_loop().time()
        views: list[ClientView] = []
        for row in sorted(self.store.read("clients"), key=lambda row: row["name"]):
            presence = self._clients.there.get(row["name"])
            tasks = tuple(t.task for c in self._runs.values() if (t := c.task_of(row["name"])) is not None)
            views.append(ClientView(id=row["id"], name=row["name"], status=row["status"], label=row["token_label"],
                                    enrolled=row["enrolled"], last_seen=row["last_seen"], tasks=tasks,
                                    online=presence is not None and now < presence.due))  # fmt: skip
        return views

    async def token(
        self, *, label: str = "", uses: int = 1, lasts_s: float = 7 * 86_400, actor: str = "operator"
    ) -> str:
        """A new token with which `uses` clients may enrol. Only its hash is kept."""
        token = f"shoal-{secrets.token_urlsafe(24)}"
        now = self._services.wall()
        row = {"hash": hashlib.sha256(token.encode()).hexdigest(), "label": label, "uses_left": uses,
               "expires": now + lasts_s, "created": now}  # fmt: skip
        await asyncio.wrap_future(self.store.write(Write("token_add", row), *self._audit("operator", "token", label)))
        return token

    async def revoke(self, client: str) -> None:
        """Takes a client's rights away, by its id or its name."""
        for known, name in self._clients.names.items():
            if client in (known, name):
                writes = [Write("client_revoke", {"id": known}), *self._audit("operator", "revoked", known)]
                await asyncio.wrap_future(self.store.write(*writes))
                self._clients.keys.pop(known, None)
                self.gone(Known(known, name))
                return
        raise ServerError(f"there is no client {client}", code="client-unknown")

    async def model(self, run: str) -> Path:
        """A safetensors file with the run's model after its last closed round."""
        row = self._row(run)
        path = self.blobs.folder / "models" / f"{row['id']}.safetensors"
        await self._services.move(lambda: _write_model(path, *self._read_model(row)))
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
        presence = self._clients.there.get(name)
        if presence is not None and presence.waiting is not None:
            presence.waiting.set()

    def _wake_all(self) -> None:
        for name in self._clients.there:
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
            for name, presence in list(self._clients.there.items()):
                if presence.waiting is None and presence.due < now:
                    del self._clients.there[name]
                    for conductor in self._runs.values():
                        conductor.gone(name)


def _round_view(row: Mapping[str, Any]) -> RoundView:
    return RoundView(
        round=row["round"], attempt=row["attempt"], status=row["status"], cohort=row["cohort"], opened=row["opened"],
        closed=row["closed"], clients=row["clients"], metrics=json.loads(row["metrics"] or "{}"),
        rejected=json.loads(row["rejected"] or "{}"), reason=row["reason"] or "",
    )  # fmt: skip


def _write_model(path: Path, plan: Plan, model: closing.Model) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if getattr(plan.algorithm, "model", None) is not None:
        write_model(path, model.run.state.vector, plan=plan, round=int(model.run.round))
    else:
        write_whole(path, model.state())


def _check_buffered(plan: Plan) -> None:
    """PlanError for a chain whose contributions cannot be weighted by their staleness."""
    aggregation = plan.algorithm.aggregation
    if not aggregation.meeting.adds or any(hasattr(step, "unit") for step in aggregation.steps):
        raise PlanError(f"{aggregation}: staleness weights need float sums: leave buffer out, or Quantize and Collect")
