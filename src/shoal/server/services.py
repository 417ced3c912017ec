"""What all runs of a server share."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from shoal.server.audit import audit_writes
from shoal.store.blobs import Blobs
from shoal.store.store import Store, Write
from shoal.wire.blobs import blob_id
from shoal.wire.messages import Manifest

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Services:
    """The store, the blobs, threads for what takes long, and whom to tell."""

    store: Store
    blobs: Blobs
    wake: Callable[[str], None]
    """Called with a client's name when there is news for it."""
    changed: Callable[[str, str], None]
    """Called with a run and its new status."""
    _holders: Counter[str] = field(default_factory=Counter[str])
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(4, "shoal server"))

    def hold(self, *manifests: Manifest) -> None:
        """Keeps blobs until each `let_go` of each: two runs may have the same one."""
        self._holders.update(blob_id(manifest) for manifest in manifests)

    def let_go(self, *manifests: Manifest) -> None:
        """Deletes the blobs that nobody else holds."""
        for name in map(blob_id, manifests):
            self._holders[name] -= 1
            if self._holders[name] <= 0:
                del self._holders[name]
                self.blobs.delete(name)

    def sweep(self) -> None:
        """Deletes the blobs that nobody holds: what a crash left behind."""
        for name in set(self.blobs.ids()) - set(self._holders):
            self.blobs.delete(name)

    async def thread(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a call gives that would hold up everybody else."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, lambda: call(*args, **kwargs))

    def audit(self, actor: str, action: str, item: str, detail: str = "") -> list[Write]:
        """What adds a row to the audit log."""
        return audit_writes(actor, action, item, detail[:200], time=self.wall())

    def wall(self) -> float:
        """Seconds since 1970: for people and for the log, never for a decision."""
        return time.time()
