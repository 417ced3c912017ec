"""A run in synchronous rounds."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from shoal.cohort import Fixed, Sampler
from shoal.key import Key
from shoal.rounds.events import Abandoned, Close, Effect, Issued, Opened, Settled, TaskStatus
from shoal.rounds.machine import Machine, WhyNot, nothing
from shoal.rounds.rules import Rules
from shoal.rounds.snapshot import Snapshot


@dataclass
class _Task:
    client: str
    status: TaskStatus = "issued"


class RunMachine(Machine):
    """A run in rounds.

    The cohort of a round is what the sampler draws, with the run's key, from the sorted names of those that are there:
    where everybody is, it is that of a simulation. SettingError if no cohort could have `at_least` clients.
    """

    def __init__(
        self, name: str, *, rules: Rules, sampler: Sampler, rounds: int, key: Key, why_not: WhyNot = nothing
    ) -> None:
        rules.check(sampler)
        super().__init__(name, rules=rules, rounds=rounds, wanted=rules.opens_with(sampler), why_not=why_not)
        self._sampler, self._key = sampler, key
        self._deadline = 0.0
        self._cohort: int | None = None  # of the open round; None: none is open
        self._tasks: dict[str, _Task] = {}
        self._asked: set[str] = set()
        self._idle: list[str] = []  # sorted: who is there and was not asked in the open round
        self._issued = self._counted = 0
        self._closing = self._sealed = False

    def due(self) -> float | None:
        """When a `Tick` is wanted next."""
        if self._cohort is not None:
            return None if self._closing else self._deadline
        return None if self._since is None else self._since + self._rules.patience_s

    def status_of(self, task: str) -> TaskStatus | None:
        """The status of a task of the open round; None for all others."""
        found = self._tasks.get(task)
        return None if found is None else found.status

    @property
    def _is_closing(self) -> bool:
        return self._closing

    def _remember(self, saved: Snapshot, now: float) -> None:
        if saved.cohort is not None:
            self._cohort, self._deadline = saved.cohort, now + self._rules.deadline_s
            rows = sorted(saved.tasks, key=lambda row: row.position)
            self._tasks = {row.task: _Task(row.client, row.status) for row in rows}
            self._asked = {row.client for row in saved.tasks}
            self._issued = sum(row.status == "issued" for row in saved.tasks)
            self._counted = sum(row.status == "counted" for row in saved.tasks)
            self._sealed = saved.sealed

    def _take_up(self, saved: Snapshot) -> Iterator[Effect]:
        if saved.cohort is None:  # it stopped between a round's end and what follows, or before it opened one
            over = saved.status != "open" or self.round >= self._rounds
            yield from self._after("") if over else self._became("waiting")
        elif saved.closing is not None:
            self._closing = True
            yield Close(self.round, saved.closing)
        elif len(saved.tasks) < saved.cohort:
            yield from self._settle_all("cancelled", "the server stopped")
            yield from self._abandon("the server stopped while it was opened")

    def _progress(self, now: float) -> Iterator[Effect]:
        attempt = None
        while attempt != self.attempt:  # again after a round that was abandoned
            attempt = self.attempt
            if self.status == "waiting":
                yield from self._wait(now)
            if self._cohort is not None and not self._closing:
                yield from self._fill(self._cohort)
                yield from self._end(self._cohort, now)

    def _seen(self, client: str) -> None:
        if client not in self._there:
            self._there[client] = None
            if self._cohort is not None and client not in self._asked:
                insort(self._idle, client)

    def _gone(self, client: str) -> None:
        self._there.pop(client, None)
        place = bisect_left(self._idle, client)
        if self._idle[place : place + 1] == [client]:
            del self._idle[place]

    def _open(self, now: float) -> Iterator[Effect]:
        names = sorted(self._there)
        key = self._at()
        sampler = self._sampler
        if isinstance(sampler, Fixed):
            sampler = Fixed(min(sampler.clients, len(names)))
        places = sampler.draw(key.split("cohort"), len(names))
        cohort = len(places)
        self._cohort, self._deadline = cohort, now + self._rules.deadline_s
        yield from self._became("open")
        yield Opened(self.round, self.attempt, cohort, self._deadline)
        if 0 < cohort < self._rules.at_least:  # an empty one, which only Poisson sampling draws, changes nothing
            yield from self._abandon(f"{cohort} clients were drawn, fewer than {self._rules.at_least}")
            return
        extra = min(self._rules.asked(cohort), len(names)) - cohort
        rest = np.setdiff1d(np.arange(len(names)), places)
        spares = np.sort(key.split("extra").generator().choice(rest, extra, replace=False)) if extra > 0 else rest[:0]
        for place in (*places, *spares):
            yield self._issue(names[int(place)])
        self._idle = [name for name in names if name not in self._asked]

    def _at(self) -> Key:
        """The key that draws the cohort; each further attempt at a round has its own."""
        key = self._key.split("round", self.round)
        return key.split("try", self.attempt) if self.attempt else key

    def _issue(self, client: str) -> Issued:
        position = len(self._tasks)
        task = f"{self._name}-{self.round}-{self.attempt}-{position}"
        self._tasks[task] = _Task(client)
        self._issued += 1
        self._asked.add(client)
        del self._there[client]
        return Issued(task, client, self.round, self.attempt, position)

    def _fill(self, cohort: int) -> Iterator[Effect]:
        """Asks others in the place of those whose task came to nothing."""
        missing = 0 if self._sealed else cohort - self._counted - self._issued
        for _ in range(min(missing, len(self._idle))):
            spare = self._at().split("spare", len(self._tasks)).generator().integers(len(self._idle))
            yield self._issue(self._idle.pop(int(spare)))

    def _end(self, cohort: int, now: float) -> Iterator[Effect]:
        over = now >= self._deadline
        enough = self._counted >= self._rules.at_least and (over or not self._issued)
        if enough or self._counted >= cohort:
            yield from self._settle_all("expired" if over else "late", "the round closed")
            self._closing = True
            yield Close(self.round, tuple(task for task, held in self._tasks.items() if held.status == "counted"))
        elif over or self._may_try_again():
            came = f"{self._counted} of at least {self._rules.at_least} contributions came"
            yield from self._settle_all("expired", "the deadline came")
            yield from self._abandon(f"{came} in {self._rules.deadline_s:g} s" if over else f"{came}, and no more can")

    def _may_try_again(self) -> bool:
        """Whether nobody can report or be asked any more, and enough are there for another attempt."""
        spare = bool(self._idle) and not self._sealed
        return not self._issued and not spare and len(self._there) >= self.wanted

    def _closed(self, round: int) -> Iterator[Effect]:
        if self._closing and round == self.round:
            self.round, self.attempt = self.round + 1, 0
            yield from self._after("")

    def _abandon(self, reason: str) -> Iterator[Effect]:
        yield Abandoned(self.round, self.attempt, reason)
        self.attempt += 1
        yield from self._after(reason)

    def _after(self, reason: str) -> Iterator[Effect]:
        """What follows a round that is closed, or was abandoned."""
        self._forget()
        if self.round >= self._rounds:
            yield from self._became("completed")
        elif self.status == "cancelling":
            yield from self._became("cancelled")
        elif self.status == "pausing":
            yield from self._became("paused", self.reason)
        elif self.attempt and self.attempt % (self._rules.retries + 1) == 0:
            yield from self._became("paused", f"round {self.round + 1} was abandoned {self.attempt} times: {reason}")
        else:
            yield from self._became("waiting", reason)

    def _broke(self, reason: str) -> Iterator[Effect]:
        if self._closing:
            yield Abandoned(self.round, self.attempt, reason)
            self._forget()
            self.attempt += 1
            yield from self._became("cancelled" if self.status == "cancelling" else "failed", reason)

    def _seal(self, round: int, attempt: int) -> None:
        if self._cohort is not None and (round, attempt) == (self.round, self.attempt):
            self._sealed = True

    def _undo(self, round: int, attempt: int, reason: str) -> Iterator[Effect]:
        if self._cohort is not None and (round, attempt) == (self.round, self.attempt):
            yield from self._settle_all("cancelled", reason)
            yield from self._abandon(reason)

    def _reported(self, task: str) -> Iterator[Effect]:
        yield from self._settle(task, "counted", "")

    def _settle(self, task: str, status: TaskStatus, reason: str) -> Iterator[Effect]:
        held = self._tasks.get(task)
        if held is not None and held.status == "issued":
            held.status = status
            self._issued -= 1
            self._counted += status == "counted"
            yield Settled(task, status, reason)

    def _expire(self, now: float) -> Iterator[Effect]:
        yield from ()  # a round has one deadline for all

    def _settle_all(self, status: TaskStatus, reason: str) -> Iterator[Effect]:
        for task in self._tasks if self._issued else ():
            yield from self._settle(task, status, reason)

    def _end_all(self, reason: str) -> Iterator[Effect]:
        if self._cohort is not None:
            yield from self._settle_all("cancelled", reason)
            yield Abandoned(self.round, self.attempt, reason)
            self.attempt += 1
        self._forget()

    def _forget(self) -> None:
        self._tasks, self._asked, self._idle, self._cohort = {}, set(), [], None
        self._issued = self._counted = 0
        self._closing = self._sealed = False
