"""What a run does on the side: tasks of the event loop that are held until they end, and whose defects are logged."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from shoal.errors import ShoalError
from shoal.server import logs


class Jobs:
    """The jobs of one run."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._jobs: set[asyncio.Task[None]] = set()

    def spawn(self, job: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begins a job."""
        begun = asyncio.ensure_future(job)
        self._jobs.add(begun)
        begun.add_done_callback(self._ended)
        return begun

    async def stop(self) -> None:
        """Ends all."""
        for job in list(self._jobs):
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    def _ended(self, job: asyncio.Task[None]) -> None:
        self._jobs.discard(job)
        error = None if job.cancelled() else job.exception()
        if error is not None and not isinstance(error, ShoalError | OSError):
            logs.failure("a job of a run failed", error, run=self._run)
