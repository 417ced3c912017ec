"""A run as it was made durable: what its machine is built from again after a restart."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.rounds.events import Status, TaskStatus


@dataclass(frozen=True)
class TaskRow:
    """A task that was issued and is in no closed round yet."""

    task: str
    client: str
    round: int
    attempt: int
    position: int
    status: TaskStatus
    scale: float = 1.0


@dataclass(frozen=True)
class Snapshot:
    """A run: how many rounds are closed, and what is known of the one that is open.

    `attempt` is that of the open round; where none is open, that of the next: how often it was abandoned. `cohort` is
    what the open round was opened with, and None where none is open. `tasks` are all tasks of the open attempt of a
    round, whatever their status; in asynchronous runs also all that are issued, and all that are counted and neither in
    a closed round nor abandoned, in the order in which they were counted. `closing` are the tasks of a round that was
    being closed, in the order of `Close`, else None. `sealed` says that nobody joins the open attempt any more.
    """

    status: Status = "waiting"
    reason: str = ""
    round: int = 0
    attempt: int = 0
    cohort: int | None = None
    tasks: tuple[TaskRow, ...] = ()
    closing: tuple[str, ...] | None = None
    sealed: bool = False
