"""One request and its answer, over ASGI without a framework: what every client's request passes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from shoal.errors import ServerError, WireError
from shoal.server.answers import problem_of, retry_after
from shoal.server.limits import Limits
from shoal.wire.codec import decode, decode_json, encode, encode_json
from shoal.wire.messages import DIGEST_HEADER, Message, Problem
from shoal.wire.signing import digest_of

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
M = TypeVar("M", bound=Message)

MSGPACK, JSON = b"application/msgpack", b"application/json"
_LARGEST_BODY = 64 * 1024 * 1024


class Left(Exception):  # noqa: N818 - nothing went wrong here
    """The peer went away in the middle of its request: nobody is there to be told."""


class Exchange:
    """A request of which only the headers are known, and the answer to it.

    Nothing of the body is read until somebody asks for it. A body that is answered before it was read is passed over
    as it comes if it is of a size that is allowed; else the connection is closed.
    """

    __slots__ = (
        "_headers", "_receive", "_send", "address", "id", "limits", "method", "path", "received", "sent", "started",
        "status", "target",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, id: str, limits: Limits) -> None:
        self.id, self.limits = id, limits
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        query: bytes = scope["query_string"]
        raw: bytes = scope.get("raw_path") or self.path.encode()
        self.target = (raw + b"?" + query if query else raw).decode("latin-1")
        self.address: str = scope["client"][0] if scope.get("client") else ""
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self._receive, self._send = receive, send
        self.started = time.monotonic()
        self.status = self.received = self.sent = 0

    def header(self, name: str) -> str:
        """A header's value, "" if there is none. `name` in lower case."""
        return self._headers.get(name.encode(), b"").decode("latin-1")

    @property
    def as_json(self) -> bool:
        """Whether the answer is JSON: unless the request is msgpack, or asks for it."""
        return MSGPACK not in self._headers.get(b"content-type", b"") + self._headers.get(b"accept", b"")

    @property
    def _chunked(self) -> bool:
        return b"transfer-encoding" in self._headers

    def length(self, most: int) -> int:
        """How long the body is by its header; ServerError if it does not say, or is longer than `most`."""
        text = self._headers.get(b"content-length", b"")
        if self._chunked or not text.isdigit():
            raise ServerError("a request with a body says how long it is in Content-Length", code="length-required")
        length = int(text)
        if length > most:
            raise ServerError(f"this request has at most {most:,} bytes, and says {length:,}", code="too-large")
        return length

    async def pieces(self, length: int, take: Callable[[bytes], None]) -> None:
        """Hands the body to `take`, piece by piece. Left if the peer goes; ServerError if it is not `length` long."""
        async with asyncio.timeout(self.limits.seconds_for(length)):
            left, more = length, True
            while more:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    raise Left
                piece: bytes = message.get("body", b"")
                left -= len(piece)
                if left < 0:
                    break
                self.received += len(piece)
                if piece:
                    take(piece)
                more = message.get("more_body", False)
        if left:
            raise ServerError("the body is not as long as the request said", code="malformed")

    async def unsigned_body(self, most: int) -> bytes:
        """The whole body; ServerError if it is longer than `most`."""
        whole = bytearray()
        await self.pieces(self.length(most), whole.extend)
        return bytes(whole)

    async def body(self, most: int) -> bytes:
        """The whole body; ServerError if it is longer than `most`, or its digest is another than the header's."""
        body = await self.unsigned_body(most)
        if digest_of(body) != self.header(DIGEST_HEADER):
            raise ServerError("the body's SHA-256 is not what the request's header says", code="wrong-digest")
        return body

    def decoded(self, body: bytes, kind: type[M]) -> M:
        """The message in a body, by its content type; ServerError if it is none."""
        content = self._headers.get(b"content-type", b"").split(b";")[0].strip()
        if content not in (MSGPACK, JSON):
            raise ServerError(
                "a message is application/msgpack or application/json, as Content-Type says", code="media-type"
            )
        try:
            return decode_json(body, kind) if content == JSON else decode(body, kind)
        except WireError as error:
            raise ServerError(str(error), code="malformed") from None

    async def answer(self, message: Message, status: int = 200) -> None:
        """Sends a message, as msgpack or JSON."""
        data, kind = (encode_json(message), JSON) if self.as_json else (encode(message), MSGPACK)
        headers = [(b"content-type", kind)]
        if isinstance(message, Problem):
            wait = retry_after(message)
            if wait is not None:
                headers.append((b"retry-after", wait))
        await self.whole(status, headers, data)

    async def refuse(self, error: BaseException) -> Problem:
        """Sends what is to be said of an error, unless an answer has begun; what was said."""
        status, problem = problem_of(error)
        if not self.status:
            await self.answer(problem, status)
        return problem

    async def whole(self, status: int, headers: list[tuple[bytes, bytes]], data: bytes) -> None:
        """Sends an answer that is in memory."""
        await self.begin(status, headers, len(data))
        await self.more(data, last=True)

    async def begin(self, status: int, headers: list[tuple[bytes, bytes]], length: int) -> None:
        """Begins an answer of a length; its bytes follow through `more`."""
        self.status = status
        headers = [*headers, (b"content-length", b"%d" % length), (b"shoal-request", self.id.encode())]
        if self._unwelcome():
            headers.append((b"connection", b"close"))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def stream(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Begins an answer that has no length; its bytes follow through `more`."""
        self.status = 200
        said = [*headers, (b"shoal-request", self.id.encode())]
        await self._send({"type": "http.response.start", "status": 200, "headers": said})

    async def until_left(self) -> None:
        """Returns when the peer is gone. For answers that go on: nothing of the body is read besides."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def more(self, data: bytes, *, last: bool = False) -> None:
        """The next bytes of an answer."""
        self.sent += len(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})

    def _unwelcome(self) -> bool:
        """Whether more of the body may come than anybody would read."""
        text = self._headers.get(b"content-length", b"0")
        return self._chunked or not text.isdigit() or int(text) > _LARGEST_BODY
