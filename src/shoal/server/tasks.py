"""The tasks that a run has given out: whose each is, and what its client is sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shoal.store.incoming import Incoming
from shoal.wire.messages import Manifest, Task


@dataclass
class Held:
    """A task that is given out."""

    client: str
    message: Task
    until: float
    durable: bool = False
    """Nobody is told of a task that a crash could still undo."""
    offered: Manifest | None = None
    arriving: Incoming | None = None
    """Held as long as the task is: whoever asks for it anew has to hash what has come."""


class Tasks:
    """The open tasks of a run, by name and by client: each client has at most one."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}
        self._of: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(self._held.values())

    def add(self, held: Held) -> None:
        """A task is given out."""
        self._held[held.message.task] = held
        self._of[held.client] = held.message.task

    def told(self, task: str) -> None:
        """A task is durable: its client may be told of it."""
        held = self._held.get(task)
        if held is not None:
            held.durable = True

    def clear(self) -> None:
        """Forgets all."""
        self._held, self._of = {}, {}

    def get(self, task: str) -> Held | None:
        """A task that is open."""
        return self._held.get(task)

    def of(self, client: str) -> Held | None:
        """The task that a client has."""
        return self._held.get(self._of.get(client, ""))

    def pop(self, task: str) -> Held | None:
        """Takes a task away that came to its end."""
        held = self._held.pop(task, None)
        if held is not None:
            self._of.pop(held.client, None)
        return held
