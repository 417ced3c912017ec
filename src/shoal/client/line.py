"""Requests to a server, each repeated until it is answered: what lies under a session."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import urllib3
from urllib3.util import Timeout

from shoal.client.backoff import Backoff
from shoal.client.events import Away, Event
from shoal.client.tls import CONNECT_S, READ_S, Pool, checked_url, why_unreachable
from shoal.errors import ServerError, StoppedError, SupersededError, WireError
from shoal.wire.codec import decode, decode_json
from shoal.wire.messages import MESSAGE_BYTES, VERSION, VERSION_HEADER, Problem

T = TypeVar("T")

AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 507})
"""Statuses after which the same request may go well later."""
STOPPING_S = 5.0
"""How long an answer is waited for once the agent is stopping."""
DEFECTS = 6
"""So many times a request is made again at which the server itself failed."""
MSGPACK = "application/msgpack"


class Line:
    """The way to one server. Several threads may use it.

    Every request of the protocol may be repeated, and is, with `backoff` between attempts, for as long as it takes;
    an impatient line gives up at once where the server is not reached. `tell` hears of each wait, and `count` of
    every request: what it was for, and its bytes.
    """

    def __init__(
        self,
        server: str,
        *,
        authority: str | None = None,
        patient: bool = True,
        backoff: Backoff | None = None,
        pause: Callable[[float], Any] | None = None,
        tell: Callable[[Event], None] = lambda event: None,
        count: Callable[[str, int], None] = lambda kind, size: None,
    ) -> None:
        self.server = checked_url(server)
        self._pool = Pool(self.server, authority=authority)
        self._patient, self._backoff = patient, backoff or Backoff()
        self._stopping = threading.Event()
        self._pause = pause or self._stopping.wait
        self._tell, self._count = tell, count
        self._proved = False

    def stop(self) -> None:
        """Ends every wait. Requests under way are cut, and those after this get one short attempt."""
        self._stopping.set()
        self._pool.cut()

    def proved(self) -> None:
        """Notes that the server is the right one: from now on another answer is somebody between here and there."""
        self._proved = True

    def close(self) -> None:
        """Closes the connections."""
        self._pool.clear()

    def attempt(self, exchange: Callable[[], T]) -> T:
        """What an exchange gives once it goes well.

        ServerError for an answer that stays the same however often it is asked for, SupersededError if another
        agent has the identity, StoppedError if the line was stopped before.
        """
        for attempt in itertools.count():
            try:
                return exchange()
            except (urllib3.exceptions.HTTPError, OSError) as error:
                problem = why_unreachable(error, self.server)
            except _LaterError as error:
                problem = error.problem
            except ServerError as error:
                if error.code != "not-shoal":
                    raise
                problem = error
            if self._stopping.is_set():
                raise StoppedError("the agent was stopped while it talked to the server")
            if self._is_final(problem, attempt):
                raise problem
            wait_s = self._backoff.wait_s(attempt, asked_s=problem.retry_after_s)
            self._tell(Away(str(problem), wait_s))
            self._pause(wait_s)
            if self._stopping.is_set():
                raise StoppedError("the agent was stopped while it waited for the server")
        raise AssertionError  # the loop has no end

    def _is_final(self, problem: ServerError, attempt: int) -> bool:
        """Whether it is of no use to try again. Who was the server once may be a hotel's login page for a while."""
        if problem.code in ("certificate", "not-shoal"):
            return not (self._patient and self._proved)
        return not self._patient or (problem.code == "internal" and attempt >= DEFECTS)

    def send(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None, kind: str,
        most_bytes: int = MESSAGE_BYTES, wait_s: float = 0.0,
    ) -> bytes:  # fmt: skip
        """The body of the answer to one request, made once: an `exchange`, or a part of one.

        At most `most_bytes` are read of it; an answer may take `wait_s` longer than others.
        """
        sent = {VERSION_HEADER: str(VERSION), "accept": MSGPACK, **(headers or {})}
        if body:
            sent.setdefault("content-type", MSGPACK)
        self._count(kind, len(body) + sum(len(name) + len(value) + 4 for name, value in sent.items()) + len(path) + 12)
        patience = STOPPING_S if self._stopping.is_set() else READ_S + wait_s
        response = self._pool.manager.request(
            method, self.server + path, body=body or None, headers=sent, preload_content=False, redirect=False,
            retries=False, timeout=Timeout(connect=min(CONNECT_S, patience), read=patience),
        )  # fmt: skip
        try:
            data = _read(response, most_bytes if response.status < 300 else MESSAGE_BYTES)
        except BaseException:
            response.close()  # what is left of the answer must not be taken for that of the next request
            raise
        response.release_conn()
        if 200 <= response.status < 300 and not response.headers.get("content-type", "").startswith("text/"):
            return data
        raise _refusal(response, data, self.server)


class _LaterError(Exception):
    """The server said: not now."""

    def __init__(self, problem: ServerError) -> None:
        super().__init__(str(problem))
        self.problem = problem


def _read(response: urllib3.BaseHTTPResponse, most_bytes: int) -> bytes:
    """The whole body; WireError if it is longer than it may be."""
    parts: list[bytes] = []
    left = most_bytes + 1
    while left > 0 and (part := response.read(min(left, 1 << 20))):
        parts.append(part)
        left -= len(part)
    if left <= 0:
        raise WireError(f"the server's answer is longer than the {most_bytes:,} bytes that it may have")
    return b"".join(parts)


def _refusal(response: urllib3.BaseHTTPResponse, data: bytes, server: str) -> Exception:
    """The error for an answer that is none: one to try again after, or a final one."""
    problem = _problem(response, data)
    if problem is None:
        message = f"{server} answers with HTTP status {response.status}, and not as a Shoal server"
        error = ServerError(message, code="not-shoal", retry_after_s=_retry_after(response))
    elif response.status == 426:
        message = f"the server does not speak this client's version {VERSION} of the protocol: {problem.message}"
        return ServerError(message, code=problem.code)
    elif problem.code == "superseded":
        return SupersededError(problem.message, code=problem.code)
    else:
        after = problem.retry_after_s if problem.retry_after_s is not None else _retry_after(response)
        error = ServerError(problem.message, code=problem.code, retry_after_s=after)
    return _LaterError(error) if response.status in AGAIN else error


def _problem(response: urllib3.BaseHTTPResponse, data: bytes) -> Problem | None:
    """What the server says went wrong; None if it is somebody else who answers."""
    decoder = decode_json if "json" in response.headers.get("content-type", "") else decode
    try:
        return decoder(data, Problem)
    except WireError:
        return None


def _retry_after(response: urllib3.BaseHTTPResponse) -> float | None:
    after = response.headers.get("retry-after", "")
    return float(after) if after.isdecimal() and len(after) < 6 else None
