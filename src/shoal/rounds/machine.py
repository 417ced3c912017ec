"""A run in synchronous rounds, as a pure state machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from shoal.cohort import Fixed, Sampler
from shoal.key import Key
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
from shoal.rounds.rules import Rules
from shoal.rounds.snapshot import Snapshot

FINAL: frozenset[Status] = frozenset({"completed", "failed", "cancelled"})


@dataclass
class _Task:
    client: str
    status: TaskStatus = "issued"


class RunMachine:
    """Takes events, gives effects; the same events at the same times give the same effects.

    Names of tasks are `name`, round, attempt and position. The cohort of a round is what the sampler draws, with the
    run's key, from the sorted names of those that are there: where everybody is, it is that of a simulation.
    """

    def __init__(self, name: str, *, rules: Rules, sampler: Sampler, rounds: int, key: Key) -> None:
        self._name, self._rules, self._sampler, self._rounds, self._key = name, rules, sampler, rounds, key
        self.status: Status = "waiting"
        self.reason = ""
        self.round = 0
        self.attempt = 0
        self._there: set[str] = set()
        self._since: float | None = None
        self._deadline = 0.0
        self._cohort = 0
        self._tasks: dict[str, _Task] = {}
        self._asked: set[str] = set()
        self._closing = False
        self._cancelling = False

    def restore(self, saved: Snapshot, now: float) -> list[Effect]:
        """Takes up a run where it was left. Deadlines begin anew; a round that was being closed is closed again."""
        self.status, self.reason, self.round, self.attempt = saved.status, saved.reason, saved.round, saved.attempt
        if saved.status not in ("open", "pausing"):
            return []
        self._cohort, self._deadline = saved.cohort, now + self._rules.deadline_s
        self._tasks = {row.task: _Task(row.client, row.status) for row in saved.tasks}
        self._asked = {row.client for row in saved.tasks}
        if saved.closing is not None:
            self._closing = True
            return [Close(self.round, saved.closing)]
        return list(self._progress(now))

    def handle(self, event: Event, now: float) -> list[Effect]:
        """What an event leads to, in the order in which it must be made durable. An event that means nothing now,
        such as a second report of a task, leads to nothing."""
        return list(self._handle(event, now))

    def due(self) -> float | None:
        """When a `Tick` is wanted next."""
        if self._open and not self._closing:
            return self._deadline
        return None if self._since is None else self._since + self._rules.patience_s

    def status_of(self, task: str) -> TaskStatus | None:
        """The status of a task of the open round; None for all others."""
        found = self._tasks.get(task)
        return None if found is None else found.status

    @property
    def there(self) -> frozenset[str]:
        """The clients that would take a task."""
        return frozenset(self._there)

    @property
    def _open(self) -> bool:
        return self.status in ("open", "pausing")

    def _handle(self, event: Event, now: float) -> Iterator[Effect]:
        match event:
            case Seen(client):
                self._there.add(client)
                yield from self._progress(now)
            case Gone(client):
                self._there.discard(client)
            case Reported(task):
                yield from self._settle(task, "counted", "", now)
            case Refused(task, reason):
                yield from self._settle(task, "rejected", reason, now)
            case Dropped(task, reason):
                yield from self._settle(task, "declined", reason, now)
            case Closed(round):
                yield from self._closed(round, now)
            case Broke(reason):
                yield from self._broke(reason)
            case Tick():
                yield from self._progress(now)
            case Pause(reason):
                yield from self._pause(reason)
            case Resume():
                yield from self._resume(now)
            case Cancel():
                yield from self._cancel()

    def _progress(self, now: float) -> Iterator[Effect]:
        """Opens, fills, closes or gives up, as far as it goes."""
        if self.status == "waiting":
            yield from self._open_if_enough(now)
        if self._open and not self._closing:
            yield from self._fill()
            yield from self._end(now)

    def _open_if_enough(self, now: float) -> Iterator[Effect]:
        if self._since is None:
            self._since = now
        patient = now < self._since + self._rules.patience_s
        wanted = self._rules.opens_with(self._sampler) if patient else self._rules.at_least
        if len(self._there) >= wanted:
            yield from self._open_round(now)
        elif not patient:
            names = ", ".join(sorted(self._there)[:5]) or "nobody"
            yield from self._became(
                "paused",
                f"round {self.round + 1} waited {self._rules.patience_s:g} s for {wanted} clients; there: {names}",
            )

    def _open_round(self, now: float) -> Iterator[Effect]:
        names = sorted(self._there)
        key = self._at()
        sampler = self._sampler
        if isinstance(sampler, Fixed):
            sampler = Fixed(min(sampler.clients, len(names)))
        places = sampler.draw(key.split("cohort"), len(names))
        self._cohort, self._tasks, self._asked = len(places), {}, set()
        self._deadline = now + self._rules.deadline_s
        yield from self._became("open")
        yield Opened(self.round, self.attempt, self._cohort, self._deadline)
        if 0 < self._cohort < self._rules.at_least:
            yield from self._abandon(f"{self._cohort} clients were drawn, fewer than {self._rules.at_least}", now)
            return
        extra = min(self._rules.asked(self._cohort), len(names)) - self._cohort
        rest = np.setdiff1d(np.arange(len(names)), places)
        spares = np.sort(key.split("extra").generator().choice(rest, extra, replace=False)) if extra > 0 else rest[:0]
        for place in (*places, *spares):
            yield self._issue(names[int(place)])

    def _at(self) -> Key:
        """The key that draws the cohort; each further attempt at a round has its own."""
        key = self._key.split("round", self.round)
        return key.split("try", self.attempt) if self.attempt else key

    def _issue(self, client: str) -> Issued:
        position = len(self._tasks)
        task = f"{self._name}-{self.round}-{self.attempt}-{position}"
        self._tasks[task] = _Task(client)
        self._asked.add(client)
        self._there.discard(client)
        return Issued(task, client, self.round, self.attempt, position)

    def _fill(self) -> Iterator[Effect]:
        """Asks others in the place of those whose task came to nothing."""
        missing = self._cohort - self._number("counted") - self._number("issued")
        idle = sorted(self._there - self._asked)
        for _ in range(min(missing, len(idle))):
            spare = self._at().split("spare", len(self._tasks)).generator().integers(len(idle))
            yield self._issue(idle.pop(int(spare)))

    def _end(self, now: float) -> Iterator[Effect]:
        counted, issued = self._number("counted"), self._number("issued")
        over = now >= self._deadline
        if counted >= self._cohort or (counted >= self._rules.at_least and (over or not issued)):
            yield from self._close("expired" if over else "late")
        elif over:
            reason = f"{counted} of at least {self._rules.at_least} contributions came in {self._rules.deadline_s:g} s"
            yield from self._settle_all("expired", "the deadline came")
            yield from self._abandon(reason, now)

    def _close(self, straggler: TaskStatus) -> Iterator[Effect]:
        yield from self._settle_all(straggler, "the round closed")
        self._closing = True
        yield Close(self.round, tuple(task for task, held in self._tasks.items() if held.status == "counted"))

    def _closed(self, round: int, now: float) -> Iterator[Effect]:
        if not self._closing or round != self.round:
            return
        pausing = self.status == "pausing"
        self._forget()
        self.round, self.attempt = self.round + 1, 0
        if self.round >= self._rounds:
            yield from self._became("completed")
        elif self._cancelling:
            yield from self._became("cancelled")
        elif pausing:
            yield from self._became("paused", self.reason)
        else:
            yield from self._became("waiting")
            yield from self._progress(now)

    def _abandon(self, reason: str, now: float) -> Iterator[Effect]:
        yield Abandoned(self.round, self.attempt, reason)
        pausing = self.status == "pausing"
        self._forget()
        self.attempt += 1
        if pausing:
            yield from self._became("paused", self.reason)
        elif self.attempt % (self._rules.retries + 1) == 0:
            yield from self._became("paused", f"round {self.round + 1} was abandoned {self.attempt} times: {reason}")
        else:
            yield from self._became("waiting", reason)
            yield from self._open_later(now)

    def _open_later(self, now: float) -> Iterator[Effect]:
        """The next attempt, if enough are there already."""
        self._since = now
        if len(self._there) >= self._rules.opens_with(self._sampler):
            yield from self._open_if_enough(now)

    def _broke(self, reason: str) -> Iterator[Effect]:
        if not self._closing:
            return
        yield Abandoned(self.round, self.attempt, reason)
        self._forget()
        self.attempt += 1
        yield from self._became("failed", reason)

    def _settle(self, task: str, status: TaskStatus, reason: str, now: float) -> Iterator[Effect]:
        held = self._tasks.get(task)
        if held is None or held.status != "issued":
            return
        held.status = status
        yield Settled(task, status, reason)
        if not self._closing:
            yield from self._progress(now)

    def _settle_all(self, status: TaskStatus, reason: str) -> Iterator[Effect]:
        for task, held in self._tasks.items():
            if held.status == "issued":
                held.status = status
                yield Settled(task, status, reason)

    def _pause(self, reason: str) -> Iterator[Effect]:
        if self.status == "waiting":
            yield from self._became("paused", reason)
        elif self.status == "open":
            yield from self._became("pausing", reason)

    def _resume(self, now: float) -> Iterator[Effect]:
        if self.status == "pausing":
            yield from self._became("open")
        elif self.status in ("paused", "failed"):
            yield from self._became("waiting")
            yield from self._progress(now)

    def _cancel(self) -> Iterator[Effect]:
        if self.status in ("completed", "cancelled"):
            return
        if self._closing:  # the next model may be durable already
            self._cancelling = True
            return
        if self._open:
            yield from self._settle_all("cancelled", "the run was cancelled")
            yield Abandoned(self.round, self.attempt, "the run was cancelled")
        self._forget()
        yield from self._became("cancelled")

    def _became(self, status: Status, reason: str = "") -> Iterator[Effect]:
        self._since = None
        self.status, self.reason = status, reason
        yield Became(status, reason)

    def _forget(self) -> None:
        self._tasks, self._asked, self._closing, self._cohort = {}, set(), False, 0

    def _number(self, status: TaskStatus) -> int:
        return sum(task.status == status for task in self._tasks.values())
