"""The server's web application: what clients ask, checked from the outside in, and handed to the coordinator.

For each request: its headers and its length, then the rate, then who asks, then whether that may be asked, and only
then its body. So nobody who is not known makes the server hold anything.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import BinaryIO

from shoal.errors import ConflictError, ServerError, StoreError
from shoal.server import logs
from shoal.server.answers import foreseen
from shoal.server.audit import audit_writes
from shoal.server.coordination import Coordination, Known
from shoal.server.exchange import Exchange, Left, Receive, Scope, Send
from shoal.server.limits import ANONYMOUS_BYTES, CHECK_IN_BYTES, CHUNK_BYTES, Buckets, Limits, Room, Transfers
from shoal.server.metrics import CONTENT_TYPE, Metrics
from shoal.server.operators import Operations, Operators
from shoal.server.sending import send_file
from shoal.server.sessions import Open, Sessions, superseded_error
from shoal.store.store import Write
from shoal.wire.messages import (
    COUNTER_HEADER,
    DIGEST_HEADER,
    MAC_HEADER,
    MESSAGE_BYTES,
    SESSION_HEADER,
    VERSION,
    VERSION_HEADER,
    CheckIn,
    Declined,
    Enroll,
    Hello,
    Missing,
    Result,
    SecureStep,
    ServerInfo,
    Upload,
    Verdict,
)
from shoal.wire.signing import enroll_bytes, verify

_PART_BYTES = 64 * 1024 * 1024
_TASK = re.compile(r"/v1/tasks/([0-9a-z-]{1,64})/(upload|report|decline|secure)")
_PART = re.compile(r"/v1/tasks/([0-9a-z-]{1,64})/parts/(\d{1,6})")
_BLOB = re.compile(r"/v1/blobs/([0-9a-f]{64})")
_FOR_EVER = ((b"cache-control", b"private, max-age=31536000, immutable"),)
_READY_S = 5.0


class App:
    """One federation on one port, as ASGI: clients, operators, health and figures."""

    def __init__(
        self,
        coordinator: Coordination,
        *,
        operators: Operators,
        metrics: Metrics | None = None,
        limits: Limits | None = None,
        authority: bytes = b"",
    ) -> None:
        self.coordinator = coordinator
        self._authority = authority
        self.metrics, self.limits = metrics or Metrics(), limits or Limits()
        self.draining = False
        self.sessions = Sessions(
            coordinator.federation, coordinator.boot,
            public_key=coordinator.public_key, known=coordinator.known, gone=coordinator.gone,
            superseded=self._superseded,
        )  # fmt: skip
        self.operations = Operations(coordinator, operators, draining=lambda: self.draining)
        self._anonymous = Buckets(self.limits.anonymous_rate)
        self._requests = Buckets(self.limits.client_rate)
        self._bytes = Buckets(self.limits.client_bytes_rate)
        self._room = Room(self.limits.memory_bytes, patience_s=self.limits.patience_s)
        self._transfers = Transfers(self.limits.transfers)
        self._ids = itertools.count(1)
        self._ready = (float("-inf"), "")
        self._exact: dict[tuple[str, str], tuple[str, Callable[[Exchange], Awaitable[str | None]]]] = {
            ("POST", "/v1/checkin"): ("checkin", self._check_in),
            ("GET", "/v1/server"): ("server", self._server),
            ("GET", "/v1/authority"): ("authority", self._authority_file),
            ("POST", "/v1/enroll"): ("enroll", self._enroll),
            ("POST", "/v1/session"): ("session", self._session),
            ("GET", "/healthz"): ("health", self._health),
            ("GET", "/readyz"): ("ready", self._readiness),
            ("GET", "/metrics"): ("metrics", self._figures),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, whatever happens to it."""
        if scope["type"] != "http":
            return
        exchange = Exchange(
            scope, receive, send, id=f"{self.coordinator.boot[:6]}-{next(self._ids):x}", limits=self.limits
        )
        route, handler = self._route(exchange)
        client = code = None
        try:
            client = await handler(exchange)
        except Left:
            code = "left"
        except Exception as error:
            code = await self._failed(exchange, error, route)
        seconds = time.monotonic() - exchange.started
        self.metrics.request(route, exchange.status, seconds=seconds, received=exchange.received, sent=exchange.sent)
        level = logging.DEBUG if code is None else logging.INFO
        logs.event(
            level, "request", request=exchange.id, route=route, status=exchange.status, client=client, code=code,
            seconds=round(seconds, 4),
        )  # fmt: skip

    def _route(self, exchange: Exchange) -> tuple[str, Callable[[Exchange], Awaitable[str | None]]]:
        exact = self._exact.get((exchange.method, exchange.path))
        if exact is not None:
            return exact
        if exchange.path.startswith("/v1/tasks/"):
            return "secure" if exchange.path.endswith("/secure") else "task", self._task  # the one is held, others not
        if exchange.path.startswith("/v1/blobs/"):
            return "blob", self._blob
        return "operators", self._operators

    async def _failed(self, exchange: Exchange, error: Exception, route: str) -> str:
        if not foreseen(error):
            logs.failure("a request failed", error, request=exchange.id, route=route)
        elif isinstance(error, StoreError | OSError) and not isinstance(error, ConflictError):
            logs.failure("a request was not done", error, request=exchange.id, route=route)
        problem = await exchange.refuse(error)  # one that has begun is cut off where it is, with its connection
        self.metrics.refused(problem.code)
        return problem.code

    # before anybody is known

    async def _server(self, exchange: Exchange) -> None:
        self._limit(exchange)
        here = self.coordinator
        await exchange.answer(
            ServerInfo(
                federation=here.federation,
                versions=(VERSION,),
                boot=here.boot,
                time=time.time(),
                features=("long-poll", "ranges", "zstd"),
            )
        )

    async def _authority_file(self, exchange: Exchange) -> None:
        """The certificate that clients trust, if it is of this server's making: they compare its fingerprint."""
        self._limit(exchange)
        if not self._authority:
            raise ServerError("this server's certificate is not of its own making", code="not-found")
        await exchange.whole(200, [(b"content-type", b"application/x-pem-file")], self._authority)

    async def _enroll(self, exchange: Exchange) -> None:
        self._speaks(exchange)
        self._limit(exchange)
        message = exchange.decoded(await exchange.unsigned_body(ANONYMOUS_BYTES), Enroll)
        signed = enroll_bytes(self.coordinator.federation, message.token, message.name, message.public_key)
        if not verify(message.public_key, message.signature, signed):
            raise ServerError("the signature is not by the key that is to be enrolled", code="bad-signature")
        await exchange.answer(await self.coordinator.enroll(message))

    async def _session(self, exchange: Exchange) -> None:
        self._speaks(exchange)
        self._limit(exchange)
        message = exchange.decoded(await exchange.unsigned_body(ANONYMOUS_BYTES), Hello)
        await exchange.answer(self.sessions.hello(message))

    def _limit(self, exchange: Exchange) -> None:
        wait_s = self._anonymous.take(exchange.address)
        if wait_s:
            raise _too_many("this address asks too often without a session", wait_s)

    # clients in a session

    def _speaks(self, exchange: Exchange) -> None:
        if exchange.header(VERSION_HEADER) != str(VERSION):
            raise ServerError(
                f"this server speaks version {VERSION} of the protocol, said in the header {VERSION_HEADER}: "
                "bring the older side up to date",
                code="version",
            )

    def _opened(self, exchange: Exchange) -> Open:
        """The session that a request is in, after everything that its headers can say was checked."""
        self._speaks(exchange)
        session = exchange.header(SESSION_HEADER)
        if not self.sessions.has(session) and self._anonymous.empty(exchange.address):
            raise _too_many("this address asks too often without a session", 1.0)
        try:
            opened = self.sessions.check(
                exchange.method, exchange.target, session=session, counter=exchange.header(COUNTER_HEADER),
                digest=exchange.header(DIGEST_HEADER), mac=exchange.header(MAC_HEADER),
            )  # fmt: skip
        except ServerError:
            self._anonymous.take(exchange.address)
            raise
        wait_s = self._requests.take(opened.client.id)
        if wait_s:
            raise _too_many("this client asks too often", wait_s)
        return opened

    async def _body(self, exchange: Exchange, most: int) -> bytes:
        async with self._room.taken(exchange.length(most)):
            return await exchange.body(most)

    async def _check_in(self, exchange: Exchange) -> str:
        exchange.length(CHECK_IN_BYTES)
        session = self._opened(exchange)
        message = exchange.decoded(await self._body(exchange, CHECK_IN_BYTES), CheckIn)
        orders = await self.coordinator.check_in(session.client, message, told=session.told)
        if not self.sessions.has(session.id):
            raise superseded_error()
        await exchange.answer(orders)
        return session.client.id

    async def _task(self, exchange: Exchange) -> str:
        part = _PART.fullmatch(exchange.path)
        if part and exchange.method == "PUT":
            return await self._put_part(exchange, part[1], int(part[2]))
        asked = _TASK.fullmatch(exchange.path)
        if not asked or exchange.method != "POST":
            raise ServerError("there is nothing here under this method and path", code="not-found")
        exchange.length(MESSAGE_BYTES)
        session = self._opened(exchange)
        client, task = session.client, asked[1]
        if asked[2] == "secure":
            step = exchange.decoded(await self._body(exchange, MESSAGE_BYTES), SecureStep)
            await exchange.answer(await self.coordinator.secure(client, task, step))
            return client.id
        async with self._room.taken(exchange.length(MESSAGE_BYTES)):
            answer = await self._told(exchange, client, task, asked[2])
        await exchange.answer(answer)
        return client.id

    async def _told(self, exchange: Exchange, client: Known, task: str, what: str) -> Missing | Verdict:
        body = await exchange.body(MESSAGE_BYTES)
        if what == "upload":
            return await self.coordinator.offer(client, task, exchange.decoded(body, Upload))
        if what == "decline":
            return await self.coordinator.decline(client, task, exchange.decoded(body, Declined))
        verdict = await self.coordinator.report(client, task, exchange.decoded(body, Result))
        self.metrics.verdict(verdict.verdict)
        return verdict

    async def _put_part(self, exchange: Exchange, task: str, n: int) -> str:
        length = exchange.length(_PART_BYTES)
        client = self._opened(exchange).client
        incoming = self.coordinator.incoming(client, task)
        if incoming.has(n):
            await exchange.whole(204, [], b"")
            return client.id
        with self._transfers.one(client.id):
            await self._throttle(client, length)
            async with self._room.taken(2 * CHUNK_BYTES):
                with incoming.begin(n) as writer:
                    await exchange.pieces(length, writer.write)
                    writer.finish()
        await self.coordinator.part_done(client, task, n)
        await exchange.whole(204, [], b"")
        return client.id

    async def _blob(self, exchange: Exchange) -> str:
        asked = _BLOB.fullmatch(exchange.path)
        if not asked or exchange.method != "GET":
            raise ServerError("there is nothing here under this method and path", code="not-found")
        client, blob = self._opened(exchange).client, asked[1]
        if not self.coordinator.may_read(client, blob):
            raise _unknown_blob()
        with self._transfers.one(client.id), await asyncio.to_thread(self._opened_blob, blob) as file:
            async with self._room.taken(2 * CHUNK_BYTES):
                await send_file(exchange, file, tag=blob, headers=_FOR_EVER)
        return client.id

    def _opened_blob(self, blob: str) -> BinaryIO:
        if not self.coordinator.blobs.has(blob):
            raise _unknown_blob()
        return self.coordinator.blobs.open(blob)

    def _superseded(self, client: Known) -> None:
        logs.event(logging.WARNING, "superseded", client=client.id)
        self.coordinator.store.write(
            *audit_writes(f"client {client.id}", "superseded", client.id, "by a newer agent", time=time.time())
        )

    async def _throttle(self, client: Known, length: int) -> None:
        """Lets a client wait that sends more bytes a second than it may."""
        while wait_s := self._bytes.take(client.id, length):
            await asyncio.sleep(wait_s)

    # people and their machines

    async def _operators(self, exchange: Exchange) -> None:
        if self._anonymous.empty(exchange.address):
            raise _too_many("this address was refused too often", 1.0)
        try:
            await self.operations.answer(exchange)
        except ServerError as error:
            if error.code == "operator-unknown":
                self._anonymous.take(exchange.address)
            raise

    async def _health(self, exchange: Exchange) -> None:
        await _text(exchange, 200, "up\n")

    async def _readiness(self, exchange: Exchange) -> None:
        self._limit(exchange)
        why_not = "draining" if self.draining else await self._unwritable()
        await _text(exchange, 503 if why_not else 200, f"{why_not or 'ready'}\n")

    async def _unwritable(self) -> str:
        """Why the store takes nothing, "" if it does: tried by a transaction that changes no row, every few seconds."""
        then, why_not = self._ready
        if time.monotonic() - then < _READY_S:
            return why_not
        try:
            written = self.coordinator.store.write(Write("client_seen", {"id": "", "now": 0.0}))
            await asyncio.wait_for(asyncio.wrap_future(written), 5)
            why_not = ""
        except Exception as error:
            logs.failure("the store takes nothing", error)
            why_not = "the store takes nothing"
        self._ready = (time.monotonic(), why_not)
        return why_not

    async def _figures(self, exchange: Exchange) -> None:
        self._limit(exchange)
        text = self.metrics.text(self.coordinator.runs(), online=len(self.sessions))
        await exchange.whole(200, [(b"content-type", CONTENT_TYPE)], text)


async def _text(exchange: Exchange, status: int, text: str) -> None:
    await exchange.whole(status, [(b"content-type", b"text/plain")], text.encode())


def _unknown_blob() -> ServerError:
    return ServerError("no task or run of this client names a blob with this id", code="blob-unknown")


def _too_many(message: str, wait_s: float) -> ServerError:
    return ServerError(message, code="too-many", retry_after_s=wait_s)
