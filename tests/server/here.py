"""A federation without rounds: every client has one task, and what is reported is counted if its blob is whole."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from shoal.errors import ServerError, UnsupportedError
from shoal.rounds.rules import Rules
from shoal.server.coordination import Command, Known
from shoal.server.views import ClientView, LedgerView, RunView
from shoal.store.blobs import Blobs
from shoal.store.incoming import Incoming
from shoal.store.store import Store
from shoal.wire.blobs import blob_id, check_manifest
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
)

TOKEN = "a token for the tests"
LARGEST = 32 * 1024 * 1024


class Here:
    """What the web application asks of a coordinator, with dictionaries in place of everything durable."""

    federation, boot = "hearts", "boot0001"

    def __init__(self, store: Store, blobs: Blobs) -> None:
        self.store, self.blobs = store, blobs
        self.keys: dict[str, bytes] = {}
        self.names: dict[str, str] = {}
        self.offered: dict[str, Manifest] = {}
        self.arriving: dict[str, Incoming] = {}
        self.verdicts: dict[str, Verdict] = {}
        self.left: list[str] = []
        self.checked_in: list[tuple[str, CheckIn]] = []
        self.drained = False
        self.stopped = False
        self.slow_report_s = 0.0
        self.fails: Exception | None = None
        self._wake: asyncio.Event | None = None
        self.views = {"r1": _run("r1", "study"), "r2": _run("r2", "other")}

    async def start(self) -> None:
        self._wake = asyncio.Event()

    async def enroll(self, message: Enroll) -> Enrolled:
        if message.token != TOKEN:
            raise ServerError("this token is unknown, used up or expired", code="token")
        client = hashlib.sha256(message.public_key).hexdigest()[:16]
        self.keys[client], self.names[client] = message.public_key, message.name
        return Enrolled(client=client, name=message.name, federation=self.federation)

    def known(self, client: str) -> Known | None:
        return Known(client, self.names[client]) if client in self.keys else None

    def public_key(self, client: str) -> bytes | None:
        return self.keys.get(client)

    async def check_in(self, client: Known, message: CheckIn, *, told: set[str]) -> Orders:
        if self.fails is not None:
            raise self.fails
        self.checked_in.append((client.id, message))
        assert self._wake is not None
        if message.wait_s and not self.drained:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), min(message.wait_s, 25.0))
        told.add("r1")
        return Orders(wait_s=0.5, draining=self.drained)

    async def offer(self, client: Known, task: str, message: Upload) -> Missing | Verdict:
        self._own(client, task)
        check_manifest(message.manifest, most_bytes=LARGEST)
        if self.offered.get(task) != message.manifest:
            self.offered[task] = message.manifest
            self.arriving[task] = self.blobs.incoming(task, message.manifest)
        return Missing(parts=self.arriving[task].missing())

    def incoming(self, client: Known, task: str) -> Incoming:
        self._own(client, task)
        if task not in self.arriving:
            raise ServerError("say first what will be uploaded", code="not-offered")
        return self.arriving[task]

    async def part_done(self, client: Known, task: str, n: int) -> None:
        assert self.arriving[task].has(n)

    async def report(self, client: Known, task: str, message: Result) -> Verdict:
        self._own(client, task)
        await asyncio.sleep(self.slow_report_s)
        if task not in self.verdicts:
            if not self.blobs.has(blob_id(message.manifest)):
                self.arriving[task].commit()
            self.verdicts[task] = Verdict(verdict="counted")
        return self.verdicts[task]

    async def decline(self, client: Known, task: str, message: Declined) -> Verdict:
        self._own(client, task)
        return Verdict(verdict="cancelled", message=message.reason)

    async def secure(self, client: Known, task: str, message: SecureStep) -> SecureNext:
        self._own(client, task)
        raise ServerError("this run has no secure sum", code="secure-over")

    def may_read(self, client: Known, blob: str) -> bool:
        return self.blobs.has(blob)

    def gone(self, client: Known) -> None:
        self.left.append(client.id)

    def drain(self) -> None:
        self.drained = True
        assert self._wake is not None
        self._wake.set()

    async def stop(self) -> None:
        self.stopped = True

    async def submit(self, plan: Any, *, name: str, rules: Rules | None = None, seed: int | None = None) -> str:
        if not isinstance(json.loads(plan), dict):
            raise UnsupportedError("this is no plan: a plan is described by an object")
        self.views["r3"] = _run("r3", name)
        self.rules, self.seed = rules, seed
        return "r3"

    async def command(self, run: str, what: Command, actor: str = "operator") -> RunView:
        found = self.run(run)
        self.views[found.id] = _run(found.id, found.name, status={"pause": "paused"}.get(what, what))
        return self.views[found.id]

    def runs(self) -> list[RunView]:
        return list(self.views.values())

    def run(self, run: str) -> RunView:
        for view in self.views.values():
            if run in (view.id, view.name):
                return view
        raise ServerError(f"there is no run {run}", code="run-unknown")

    def ledger(self) -> LedgerView:
        return LedgerView()

    async def model(self, run: str) -> Path:
        self.run(run)
        return self.model_file

    model_file: Path

    def clients(self) -> list[ClientView]:
        return [ClientView(id=id, name=name, status="active", enrolled=1.0) for id, name in self.names.items()]

    async def token(self, *, label: str, uses: int, lasts_s: float) -> str:
        return f"token of {label} for {uses}"

    async def revoke(self, client: str) -> None:
        if self.keys.pop(client, None) is None:
            raise ServerError(f"there is no client {client}", code="client-not-found")

    def _own(self, client: Known, task: str) -> None:
        owner, _, _ = task.partition("-")
        if owner not in self.names:
            raise ServerError(f"there is no task {task}", code="task-unknown")
        if owner != client.id:
            raise ServerError("this is another client's task", code="not-yours")


def _run(id: str, name: str, status: str = "open") -> RunView:
    return RunView(
        id=id, name=name, plan_digest="0" * 64, status=status, round=1, rounds=3, tasks={"issued": 2, "counted": 1},
        created=time.time(), updated=time.time(),
    )  # fmt: skip
