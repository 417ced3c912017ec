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

    `tasks` are all tasks of the open attempt of a round; in asynchronous runs all that are issued, and all counted
    ones that no model is made of yet. `closing` are the tasks of a round that was being closed, else empty or None.
    """

    status: Status = "waiting"
    reason: str = ""
    round: int = 0
    attempt: int = 0
    cohort: int = 0
    tasks: tuple[TaskRow, ...] = ()
    closing: tuple[str, ...] | None = None
