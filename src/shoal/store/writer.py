"""Group commit: one thread that makes transactions durable in the order in which they were asked for, many at once."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from shoal.errors import StoreError
from shoal.store.queries import checked

Row = dict[str, Any]
"""A row as it was read: values by the names of columns."""

MOST = 200
"""How many transactions share a commit."""


@dataclass(frozen=True)
class Write:
    """A named query and what it is given. With `wants`, it must change as many rows as that.

    If it changes another number, its whole transaction is undone, and ends in a ConflictError.
    """

    name: str
    given: Mapping[str, Any] = field(default_factory=dict[str, Any])
    wants: int | None = None

    def __post_init__(self) -> None:
        checked(self.name, self.given, reads=False)


Transaction = tuple[Write, ...]
Commit = Callable[[Sequence[Transaction]], Sequence[StoreError | None]]
"""Makes transactions durable together; what became of each. Raises if nothing of any is durable."""

_Asked = tuple[Transaction, "Future[None]"]


class Writer:
    """Hands transactions to `commit`, from one thread, in order: those that came while it was busy together."""

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="shoal-store-writer", daemon=True)
        self._thread.start()

    def submit(self, writes: Transaction) -> Future[None]:
        """The end of a transaction. It cannot be cancelled: what was asked for is done, or fails."""
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            if self._closed:
                raise StoreError("the store is closed")
            self._asked.put((writes, future))
        return future

    def close(self) -> None:
        """Waits until everything that was asked for has ended."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._asked.put(None)
        self._thread.join()

    def _run(self) -> None:
        going = True
        while going:
            group, going = self._group()
            if group:
                self._end(group)

    def _group(self) -> tuple[list[_Asked], bool]:
        """What waits, at least one transaction and at most MOST; False with what is the last."""
        group: list[_Asked] = []
        asked = self._asked.get()
        while asked is not None:
            group.append(asked)
            if len(group) == MOST or self._asked.empty():
                return group, True
            asked = self._asked.get()
        return group, False

    def _end(self, group: list[_Asked]) -> None:
        try:
            outcomes = self._commit([writes for writes, _ in group])
        except StoreError as error:
            outcomes = [error] * len(group)
        except Exception as error:  # the thread must live, or all that wait would wait for ever
            outcomes = [StoreError(f"the store failed in a way that nobody foresaw ({type(error).__name__})")] * len(
                group
            )
            outcomes[0].__cause__ = error
        for (_, future), outcome in zip(group, outcomes, strict=True):
            if outcome is None:
                future.set_result(None)
            else:
                future.set_exception(outcome)
