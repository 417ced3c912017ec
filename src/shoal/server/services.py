"""What all runs of a server share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from shoal.errors import StoreError
from shoal.privacy.budget import Budget
from shoal.server import logs
from shoal.server.audit import audit_writes
from shoal.server.spending import Spending
from shoal.store.blob_store import BlobStore
from shoal.store.store import Store, Write
from shoal.wire.blobs import blob_id
from shoal.wire.messages import Manifest

_AT_ONCE = 4
"""So many blobs are deleted while everybody waits: a file takes a millisecond."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Services:
    """The store, the blobs, threads for what takes long, and whom to tell."""

    store: Store
    blobs: BlobStore
    wake: Callable[[str], None]
    """Called with a client's name when there is news for it."""
    wake_all: Callable[[], None]
    """Called when every client is to say again whether it is there."""
    changed: Callable[[str, str], None]
    """Called with a run and its new status."""
    needed: Callable[[], Iterable[Manifest]]
    """The blobs that some run needs: asked before any is deleted, so that nothing has to be counted."""
    federation: str = ""
    keys: Callable[[], Mapping[str, bytes]] = dict
    """The public keys of all clients that ever enrolled, by name."""
    budget: Budget | None = None
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(4, "shoal server"))
    spending: Spending = field(init=False)
    _movers: ThreadPoolExecutor = field(init=False)
    _over: set[Manifest] = field(default_factory=set[Manifest], init=False)
    _deleting: asyncio.Task[None] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._movers = ThreadPoolExecutor(self.blobs.at_once, "shoal blobs")
        self.spending = Spending(self.store, self.budget)

    def let_go(self, *manifests: Manifest) -> None:
        """Deletes those of some blobs that no run needs any more, soon: a round's end is not waited for meanwhile."""
        self._over.update(manifests)
        if self._over and (self._deleting is None or self._deleting.done()):
            self._deleting = asyncio.ensure_future(self._delete_some())

    async def _delete_some(self) -> None:
        while self._over:
            await asyncio.sleep(0)
            self._delete_over(_AT_ONCE)

    def _delete_over(self, most: int) -> None:
        some = {self._over.pop() for _ in range(min(most, len(self._over)))}
        self._delete(map(blob_id, some.difference(self.needed())))

    def close(self) -> None:
        """Ends the threads, and deletes what was let go."""
        if self._deleting is not None:
            self._deleting.cancel()
        self.pool.shutdown(wait=True)
        self._movers.shutdown(wait=True)
        self._delete_over(len(self._over))

    async def sweep(self) -> None:
        """Deletes every blob that no run needs: what a crash left behind, or a result whose report never came.

        StoreError if the store takes nothing: another server may have taken it over, and need blobs of its own.
        """
        there = await self.move(lambda: set(self.blobs.ids()))
        await asyncio.wrap_future(self.store.write(Write("client_seen", {"id": "", "now": 0.0})))  # changes no row
        self._delete(there.difference(map(blob_id, self.needed())))

    def _delete(self, blobs: Iterable[str]) -> None:
        for blob in blobs:
            try:
                self.blobs.delete(blob)
            except StoreError as error:  # it is found again by the next sweep
                logs.failure("a blob could not be deleted", error)

    async def thread(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a call gives that would hold up everybody else."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, lambda: call(*args, **kwargs))

    async def move(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a call gives that brings or reads blobs: where they wait for a network, nothing else waits with them."""
        return await asyncio.get_running_loop().run_in_executor(self._movers, lambda: call(*args, **kwargs))

    def audit(self, actor: str, action: str, item: str, detail: str = "") -> list[Write]:
        """What adds a row to the audit log."""
        return audit_writes(actor, action, item, detail[:200], time=self.wall())

    def wall(self) -> float:
        """Seconds since 1970: for people and for the log, never for a decision."""
        return time.time()
