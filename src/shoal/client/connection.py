"""A client's session with its server: a hello signed with its key, then requests bound to the session."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from shoal.client.events import Connected, Event, Skewed
from shoal.client.identity import Identity
from shoal.client.line import Line
from shoal.errors import ServerError, WireError
from shoal.wire.codec import decode, encode
from shoal.wire.messages import (
    COUNTER_HEADER,
    DIGEST_HEADER,
    MAC_HEADER,
    MESSAGE_BYTES,
    SESSION_HEADER,
    VERSION,
    CheckIn,
    Declined,
    Hello,
    Message,
    Orders,
    ServerInfo,
    Session,
    Verdict,
)  # fmt: skip
from shoal.wire.signing import digest_of, hello_bytes, mac, sign, to_sign

M = TypeVar("M", bound=Message)

RENEWED = frozenset({"session-unknown", "replayed", "bad-mac"})
"""Refusals that a new session mends."""
RENEWALS = 5
"""So many new sessions in a row are asked for before a refusal is believed."""
SKEW_S = 60.0
"""A clock that is further off is told of."""


@dataclass(frozen=True)
class _Open:
    session: str
    mac_key: bytes


class Connection:
    """What one client says to its server. Several threads may use it.

    The session is opened with the first request, and again whenever the server does not know it any more. Nothing
    depends on the server's clock; `tell` hears if it differs from `wall`, this machine's.
    """

    def __init__(
        self,
        line: Line,
        identity: Identity,
        *,
        private_key: bytes,
        software: str = "",
        tell: Callable[[Event], None] = lambda event: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.line, self._identity, self._private_key = line, identity, private_key
        self._software, self._tell, self._wall = software, tell, wall
        self._incarnation = secrets.token_hex(16)
        self._opening, self._counting = threading.Lock(), threading.Lock()
        self._open: _Open | None = None
        self._counter = 0

    def check_in(self, message: CheckIn) -> Orders:
        """What the client is to do; the answer comes after at most about `message.wait_s`."""
        data = self.call("POST", "/v1/checkin", encode(message), kind="check-in", wait_s=message.wait_s)
        return decode(data, Orders)

    def decline(self, task: str, message: Declined) -> Verdict:
        """Gives a task back."""
        return decode(self.call("POST", f"/v1/tasks/{task}/decline", encode(message), kind="decline"), Verdict)

    def forget(self) -> None:
        """Ends the session on this side, so that the next request opens another one."""
        self._open = None

    def call(
        self, method: str, path: str, body: bytes = b"", *, kind: str, wait_s: float = 0.0,
        headers: dict[str, str] | None = None, most_bytes: int = MESSAGE_BYTES,
    ) -> bytes:  # fmt: skip
        """The answer to a request in the session, however many attempts and sessions it takes."""
        digest = digest_of(body)

        def exchange() -> bytes:
            for renewal in range(RENEWALS + 1):
                opened = self._session()
                signed = to_sign(method, path, counter := self._next(), digest)
                bound = {SESSION_HEADER: opened.session, COUNTER_HEADER: str(counter), DIGEST_HEADER: digest,
                         MAC_HEADER: mac(opened.mac_key, signed), **(headers or {})}  # fmt: skip
                try:
                    return self.line.send(
                        method, path, body=body, headers=bound, kind=kind, most_bytes=most_bytes, wait_s=wait_s
                    )
                except ServerError as error:
                    if error.code not in RENEWED or renewal == RENEWALS:
                        raise
                    self._end(opened)
            raise AssertionError  # the last turn of the loop returns or raises

        return self.line.attempt(exchange)

    def _next(self) -> int:
        with self._counting:
            self._counter += 1
            return self._counter

    def _end(self, ended: _Open) -> None:
        """Forgets a session, unless another thread has opened one since."""
        with self._opening:
            if self._open is ended:
                self._open = None

    def _session(self) -> _Open:
        with self._opening:
            if self._open is None:
                info = server_info(self.line)
                if info.federation != self._identity.federation:
                    raise ServerError(
                        f"{self.line.server} is the federation {info.federation}, and this client enrolled in "
                        f"{self._identity.federation}: check the URL, or enrol there in a home of its own",
                        code="federation",
                    )
                self._open = self._hello(info)
                self.line.proved()
                self._tell(Connected(info.federation, self._identity.name))
                if abs(skew := info.time - self._wall()) > SKEW_S:
                    self._tell(Skewed(skew))
            return self._open

    def _hello(self, info: ServerInfo) -> _Open:
        """One attempt to open a session."""
        nonce, client = secrets.token_bytes(16), self._identity.client
        signed = hello_bytes(info.federation, info.boot, client, self._incarnation, nonce)
        message = Hello(
            client=client, boot=info.boot, incarnation=self._incarnation, nonce=nonce,
            signature=sign(self._private_key, signed), software=self._software,
        )  # fmt: skip
        session = decode(self.line.send("POST", "/v1/session", body=encode(message), kind="session"), Session)
        return _Open(session.session, session.mac_key)


def server_info(line: Line) -> ServerInfo:
    """Who a server is, asked once; ServerError if it does not speak this version of the protocol."""
    try:
        info = decode(line.send("GET", "/v1/server", kind="session"), ServerInfo)
    except WireError as error:
        raise ServerError(f"{line.server} answers, but it is not a Shoal server", code="not-shoal") from error
    if VERSION not in info.versions:
        spoken = ", ".join(map(str, info.versions))
        raise ServerError(
            f"{line.server} speaks version {spoken} of the protocol, and this client {VERSION}: install the version "
            "of Shoal that the server has",
            code="version",
        )
    return info
