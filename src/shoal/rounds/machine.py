"""What a run is as a pure state machine, whether it goes in rounds or not: events in, effects out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

from shoal.rounds import events
from shoal.rounds.events import Became, Effect, Event, Status, TaskStatus
from shoal.rounds.rules import Rules
from shoal.rounds.snapshot import Snapshot

WhyNot = Callable[[], str]
"""Why a run must not go on, as a sentence; "" if it may."""


def nothing() -> str:
    """Nothing stands against it."""
    return ""


class Machine(ABC):
    """Takes events, gives effects; the same events at the same times give the same effects.

    Names of tasks are `name`, round, attempt and position. A run begins with `restore` of an empty Snapshot. `wanted`
    clients must be there before it opens, unless its patience is over. `why_not` is asked before it opens: a sentence,
    with which the run fails in place of opening, or "".
    """

    def __init__(self, name: str, *, rules: Rules, rounds: int, wanted: int, why_not: WhyNot = nothing) -> None:
        self._name, self._rules, self._rounds, self.wanted = name, rules, rounds, wanted
        self._why_not = why_not
        self.status: Status = "waiting"
        self.reason = ""
        self.round = 0
        self.attempt = 0
        self._there: dict[str, None] = {}  # who would take a task, in the order in which they came
        self._since: float | None = None  # when it began to wait

    def restore(self, saved: Snapshot, now: float) -> list[Effect]:
        """Begins a run, or takes it up where it was left. Deadlines begin anew; what was being closed is closed
        again."""
        self.status, self.reason, self.round, self.attempt = saved.status, saved.reason, saved.round, saved.attempt
        self._remember(saved, now)
        begun = self._take_up(saved) if saved.status in ("open", "pausing", "cancelling") else ()
        return [*begun, *self._progress(now)]

    def handle(self, event: Event, now: float) -> list[Effect]:
        """What an event leads to, in the order in which it must be made durable: at best in one transaction, so that a
        round is opened with all of its cohort or not at all. An event that means nothing now, such as a second report
        of a task, leads to nothing."""
        return [*self._take(event, now), *self._progress(now)]

    @property
    def there(self) -> frozenset[str]:
        """The clients that would take a task."""
        return frozenset(self._there)

    @abstractmethod
    def due(self) -> float | None:
        """When a `Tick` is wanted next."""

    @abstractmethod
    def status_of(self, task: str) -> TaskStatus | None:
        """The status of a task that is in no closed round; None for all others."""

    def _take(self, event: Event, now: float) -> Iterator[Effect]:
        match event:
            case events.Seen(client):
                self._seen(client)
            case events.Gone(client):
                self._gone(client)
            case events.Reported(task):
                yield from self._reported(task)
            case events.Refused(task, reason):
                yield from self._settle(task, "rejected", reason)
            case events.Dropped(task, reason):
                yield from self._settle(task, "declined", reason)
            case events.Closed(round):
                yield from self._closed(round)
            case events.Broke(reason):
                yield from self._broke(reason)
            case events.Sealed(round, attempt):
                self._seal(round, attempt)
            case events.Undone(round, attempt, reason):
                yield from self._undo(round, attempt, reason)
            case events.Tick():
                yield from self._expire(now)
            case events.Pause(reason):
                yield from self._pause(reason)
            case events.Resume():
                yield from self._resume()
            case events.Cancel():
                yield from self._cancel()

    def _wait(self, now: float) -> Iterator[Effect]:
        """Opens if enough are there; once patience is over fewer are enough, or the run is paused."""
        if self._since is None:
            self._since = now
        patient = now < self._since + self._rules.patience_s
        if len(self._there) >= (self.wanted if patient else self._rules.at_least):
            why = self._why_not()
            yield from self._became("failed", why) if why else self._open(now)
        elif not patient:
            names = ", ".join(sorted(self._there)[:5]) or "nobody"
            waited = f"waited {self._rules.patience_s:g} s for {self._rules.at_least} clients; there: {names}"
            yield from self._became("paused", f"round {self.round + 1} {waited}")

    def _pause(self, reason: str) -> Iterator[Effect]:
        if self.status == "waiting":
            yield from self._became("paused", reason)
        elif self.status == "open":
            yield from self._became("pausing", reason)

    def _resume(self) -> Iterator[Effect]:
        if self.status == "pausing":
            yield from self._became("open")
        elif self.status in ("paused", "failed"):
            yield from self._became("waiting")

    def _cancel(self) -> Iterator[Effect]:
        if self.status in ("completed", "cancelled", "cancelling"):
            return
        if self._is_closing:  # the next model may be durable already
            yield from self._became("cancelling")
            return
        yield from self._end_all("the run was cancelled")
        yield from self._became("cancelled")

    def _became(self, status: Status, reason: str = "") -> Iterator[Effect]:
        self._since = None
        self.status, self.reason = status, reason
        yield Became(status, reason)

    @property
    @abstractmethod
    def _is_closing(self) -> bool:
        """Whether contributions are being made the next model."""

    @abstractmethod
    def _remember(self, saved: Snapshot, now: float) -> None:
        """Takes up what a snapshot says of the open round."""

    @abstractmethod
    def _take_up(self, saved: Snapshot) -> Iterator[Effect]:
        """What a server that stopped while a run was open had left undone."""

    @abstractmethod
    def _progress(self, now: float) -> Iterator[Effect]:
        """What can be done now, as far as it goes."""

    @abstractmethod
    def _open(self, now: float) -> Iterator[Effect]:
        """Begins to give out tasks."""

    @abstractmethod
    def _seen(self, client: str) -> None: ...

    @abstractmethod
    def _gone(self, client: str) -> None: ...

    @abstractmethod
    def _reported(self, task: str) -> Iterator[Effect]: ...

    @abstractmethod
    def _settle(self, task: str, status: TaskStatus, reason: str) -> Iterator[Effect]: ...

    @abstractmethod
    def _expire(self, now: float) -> Iterator[Effect]:
        """Gives up the tasks whose own deadline came."""

    @abstractmethod
    def _closed(self, round: int) -> Iterator[Effect]: ...

    @abstractmethod
    def _broke(self, reason: str) -> Iterator[Effect]: ...

    @abstractmethod
    def _seal(self, round: int, attempt: int) -> None: ...

    @abstractmethod
    def _undo(self, round: int, attempt: int, reason: str) -> Iterator[Effect]: ...

    @abstractmethod
    def _end_all(self, reason: str) -> Iterator[Effect]:
        """Cancels what is open: tasks, and the round."""
