"""What a store would know of a run: kept from effects alone, and wrong effects refused."""

from __future__ import annotations

from dataclasses import dataclass, replace

from shoal.rounds.events import Abandoned, Became, Close, Issued, Opened, Settled
from shoal.rounds.snapshot import Snapshot, TaskRow

RESTING = ("waiting", "paused", "completed", "failed", "cancelled")
FOLLOWS = {
    "waiting": {"open", "paused", "cancelled"},
    "open": {"waiting", "pausing", "paused", "cancelling", "cancelled", "failed", "completed"},
    "pausing": {"open", "paused", "cancelling", "cancelled", "failed", "completed"},
    "cancelling": {"cancelled", "completed"},
    "paused": {"waiting", "cancelled"},
    "failed": {"waiting", "cancelled"},
    "completed": set(),
    "cancelled": set(),
}


@dataclass(frozen=True)
class Row:
    """A task, and the round that it was summed in; -1 if it was abandoned."""

    task: TaskRow
    summed: int | None = None


class Book:
    """The durable side of a run, for synchronous rounds, or for asynchronous ones with a buffer."""

    def __init__(self, *, rounds: int, at_least: int, buffer: int | None = None, asked=None) -> None:
        self.rounds, self.at_least, self.buffer, self.asked = rounds, at_least, buffer, asked
        self.status, self.reason, self.round, self.attempt = "waiting", "", 0, 0
        self.open: Opened | None = None
        self.closing: tuple[str, ...] | None = None
        self.rows: dict[str, Row] = {}
        self.opened: set[tuple[int, int]] = set()
        self.sealed = False
        self.closed: list[tuple[str, ...]] = []

    def apply(self, effect) -> None:
        """Makes one effect durable."""
        match effect:
            case Opened():
                self._open(effect)
            case Issued():
                self._issue(effect)
            case Settled():
                self._settle(effect)
            case Close():
                self._close(effect)
            case Abandoned():
                self._abandon(effect)
            case Became(status, reason):
                assert status in FOLLOWS[self.status]
                self.status, self.reason = status, reason
                if status in RESTING:
                    assert self.open is None
                    assert not self.with_status("issued"), "nobody trains for a run that rests"

    def make_model(self) -> int:
        """The transaction in which a round is closed: its model is durable. The round's number."""
        assert self.closing is not None
        for name in self.closing:
            assert self.rows[name].summed is None, "a task counts once"
            self.rows[name] = replace(self.rows[name], summed=self.round)
        self.closed.append(self.closing)
        self.open = self.closing = None
        self.round, self.attempt = self.round + 1, 0
        return self.round - 1

    def snapshot(self) -> Snapshot:
        """What a machine is built from after a restart."""
        return Snapshot(
            self.status, self.reason, self.round, self.attempt, self.open.cohort if self.open else None,
            tuple(row.task for row in self.rows.values() if self._matters(row)), self.closing, self.sealed,
        )  # fmt: skip

    def with_status(self, status: str) -> list[TaskRow]:
        """Tasks of a status."""
        return [row.task for row in self.rows.values() if row.task.status == status]

    def unsummed(self) -> list[str]:
        """Counted tasks that are in no closed round and were not abandoned, in the order in which they were counted."""
        return [name for name in self.counted if self.rows[name].summed is None]

    @property
    def counted(self) -> list[str]:
        return [name for name, row in self.rows.items() if row.task.status == "counted"]

    def _matters(self, row: Row) -> bool:
        if self._of_this_attempt(row.task):
            return self.open is not None
        waits = row.task.status == "issued" or (row.task.status == "counted" and row.summed is None)
        return self.buffer is not None and waits

    def _of_this_attempt(self, task: TaskRow) -> bool:
        return (task.round, task.attempt) == (self.round, self.attempt)

    def _this_attempt(self) -> list[TaskRow]:
        return [row.task for row in self.rows.values() if self._of_this_attempt(row.task)]

    def _open(self, effect: Opened) -> None:
        assert self.status == "open" and self.open is None
        assert (effect.round, effect.attempt) == (self.round, self.attempt), "rounds are opened in order"
        assert (effect.round, effect.attempt) not in self.opened, "a round never opens again"
        assert effect.round < self.rounds
        self.open, self.sealed = effect, False
        self.opened.add((effect.round, effect.attempt))

    def _issue(self, effect: Issued) -> None:
        assert self.status in ("open", "pausing") and self.open is not None and self.closing is None
        assert (effect.round, effect.attempt) == (self.round, self.attempt)
        assert not self.sealed, "nobody joins once the keys are known"
        before = self._this_attempt()
        assert effect.task not in self.rows and effect.client not in [task.client for task in before]
        assert effect.position == len(before)
        if self.buffer is None:
            came_to_nothing = [task for task in before if task.status not in ("issued", "counted")]
            assert len(before) < self.asked(self.open.cohort) + len(came_to_nothing)
        else:
            assert effect.client not in [task.client for task in self.with_status("issued")], "one task at a time"
        task = TaskRow(effect.task, effect.client, effect.round, effect.attempt, effect.position, "issued")
        self.rows[effect.task] = Row(task)

    def _settle(self, effect: Settled) -> None:
        row = self.rows.pop(effect.task)
        assert row.task.status == "issued", "a final status stays"
        assert effect.status != "issued"
        if effect.status == "counted":
            self._may_count(row.task, effect)
        else:
            assert effect.scale == 1
        # put at the end: the order of rows is that in which tasks were issued or settled last
        self.rows[effect.task] = replace(row, task=replace(row.task, status=effect.status, scale=effect.scale))

    def _may_count(self, task: TaskRow, effect: Settled) -> None:
        assert self.open is not None
        if self.buffer is None:
            assert self._of_this_attempt(task) and self.closing is None, "none is counted after its round closed"
            assert effect.scale == 1
        else:
            ahead = len([name for name in self.unsummed() if name not in (self.closing or ())])
            model = self.round + (self.closing is not None) + ahead // self.buffer
            assert abs(effect.scale - (1 + model - task.round) ** -0.5) < 1e-12

    def _close(self, effect: Close) -> None:
        assert self.open is not None and effect.round == self.round
        if self.closing is not None:
            assert effect.tasks == self.closing, "a round that is closed again is closed with the same tasks"
            return
        clients = [self.rows[name].task.client for name in effect.tasks]
        assert len(set(clients)) == len(clients), "nobody is twice in a sum"
        if self.buffer is None:
            assert not self.with_status("issued")
            counted = [task for task in self._this_attempt() if task.status == "counted"]
            assert list(effect.tasks) == [task.task for task in sorted(counted, key=lambda task: task.position)]
            assert len(counted) >= self.at_least or self.open.cohort == 0
        else:
            assert list(effect.tasks) == self.unsummed()[: self.buffer] and len(effect.tasks) == self.buffer
        self.closing = effect.tasks

    def _abandon(self, effect: Abandoned) -> None:
        assert self.open is not None and (effect.round, effect.attempt) == (self.round, self.attempt)
        assert not self.with_status("issued") or self.buffer is not None
        for name in self.unsummed():
            self.rows[name] = replace(self.rows[name], summed=-1)
        self.open = self.closing = None
        self.attempt += 1
