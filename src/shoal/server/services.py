"""What all runs of a server share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from shoal.store.blobs import Blobs
from shoal.store.store import Store, Write

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
    audit: Callable[[str, str, str, str], Iterable[Write]]
    """Actor, action, object and detail as writes of the audit log."""
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(4, "shoal server"))

    async def thread(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a call gives that would hold up everybody else."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, lambda: call(*args, **kwargs))

    def wall(self) -> float:
        """Seconds since 1970: for people and for the log, never for a decision."""
        return time.time()
