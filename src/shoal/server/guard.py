"""Connections: how many, and how long one may take to say what it wants. Before any of it is a request."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import is_ssl
from uvicorn.server import ServerState

from shoal.server.limits import Limits

_MOST_HEADERS = 64
_DISCARDED = 64 * 1024 * 1024
_SMALL = 4096
_READ_AHEAD = 64 * 1024
_DIGITS = 5
"""A body whose length has more digits is a long one."""


@dataclass
class Gate:
    """How many connections are open, in all and from each address."""

    limits: Limits
    open: int = 0
    of: Counter[str] = field(default_factory=Counter[str])

    def enter(self, address: str) -> bool:
        """Whether one more may come in. It is counted either way, until it leaves."""
        self.open += 1
        self.of[address] += 1
        return self.open <= self.limits.connections and self.of[address] <= self.limits.connections_per_address

    def leave(self, address: str) -> None:
        """One is closed."""
        self.open -= 1
        self.of[address] -= 1
        if not self.of[address]:
            del self.of[address]


class _Together:
    """A transport that sends small pieces of one turn of the loop together: a short answer's head and its body.

    One TLS record and one call of the system in place of two saves a tenth of what a check-in costs here.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Sends data, with what was held before it; holds it until the end of this turn if it is the first."""
        if self._held:
            data, self._held = self._held + data, b""
        elif len(data) < _SMALL:
            self._held = data
            self._loop.call_soon(self.flush)
            return
        self._transport.write(data)

    def flush(self) -> None:
        """Sends what is held."""
        if self._held:
            data, self._held = self._held, b""
            self._transport.write(data)

    def close(self) -> None:
        """Ends the connection after what was written."""
        self.flush()
        self._transport.close()


class Guarded(HttpToolsProtocol):
    """uvicorn's connection with what it leaves to proxies: an end to slow, endless and too many headers.

    A timer runs whenever nothing but the peer can go on: before a request's headers are whole, and while the rest
    of a body comes that was answered before it was read.
    """

    def __init__(self, config: Config, server_state: ServerState, *, gate: Gate) -> None:
        super().__init__(config, server_state, {})
        self._gate, self._limits = gate, gate.limits
        self._address = ""
        self._timer: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._body_left = False

    def connection_made(self, transport: Any) -> None:
        if is_ssl(transport):
            transport.set_read_buffer_limits(high=_READ_AHEAD)
        super().connection_made(_Together(transport, self.loop))  # type: ignore[arg-type] # it is one in all but name
        self._address = self.client[0] if self.client else ""
        if self._gate.enter(self._address):
            self._arm(self._limits.header_s)
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._gate.leave(self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        of_a_body = self._body_left
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            return
        if not of_a_body:
            self._header_bytes += len(data)
            if self._header_bytes > self._limits.header_bytes:
                self.send_400_response("The headers are too large.")
        if self._timer is None:
            self._arm(self._limits.seconds_for(_DISCARDED) if self._body_left else self._limits.header_s)

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self._limits.header_bytes or len(self.headers) > _MOST_HEADERS:
            raise ValueError("headers are too large")  # the parser makes a 400 of it
        self._disarm()
        self._header_bytes, self._body_left = 0, True
        super().on_headers_complete()
        if any(name == b"content-length" and len(value) > _DIGITS for name, value in self.headers):
            self.flow.pause_reading()  # until somebody wants the body: those who wait for room hold little meanwhile

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._body_left = False
        self._disarm()

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
