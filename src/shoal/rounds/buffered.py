"""A run without rounds to wait for: FedBuff (Nguyen et al. 2022, algorithm 1)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from shoal.errors import SettingError
from shoal.rounds.events import Abandoned, Close, Effect, Issued, Opened, Settled, TaskStatus
from shoal.rounds.machine import Machine, WhyNot, nothing
from shoal.rounds.rules import Rules, staleness_weight
from shoal.rounds.snapshot import Snapshot


@dataclass(frozen=True)
class _Task:
    client: str
    round: int
    deadline: float


class BufferedMachine(Machine):
    """A run without rounds: a round is the making of a model, and `round` counts them.

    A model is made of the `buffer` contributions that came first, whatever model each began with. A client has one
    task at a time, at most one for each model, and never two contributions in one sum. Who came first is asked first.
    While a model is being made nobody is asked: each would begin with one that is about to change. SettingError if
    the rules have no buffer.
    """

    def __init__(self, name: str, *, rules: Rules, rounds: int, why_not: WhyNot = nothing) -> None:
        if rules.buffer is None:
            raise SettingError("a run without rounds has a buffer: Rules(buffer=10), not Rules(buffer=None)")
        wanted = rules.wait_for or rules.at_least
        super().__init__(name, rules=rules, rounds=rounds, wanted=wanted, why_not=why_not)
        self._size = rules.buffer
        self._ready: OrderedDict[str, None] = OrderedDict()  # those there that may be asked now
        self._making = False  # a model is asked for, or made
        self._tasks: OrderedDict[str, _Task] = OrderedDict()  # issued ones, by deadline
        self._busy: set[str] = set()  # who has one of them
        self._had: set[str] = set()  # who was asked for this model
        self._position = 0
        self._buffer: dict[str, str] = {}  # counted tasks and their clients, first come first
        self._gave: set[str] = set()  # these clients
        self._closing: tuple[str, ...] | None = None

    def due(self) -> float | None:
        """When a `Tick` is wanted next."""
        if self._tasks:
            return next(iter(self._tasks.values())).deadline
        if self._since is None:
            return None
        return self._since + (self._rules.deadline_s if self._making else self._rules.patience_s)

    def status_of(self, task: str) -> TaskStatus | None:
        """The status of a task that is issued, or counted and in no closed round; None for all others."""
        if task in self._tasks:
            return "issued"
        return "counted" if task in self._buffer or task in (self._closing or ()) else None

    @property
    def _is_closing(self) -> bool:
        return self._closing is not None

    def _remember(self, saved: Snapshot, now: float) -> None:
        self._making, self._closing = saved.cohort is not None, saved.closing
        deadline = now + self._rules.deadline_s
        for row in saved.tasks:
            if row.status == "issued":
                self._tasks[row.task] = _Task(row.client, row.round, deadline)
                self._busy.add(row.client)
            elif row.status == "counted" and row.task not in (saved.closing or ()):
                self._buffer[row.task] = row.client
                self._gave.add(row.client)
            if self._making and (row.round, row.attempt) == (self.round, self.attempt):
                self._had.add(row.client)
                self._position += 1

    def _seen(self, client: str) -> None:
        self._there.setdefault(client)
        self._ask_later(client)

    def _gone(self, client: str) -> None:
        self._there.pop(client, None)
        self._ready.pop(client, None)

    def _take_up(self, saved: Snapshot) -> Iterator[Effect]:
        if saved.cohort is None:
            yield from self._after()
        elif saved.closing is not None:
            yield Close(self.round, saved.closing)

    def _progress(self, now: float) -> Iterator[Effect]:
        attempt = None
        while attempt != self.attempt:  # again after a model that was given up
            attempt = self.attempt
            if self.status == "waiting":
                yield from self._wait(now)
            if not self._making or self._closing is not None:
                return
            if len(self._buffer) >= self._size:
                yield self._close()
            else:
                yield from self._issue(now)
                yield from self._stall(now)

    def _open(self, now: float) -> Iterator[Effect]:
        yield from self._became("open")
        yield self._opened()

    def _opened(self) -> Opened:
        self._making, self._position, self._since = True, 0, None
        self._had.clear()
        self._ready.clear()
        for client in self._there:
            self._ask_later(client)
        return Opened(self.round, self.attempt, self._size, math.inf)

    def _ask_later(self, client: str) -> None:
        """Puts a client among those that may be asked, if it may."""
        barred = client in self._had or client in self._busy or client in self._gave
        if self._making and client in self._there and not barred:
            self._ready.setdefault(client)

    def _close(self) -> Close:
        self._closing, self._since = tuple(islice(self._buffer, self._size)), None
        for task in self._closing:
            self._gave.discard(self._buffer.pop(task))
        return Close(self.round, self._closing)

    def _issue(self, now: float) -> Iterator[Effect]:
        room = self._rules.concurrency - len(self._tasks)
        if self.status == "pausing":
            room = min(room, self._size - len(self._buffer) - len(self._tasks))
        for _ in range(min(room, len(self._ready))):
            client, _ = self._ready.popitem(last=False)
            task = f"{self._name}-{self.round}-{self.attempt}-{self._position}"
            self._tasks[task] = _Task(client, self.round, now + self._rules.deadline_s)
            self._busy.add(client)
            self._had.add(client)
            del self._there[client]
            yield Issued(task, client, self.round, self.attempt, self._position)
            self._position += 1

    def _stall(self, now: float) -> Iterator[Effect]:
        """Gives up a model that nobody trains for, once that has lasted as long as a task may, or enough are there for
        another attempt."""
        if self._tasks:
            self._since = None
        elif self._since is None:
            self._since = now
        enough = len(self._there) >= max(self._size, self.wanted)
        if self._since is not None and (enough or now >= self._since + self._rules.deadline_s):
            yield from self._abandon(f"{len(self._buffer)} of {self._size} contributions came, and no more can")

    def _reported(self, task: str) -> Iterator[Effect]:
        held = self._tasks.get(task)
        if held is None:
            return
        # the model that this contribution will change: those before it are being made, or have their contributions
        coming = self.round + (self._closing is not None) + len(self._buffer) // self._size
        stale = coming - held.round
        if coming >= self._rounds:
            yield from self._settle(task, "late", "the last model has its contributions")
        elif stale > self._rules.most_stale:
            yield from self._settle(
                task, "late", f"its model is {stale} behind, and at most {self._rules.most_stale} count"
            )
        else:
            self._buffer[task] = held.client
            self._gave.add(held.client)
            yield from self._settle(task, "counted", "", scale=staleness_weight(stale))

    def _settle(self, task: str, status: TaskStatus, reason: str, *, scale: float = 1.0) -> Iterator[Effect]:
        held = self._tasks.pop(task, None)
        if held is not None:
            self._busy.discard(held.client)
            self._ask_later(held.client)
            yield Settled(task, status, reason, scale)

    def _expire(self, now: float) -> Iterator[Effect]:
        while self._tasks:
            task, held = next(iter(self._tasks.items()))
            if now < held.deadline:
                return
            yield from self._settle(task, "expired", "the deadline came")

    def _closed(self, round: int) -> Iterator[Effect]:
        if self._closing is not None and round == self.round:
            self._closing = None
            self.round, self.attempt = self.round + 1, 0
            yield from self._after()

    def _after(self) -> Iterator[Effect]:
        """What follows a model that is made."""
        self._making = False
        if self.round >= self._rounds:
            yield from self._settle_all("late", "the run is complete")
            yield from self._became("completed")
        elif self.status == "cancelling":
            yield from self._settle_all("cancelled", "the run was cancelled")
            yield from self._became("cancelled")
        elif self.status == "pausing":
            yield from self._settle_all("cancelled", "the run was paused")
            yield from self._became("paused", self.reason)
        elif why := self._why_not():
            yield from self._settle_all("cancelled", why)
            yield from self._became("failed", why)
        else:
            yield self._opened()

    def _abandon(self, reason: str) -> Iterator[Effect]:
        yield from self._drop(reason)
        if self.status == "pausing":
            yield from self._became("paused", self.reason)
        elif self.attempt % (self._rules.retries + 1) == 0:
            yield from self._became("paused", f"round {self.round + 1} was abandoned {self.attempt} times: {reason}")
        else:
            yield from self._became("waiting", reason)

    def _drop(self, reason: str) -> Iterator[Effect]:
        """Ends what is being made: what was counted for it counts for nothing."""
        yield Abandoned(self.round, self.attempt, reason)
        self._making, self._closing = False, None
        self._buffer.clear()
        self._gave.clear()
        self.attempt += 1

    def _broke(self, reason: str) -> Iterator[Effect]:
        if self._closing is not None:
            yield from self._settle_all("cancelled", "the model could not be made")
            yield from self._drop(reason)
            yield from self._became("cancelled" if self.status == "cancelling" else "failed", reason)

    def _seal(self, round: int, attempt: int) -> None:
        """Nothing: whoever comes may contribute to the next model."""

    def _undo(self, round: int, attempt: int, reason: str) -> Iterator[Effect]:
        yield from ()  # what is counted is in the sum already

    def _settle_all(self, status: TaskStatus, reason: str) -> Iterator[Effect]:
        for task in list(self._tasks):
            yield from self._settle(task, status, reason)

    def _end_all(self, reason: str) -> Iterator[Effect]:
        yield from self._settle_all("cancelled", reason)
        if self._making:
            yield from self._drop(reason)
