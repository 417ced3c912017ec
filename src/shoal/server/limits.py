"""How much of the server anybody may have: rates, sizes, times and memory."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, fields

from shoal.errors import ServerError
from shoal.settings import number, settle

CHECK_IN_BYTES = 256 * 1024
"""The largest check-in: a thousand runs that are refused, a hundred tasks that are held."""

ANONYMOUS_BYTES = 16 * 1024
"""The largest body that is read of somebody who is not known yet."""

CHUNK_BYTES = 128 * 1024
"""How much of a blob is in memory for each upload and download."""


@dataclass(frozen=True)
class Limits:
    """What is allowed. Rates are per second, and ten seconds' worth may come at once.

    `anonymous_rate` counts what an address asks without a session, and what it asks with a wrong one. `slowest` is
    the bytes per second below which a body is not waited for, `patience_s` what is added to that for each request.
    `memory_bytes` bounds what all requests together hold; requests beyond it wait, then are told to come again.
    """

    anonymous_rate: float = 100.0
    client_rate: float = 100.0
    client_bytes_rate: float = 512e6
    transfers: float = 16
    """Uploads and downloads of one client at a time."""
    slowest: float = 16_384.0
    patience_s: float = 10.0
    header_s: float = 10.0
    """From the first byte of a connection, or of a request, to the end of its headers."""
    idle_s: float = 75.0
    """How long a connection stays open between two requests."""
    header_bytes: float = 16_384
    connections: float = 20_000
    connections_per_address: float = 15_000
    """Many clients may be behind one address: a hospital's, or a proxy's."""
    memory_bytes: float = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        for each in fields(self):
            rule = f"{each.name} is a number over 0"
            settle(self, **{each.name: number(getattr(self, each.name), rule, lambda v: v > 0)})

    def seconds_for(self, size_bytes: int) -> float:
        """How long a body of a size is waited for."""
        return self.patience_s + size_bytes / self.slowest


class Buckets:
    """Token buckets by key: each fills at `rate` a second up to ten seconds' worth. At most `most` keys are kept."""

    def __init__(self, rate: float, *, most: int = 100_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._full, self._most, self._clock = rate, 10 * rate, most, clock
        self._level: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._level)

    def take(self, key: str, amount: float = 1.0) -> float:
        """0 if the bucket had the amount, which is gone then; else the seconds until it has."""
        level = self._now(key)
        enough = level >= min(amount, self._full)
        self._put(key, level - amount if enough else level)
        return 0.0 if enough else (min(amount, self._full) - level) / self._rate

    def empty(self, key: str) -> bool:
        """Whether nothing is left for a key. Takes nothing."""
        return self._now(key) < 1

    def _now(self, key: str) -> float:
        level, then = self._level.get(key, (self._full, 0.0))
        return min(self._full, level + (self._clock() - then) * self._rate)

    def _put(self, key: str, level: float) -> None:
        self._level[key] = (level, self._clock())
        self._level.move_to_end(key)
        if len(self._level) > self._most:
            self._level.popitem(last=False)


class Room:
    """Memory that requests share. Those that do not fit wait in the order in which they came."""

    def __init__(self, size_bytes: float, *, patience_s: float) -> None:
        self._free, self._patience_s = size_bytes, patience_s
        self._size = size_bytes
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def taken(self, size_bytes: int) -> AsyncGenerator[None]:
        """Holds some of it. ServerError "busy" if there is none for too long."""
        wanted = min(size_bytes, self._size)
        if self._waiting or wanted > self._free:
            await self._wait(wanted)
        else:
            self._free -= wanted
        try:
            yield
        finally:
            self._free += wanted
            self._wake()

    async def _wait(self, wanted: float) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, turn))
        try:
            async with asyncio.timeout(self._patience_s):
                await turn
        except (TimeoutError, asyncio.CancelledError) as error:
            if turn.done() and not turn.cancelled():
                self._free += wanted  # its turn came at the same moment
            else:
                with suppress(ValueError):  # it may have been passed over already
                    self._waiting.remove((wanted, turn))
            self._wake()
            if isinstance(error, TimeoutError):
                raise ServerError("the server is busy: come again", code="busy", retry_after_s=2.0) from None
            raise

    def _wake(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            wanted, turn = self._waiting.popleft()
            if not turn.done():
                self._free -= wanted
                turn.set_result(None)


class Transfers:
    """Who moves blobs right now: at most `most` at a time for each client."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._of: dict[str, int] = {}

    @contextmanager
    def one(self, client: str) -> Generator[None]:
        """Counts one; ServerError "too-many" if there are enough."""
        if self._of.get(client, 0) >= self._most:
            raise ServerError(
                f"a client has at most {self._most:.0f} uploads and downloads at a time",
                code="too-many",
                retry_after_s=1.0,
            )
        self._of[client] = self._of.get(client, 0) + 1
        try:
            yield
        finally:
            self._of[client] -= 1
            if not self._of[client]:
                del self._of[client]
