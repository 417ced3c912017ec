"""One attempt's secure sum on the server: what has come, what of it is durable, who waits, and when a stage is over.

The protocol itself is `shoal.secure`: a machine without time, disk or network. Every message that it takes, and every
end of a stage, is a row before anybody is told of it, and the machine is deterministic: after a restart it is made
again from its rows, and the session goes on. Everything here is called on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from shoal.aggregation import Payload
from shoal.errors import SecureSumError, ServerError, WireError
from shoal.rounds.events import Dropped, Event, Sealed, Undone
from shoal.secure.contribution import Form, from_ring
from shoal.secure.server import ServerSession
from shoal.secure.terms import CLIENTS, Terms
from shoal.server import logs
from shoal.server.services import Services
from shoal.server.sums import chunks
from shoal.store.faults import point
from shoal.store.store import Row, Write
from shoal.wire.messages import Manifest, Result, SecureStep

STAGES = ("advertise", "share", "mask", "confirm", "answer")
HOLD_S = 20.0
"""How long a request is held that waits for the end of a stage."""

Take = Callable[[Sequence[Event], Sequence[Write]], "asyncio.Future[None]"]
"""Lets the run's machine take events, and makes writes durable with what follows; done when it is."""


@dataclass(frozen=True)
class Said:
    """A client's message of a stage, and when it is durable."""

    message: bytes
    durable: asyncio.Future[None]


class Attempt:
    """The secure sum of one attempt at a round, of clients that may still change until their keys are known.

    Until the contributions are added up it goes on by itself, by what comes and by time; then `total` takes it to its
    end. `rows` are the messages that are durable already.
    """

    def __init__(
        self, services: Services, terms: Terms, form: Form, *, stage_s: float, take: Take, rows: Iterable[Row] = ()
    ) -> None:
        self._services, self.terms, self._form, self._stage_s, self._take = services, terms, form, stage_s, take
        self._tasks: dict[str, str] = {}  # of clients, by name
        self._out: set[str] = set()  # who takes no part any more
        self._why: dict[str, str] = {}
        self._rows: dict[str, dict[str, bytes]] = {stage: {} for stage in STAGES}
        for row in rows:
            self._rows[row["stage"]][row["client"]] = bytes(row["message"])
        self._said: dict[tuple[str, str], Said] = {}
        self._masked = {client: message for client, message in self._rows["mask"].items() if client}
        self._session: ServerSession | None = None
        self._invited: frozenset[str] = frozenset()
        self._added: set[str] = set()  # whose contribution the session has
        self._told = "advertise"  # the stage that clients may know of
        self._news, self._complete = asyncio.Event(), asyncio.Event()
        self._one = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._over: ServerError | None = None
        self._patient = True

    # whose it is

    def invite(self, client: str, task: str) -> None:
        """A client has a task of this attempt."""
        self._tasks[client] = task

    def leaves(self, client: str, why: str = "") -> None:
        """A client's task came to nothing: it is not waited for. `why` is said if the attempt comes to nothing, too."""
        self._out.add(client)
        if why:
            self._why[client] = why
        asyncio.get_running_loop().call_soon(self._look)

    def restore(self) -> None:
        """Makes the session again from its rows; for a thread."""
        if self._rows["advertise"]:
            self._session = self._again()
            self._told = self._session.stage

    def go_on(self) -> None:
        """After `restore`: begins to wait for what has not come."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        for stage, rows in self._rows.items():
            self._said |= {(stage, client): Said(message, done) for client, message in rows.items() if client}
        if self._session is not None:
            self._set_timer()
            asyncio.get_running_loop().call_soon(self._look)

    def end(self, error: ServerError) -> None:
        """It is over; whoever waits is told."""
        self._over = error
        self._stop_timer()
        self._complete.set()
        self._wake()

    def answer_all(self) -> None:
        """Whoever waits, now and later, is answered at once."""
        self._patient = False
        self._wake()

    def waits_for(self) -> tuple[str, ...]:
        """The clients whose message of a stage is waited for, in keys' stages and once contributions are added up."""
        return () if self._told == "mask" else tuple(sorted(self._missing()))

    # what clients bring

    async def step(self, client: str, said: SecureStep) -> bytes | None:
        """Takes a client's message of a stage; what it is sent after it, None if that was not there in time."""
        self._check_part(client)
        if said.stage == "mask":
            if self._masked.get(client) != said.message:
                raise ServerError(
                    "a contribution is uploaded and reported before its sum is asked for", code="conflict"
                )
        else:
            await self._takes(client, said.stage, said.message)
        return None if said.stage == "answer" else await self._next(client, said.stage, min(said.wait_s, HOLD_S))

    async def contribute(self, client: str, result: Result) -> None:
        """Adds a client's masked contribution, whose blob is there, to the sum; WireError if it is not what it says."""
        manifest = result.manifest
        if result.secure is None or manifest.coding or manifest.raw_bytes != self.terms.body_bytes:
            raise WireError(f"a contribution to this sum is masked, and {self.terms.body_bytes:,} bytes as they are")
        async with self._one:
            self._check_part(client)
            if self._told != "mask" or self._session is None:
                raise ServerError("the keys of this round are not known yet, or its sum is made", code="conflict")
            try:
                await self._add(client, result.secure, manifest)
            except SecureSumError as error:
                raise WireError(str(error)) from None
            self._masked[client] = result.secure

    def counted(self, client: str) -> Write:
        """What makes the message of a contribution durable."""
        return self._row("mask", client, self._masked[client])

    async def _takes(self, client: str, stage: str, message: bytes) -> None:
        said = self._said.get((stage, client))
        if said is None:
            said = self._said[stage, client] = self._new(client, stage, message)
            point("secure-message")
            if stage == "advertise" and self._timer is None:
                self._set_timer()
            self._look()
        elif said.message != message:
            raise SecureSumError(f"{client!r} has sent another message in this stage, and the first one counts")
        await asyncio.shield(said.durable)

    def _new(self, client: str, stage: str, message: bytes) -> Said:
        if stage == "advertise" and (self._session is None or client not in self._invited):
            self._session = self._again()  # with one who enrolled since the attempt began
        if self._session is None or STAGES.index(stage) > self._at():
            raise ServerError("this stage has not begun yet: say it again", code="busy", retry_after_s=0.5)
        if self._session.stage != stage:
            raise _out("this stage is over")
        self._session.receive(client, message)
        self._rows[stage][client] = message
        return Said(message, self._take((), (self._row(stage, client, message),)))

    async def _next(self, client: str, stage: str, wait_s: float) -> bytes | None:
        """What a client is sent after a stage, once the end of that stage is durable."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        while True:
            self._check_part(client)
            ended = STAGES.index(self._told) - STAGES.index(stage)
            if ended > 1:
                raise _out("the others have gone on without it")
            if ended == 1 and self._session is not None and self._session.stage == self._told:
                try:
                    return self._session.message_for(client)
                except SecureSumError as error:
                    raise _out(str(error)) from None
            left = until - loop.time()
            if left <= 0 or not self._patient:
                return None
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), left)

    # the ends of stages

    def _look(self) -> None:
        """Goes on if nobody is to be waited for."""
        if self._over is None and self._session is not None and not self._missing():
            if self._session.stage in ("advertise", "share"):
                if self._came() >= self.terms.threshold:
                    self._close_keys()
            else:
                self._complete.set()

    def _missing(self) -> set[str]:
        """Who may still say something in this stage."""
        if self._session is None or self._session.stage == "advertise":
            return {client for client in self._tasks if ("advertise", client) not in self._said} - self._out
        return set(self._session.missing) - self._out

    def _at(self) -> int:
        """The place of the stage that the session is in; after all of them if it is over."""
        stage = "" if self._session is None else self._session.stage
        return STAGES.index(stage) if stage in STAGES else len(STAGES)

    def _came(self) -> int:
        return len(self._rows[self._session.stage]) if self._session is not None else 0

    def _close_keys(self) -> None:
        """Ends a stage before contributions: who was silent has no part in this attempt."""
        assert self._session is not None
        self._stop_timer()
        stage, late = self._session.stage, sorted(self._missing())
        try:
            self._session.advance()
        except SecureSumError as error:
            self._take((self._undone(error),), ())
            return
        self._out.update(late)
        self._rows[stage][""] = b""
        sealed = (Sealed(self.terms.round, self.terms.attempt),) if stage == "advertise" else ()
        dropped = (Dropped(self._tasks[client], "it came too late for the keys of this round") for client in late)
        durable = self._take((*sealed, *dropped), (self._row(stage, "", b""),))
        told = self._session.stage
        durable.add_done_callback(partial(self._tell, told))
        self._set_timer()

    def _tell(self, stage: str, durable: asyncio.Future[None] | None = None) -> None:
        if durable is None or (not durable.cancelled() and durable.exception() is None):
            point("secure-stage")
            self._told = stage
            self._wake()

    async def total(self, counted: Mapping[str, Manifest]) -> Payload:
        """The sum of the contributions of these clients, and of no others; SecureSumError if it cannot be unmasked."""
        async with self._one:
            if self._added - counted.keys():  # a contribution came while the round closed without it
                self._session, self._added = await self._services.thread(self._again), set()
            for client, manifest in counted.items():
                if client not in self._added:
                    await self._add(client, self._masked[client], manifest)
            session = self._session
            if session is None:
                raise SecureSumError("no keys are known of this session")
            await self._services.thread(session.advance)
        self._tell("confirm")
        await self._ended(session, "confirm")
        if "" not in self._rows["confirm"]:
            await self._take((), (self._row("confirm", "", b""),))
        self._tell("answer")
        await self._ended(session, "answer")
        done = session.result()
        if done.culprits:
            logs.event(logging.WARNING, "wrong shares", run=self.terms.run, clients=", ".join(done.culprits))
        return from_ring(done.value, done.slots, self._form)

    async def _ended(self, session: ServerSession, stage: str) -> None:
        """Takes up what was said in a stage before a restart, waits until it is to be closed, and closes it."""
        self._complete.clear()
        rows = self._rows[stage]
        for client in sorted(rows):
            if client:
                session.receive(client, rows[client])
        if "" not in rows and self._missing():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._complete.wait(), self._stage_s)
        if self._over is not None:
            raise self._over
        await self._services.thread(session.advance)

    # small things

    def _again(self) -> ServerSession:
        """The session with all keys and shares that have come. Everybody is invited who has enrolled, so that it is
        not made again for each client that is asked in another's place; who has a task is looked at before."""
        keys = dict(self._services.keys())
        invited = keys if len(keys) <= CLIENTS else keys.keys() & self._tasks.keys()
        session = ServerSession(self.terms, invited=invited, roster=keys, threads=os.cpu_count() or 1)
        self._invited = frozenset(invited)
        for stage in ("advertise", "share"):
            rows = self._rows[stage]
            for client in sorted(rows):
                if client:
                    session.receive(client, rows[client])
            if "" not in rows:
                break
            session.advance()
        return session

    async def _add(self, client: str, message: bytes, manifest: Manifest) -> None:
        session, blobs = self._session, self._services.blobs
        assert session is not None
        body = await self._services.move(lambda: b"".join(chunks(blobs, manifest)))
        await self._services.thread(lambda: session.receive(client, message, body=body))
        self._added.add(client)

    def _row(self, stage: str, client: str, message: bytes) -> Write:
        at = {"run": self.terms.run, "round": self.terms.round, "attempt": self.terms.attempt}
        return Write("secure_step", {**at, "stage": stage, "client": client, "message": message}, wants=1)

    def _undone(self, error: SecureSumError) -> Undone:
        said = next((f"; {client} said: {why}" for client, why in sorted(self._why.items())), "")
        return Undone(self.terms.round, self.terms.attempt, f"{error}{said}"[:500])

    def _check_part(self, client: str) -> None:
        if self._over is not None:
            raise self._over
        if client in self._out:
            raise _out("this client has no part in it any more")

    def _set_timer(self) -> None:
        self._stop_timer()
        if self._session is not None and self._session.stage in ("advertise", "share"):
            self._timer = asyncio.get_running_loop().call_later(self._stage_s, self._close_keys)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def _out(reason: str) -> ServerError:
    return ServerError(f"this part in a secure sum is over: {reason}", code="secure-over")
