"""What a client brings for its task: offered, uploaded, reported or declined, and each answered as often as asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from shoal.errors import ServerError, WireError
from shoal.rounds.events import Dropped, Event, Refused, Reported
from shoal.server.records import Contribution
from shoal.server.services import Services
from shoal.server.tasks import Held, Tasks
from shoal.store.faults import point
from shoal.store.incoming import Incoming
from shoal.store.store import Row
from shoal.wire.blobs import blob_id
from shoal.wire.messages import Declined, Manifest, Missing, Result, Upload, Verdict


class LooksAt(Protocol):
    """Whoever looks at a result before it counts."""

    @property
    def most_bytes(self) -> int:
        """The largest result."""
        ...

    async def look(self, client: str, message: Result) -> None:
        """WireError if a client's result, whose blob is there, is not what was asked for."""
        ...


Handle = Callable[[Event, Contribution | None], "asyncio.Future[None] | None"]
"""Lets the run's machine take an event; None if it led to nothing, else a future that is done when it is durable."""

_VERDICTS: dict[str, Literal["counted", "late", "rejected", "cancelled"]] = {
    "counted": "counted", "rejected": "rejected", "cancelled": "cancelled", "declined": "cancelled",
}  # fmt: skip
_REASON = 500


@dataclass(frozen=True)
class _Taken:
    """A result that is being taken: whose it is, and what will be answered."""

    client: str
    manifest: Manifest
    answer: asyncio.Future[Verdict]


class Results:
    """Takes the results of one run's tasks. `handle` is told of each that counts, and of each that does not."""

    def __init__(self, services: Services, run: str, tasks: Tasks, *, looks: LooksAt, handle: Handle) -> None:
        self._services, self._run, self._tasks = services, run, tasks
        self._looks, self._handle = looks, handle
        self._taking: dict[str, _Taken] = {}

    @property
    def most_bytes(self) -> int:
        """The largest result."""
        return self._looks.most_bytes

    def taking(self) -> Iterable[Manifest]:
        """The results that are being taken right now."""
        return [taken.manifest for taken in self._taking.values()]

    async def settled(self) -> None:
        """Waits for what is being taken."""
        await asyncio.gather(*(taken.answer for taken in self._taking.values()), return_exceptions=True)

    async def offer(self, client: str, task: str, message: Upload) -> Missing | Verdict:
        """Which parts of a result are wanted."""
        held = await self._open(client, task)
        if isinstance(held, Verdict):
            return held
        manifest = message.manifest
        if max(manifest.size_bytes, manifest.raw_bytes) > self.most_bytes:
            return await self._refuse(task, f"a result of this run has at most {self.most_bytes:,} bytes")
        if held.offered is not None and held.offered != manifest:
            self._services.blobs.incoming(task, held.offered).abandon()
        held.offered = manifest
        held.arriving, missing = await self._services.move(self._begun, task, manifest)
        return Missing(parts=missing)

    def incoming(self, client: str, task: str) -> Incoming:
        """Where the parts of a result are written."""
        held = self._tasks.get(task)
        if held is None or held.client != client:
            raise ServerError(f"{task} is not a task of yours that is open", code="task-unknown")
        if held.offered is None:
            raise ServerError("say first what will be uploaded (POST .../upload)", code="not-offered")
        if held.arriving is not None and held.arriving.open and held.arriving.manifest == held.offered:
            return held.arriving
        return self._services.blobs.incoming(task, held.offered)

    async def report(self, client: str, task: str, message: Result) -> Verdict:
        """What becomes of a result. The same report again has the same answer."""
        if task not in self._taking:
            held = await self._open(client, task)
            if isinstance(held, Verdict):
                return held
        taken = self._taking.get(task)
        if taken is None:
            answer = asyncio.ensure_future(self._take(client, task, message))
            taken = self._taking[task] = _Taken(client, message.manifest, answer)
            answer.add_done_callback(lambda answer: self._taken(task, answer))
        elif taken.client != client:
            raise _not_yours(task)
        elif taken.manifest != message.manifest:
            raise ServerError(f"another result of {task} is being taken", code="conflict")
        return await asyncio.shield(taken.answer)

    async def decline(self, client: str, task: str, message: Declined) -> Verdict:
        """A client does not do a task."""
        held = await self._open(client, task)
        if isinstance(held, Verdict):
            return held
        said = f"{message.reason}: {message.message}" if message.message else message.reason
        await self._done(self._handle(Dropped(task, _kept(said)), None))
        return Verdict(verdict="cancelled", message=message.reason)

    async def _open(self, client: str, task: str) -> Held | Verdict:
        held = self._tasks.get(task)
        if held is not None and held.durable:
            if held.client != client:
                raise _not_yours(task)
            return held
        rows = await self._services.thread(self._services.store.read, "task", id=task)
        if not rows or rows[0]["run"] != self._run:
            raise ServerError(f"there is no task {task}", code="task-unknown")
        if rows[0]["client"] != client:
            raise _not_yours(task)
        return _verdict(rows[0])

    async def _take(self, client: str, task: str, message: Result) -> Verdict:
        """Makes a result durable, looks at it, and counts it."""
        manifest = message.manifest
        try:
            if max(manifest.size_bytes, manifest.raw_bytes) > self.most_bytes:
                raise WireError(f"a result of this run has at most {self.most_bytes:,} bytes")
            await self._services.move(self._keep, task, message)
            point("result-on-disk")
            await self._looks.look(client, message)
        except WireError as error:
            return await self._refuse(task, str(error))
        await self._done(self._handle(Reported(task), Contribution(manifest, message.train_s)))
        point("result-counted")
        rows = await self._services.thread(self._services.store.read, "task", id=task)
        return _verdict(rows[0])

    def _begun(self, task: str, manifest: Manifest) -> tuple[Incoming | None, tuple[int, ...]]:
        """Where a result arrives, and which of its parts are wanted; none of one that is there."""
        if self._services.blobs.has(blob_id(manifest)):
            return None, ()
        arriving = self._services.blobs.incoming(task, manifest)
        return arriving, arriving.missing()

    def _keep(self, task: str, message: Result) -> None:
        if self._services.blobs.has(blob_id(message.manifest)):
            return
        incoming = self._services.blobs.incoming(task, message.manifest)
        if message.inline is not None:
            incoming.put(0, message.inline)
        missing = incoming.missing()
        if missing:
            raise ServerError(
                f"{len(missing)} of {len(message.manifest.parts)} parts are missing: say what will be uploaded "
                "(POST .../upload), and send those that the answer names",
                code="incomplete",
            )
        incoming.commit()

    def _taken(self, task: str, answer: asyncio.Future[Verdict]) -> None:
        taken = self._taking.pop(task)
        if not answer.cancelled() and answer.exception() is None:  # else it is reported again, and may lie there
            self._services.let_go(taken.manifest)

    async def _refuse(self, task: str, reason: str) -> Verdict:
        await self._done(self._handle(Refused(task, _kept(reason)), None))
        return Verdict(verdict="rejected", message=_kept(reason))

    @staticmethod
    async def _done(written: asyncio.Future[None] | None) -> None:
        if written is not None:
            await written


def _kept(reason: str) -> str:
    """A reason as a row holds it: not every database takes every character."""
    return reason.replace("\0", " ")[:_REASON]


def _verdict(row: Row) -> Verdict:
    """What a task's row says; ServerError while what became of it is not durable yet."""
    if row["status"] == "issued":
        raise ServerError("what becomes of this task is being written: ask again", code="busy", retry_after_s=0.5)
    return Verdict(verdict=_VERDICTS.get(row["status"], "late"), message=row["reason"] or "")


def _not_yours(task: str) -> ServerError:
    return ServerError(f"{task} is another client's task", code="not-yours")
