"""A run without rounds to wait for, as a pure state machine: FedBuff (Nguyen et al. 2022, algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shoal.rounds.events import (
    Abandoned,
    Became,
    Broke,
    Cancel,
    Close,
    Closed,
    Dropped,
    Effect,
    Event,
    Gone,
    Issued,
    Opened,
    Pause,
    Refused,
    Reported,
    Resume,
    Seen,
    Settled,
    Status,
    TaskStatus,
    Tick,
)  # fmt: skip
from shoal.rounds.rules import Rules, staleness_weight
from shoal.rounds.snapshot import Snapshot


@dataclass
class _Task:
    client: str
    round: int
    deadline: float


class BufferedMachine:
    """Takes events, gives effects, like `RunMachine`; `round` counts the models made.

    A client has one task at a time and at most one for each model. A model is made of the `buffer` contributions
    that came first, whatever model each began with.
    """

    def __init__(self, name: str, *, rules: Rules, rounds: int) -> None:
        assert rules.buffer is not None
        self._name, self._rules, self._rounds, self._size = name, rules, rounds, rules.buffer
        self.status: Status = "waiting"
        self.reason = ""
        self.round = 0
        self.attempt = 0
        self._there: set[str] = set()
        self._since: float | None = None
        self._tasks: dict[str, _Task] = {}
        self._had: set[str] = set()
        self._position = 0
        self._buffer: list[str] = []
        self._closing: tuple[str, ...] | None = None
        self._cancelling = False

    def restore(self, saved: Snapshot, now: float) -> list[Effect]:
        """Takes up a run where it was left. Deadlines begin anew; a model that was being made is made again."""
        self.status, self.reason, self.round, self.attempt = saved.status, saved.reason, saved.round, saved.attempt
        if saved.status not in ("open", "pausing"):
            return []
        this = [row for row in saved.tasks if row.round == self.round and row.attempt == self.attempt]
        self._had, self._position = {row.client for row in this}, len(this)
        issued = [row for row in saved.tasks if row.status == "issued"]
        self._tasks = {row.task: _Task(row.client, row.round, now + self._rules.deadline_s) for row in issued}
        closing = saved.closing or ()
        self._buffer = [row.task for row in saved.tasks if row.status == "counted" and row.task not in closing]
        if saved.closing is not None:
            self._closing = saved.closing
            return [Close(self.round, saved.closing)]
        return list(self._progress(now))

    def handle(self, event: Event, now: float) -> list[Effect]:
        """What an event leads to, in the order in which it must be made durable."""
        return list(self._handle(event, now))

    def due(self) -> float | None:
        """When a `Tick` is wanted next."""
        if self._tasks:
            return min(task.deadline for task in self._tasks.values())
        return None if self._since is None else self._since + self._rules.patience_s

    def status_of(self, task: str) -> TaskStatus | None:
        """The status of a task that is issued or waits in the buffer; None for all others."""
        if task in self._tasks:
            return "issued"
        return "counted" if task in self._buffer or task in (self._closing or ()) else None

    @property
    def there(self) -> frozenset[str]:
        """The clients that would take a task."""
        return frozenset(self._there)

    def _handle(self, event: Event, now: float) -> Iterator[Effect]:
        match event:
            case Seen(client):
                self._there.add(client)
                yield from self._progress(now)
            case Gone(client):
                self._there.discard(client)
            case Reported(task):
                yield from self._reported(task, now)
            case Refused(task, reason):
                yield from self._settle(task, "rejected", reason, now)
            case Dropped(task, reason):
                yield from self._settle(task, "declined", reason, now)
            case Closed(round):
                yield from self._closed(round, now)
            case Broke(reason):
                yield from self._broke(reason)
            case Tick():
                yield from self._expire(now)
                yield from self._progress(now)
            case Pause(reason):
                yield from self._pause(reason)
            case Resume():
                yield from self._resume(now)
            case Cancel():
                yield from self._cancel()

    def _progress(self, now: float) -> Iterator[Effect]:
        if self.status == "waiting":
            yield from self._start(now)
        if self.status == "open" and self._closing is None:
            yield from self._issue(now)
        if self.status in ("open", "pausing") and self._closing is None and len(self._buffer) >= self._size:
            self._closing, self._buffer = tuple(self._buffer[: self._size]), self._buffer[self._size :]
            yield Close(self.round, self._closing)

    def _start(self, now: float) -> Iterator[Effect]:
        self._since = now if self._since is None else self._since
        if len(self._there) >= (self._rules.wait_for or self._rules.at_least):
            yield from self._became("open")
            yield self._opened()
        elif now >= self._since + self._rules.patience_s:
            names = ", ".join(sorted(self._there)[:5]) or "nobody"
            yield from self._became("paused", f"waited {self._rules.patience_s:g} s for clients; there: {names}")

    def _opened(self) -> Opened:
        self._had, self._position = set(), 0
        return Opened(self.round, self.attempt, self._size, float("inf"))

    def _issue(self, now: float) -> Iterator[Effect]:
        for client in sorted(self._there - self._had)[: max(0, self._rules.concurrency - len(self._tasks))]:
            task = f"{self._name}-{self.round}-{self.attempt}-{self._position}"
            self._tasks[task] = _Task(client, self.round, now + self._rules.deadline_s)
            self._had.add(client)
            self._there.discard(client)
            yield Issued(task, client, self.round, self.attempt, self._position)
            self._position += 1

    def _reported(self, task: str, now: float) -> Iterator[Effect]:
        held = self._tasks.get(task)
        if held is None:
            return
        coming = self.round + (self._closing is not None)  # the model that this contribution will change
        stale = coming - held.round
        if stale > self._rules.most_stale:
            yield from self._settle(task, "late", f"it began {stale} models ago", now)
            return
        del self._tasks[task]
        self._buffer.append(task)
        yield Settled(task, "counted", scale=staleness_weight(stale))
        yield from self._progress(now)

    def _settle(self, task: str, status: TaskStatus, reason: str, now: float) -> Iterator[Effect]:
        if self._tasks.pop(task, None) is not None:
            yield Settled(task, status, reason)
            yield from self._progress(now)

    def _expire(self, now: float) -> Iterator[Effect]:
        for task in [name for name, held in self._tasks.items() if now >= held.deadline]:
            yield from self._settle(task, "expired", "the deadline came", now)

    def _closed(self, round: int, now: float) -> Iterator[Effect]:
        if self._closing is None or round != self.round:
            return
        self._closing = None
        self.round, self.attempt = self.round + 1, 0
        if self.round >= self._rounds:
            yield from self._settle_all("late", "the run is complete")
            yield from self._became("completed")
        elif self._cancelling:
            yield from self._settle_all("cancelled", "the run was cancelled")
            yield from self._became("cancelled")
        elif self.status == "pausing":
            yield from self._settle_all("cancelled", "the run was paused")
            yield from self._became("paused", self.reason)
        else:
            yield self._opened()
            yield from self._progress(now)

    def _broke(self, reason: str) -> Iterator[Effect]:
        if self._closing is None:
            return
        yield from self._settle_all("cancelled", "the run failed")
        yield Abandoned(self.round, self.attempt, reason)
        self._closing, self._buffer = None, []
        self.attempt += 1
        yield from self._became("failed", reason)

    def _settle_all(self, status: TaskStatus, reason: str) -> Iterator[Effect]:
        for task in list(self._tasks):
            del self._tasks[task]
            yield Settled(task, status, reason)

    def _pause(self, reason: str) -> Iterator[Effect]:
        if self.status == "waiting":
            yield from self._became("paused", reason)
        elif self.status == "open":
            yield from self._became("pausing", reason)

    def _resume(self, now: float) -> Iterator[Effect]:
        if self.status == "pausing":
            yield from self._became("open")
            yield from self._progress(now)
        elif self.status in ("paused", "failed"):
            yield from self._became("waiting")
            yield from self._progress(now)

    def _cancel(self) -> Iterator[Effect]:
        if self.status in ("completed", "cancelled"):
            return
        if self._closing is not None:
            self._cancelling = True
            return
        yield from self._settle_all("cancelled", "the run was cancelled")
        if self.status in ("open", "pausing"):
            yield Abandoned(self.round, self.attempt, "the run was cancelled")
        self._buffer = []
        yield from self._became("cancelled")

    def _became(self, status: Status, reason: str = "") -> Iterator[Effect]:
        self._since = None
        self.status, self.reason = status, reason
        yield Became(status, reason)
