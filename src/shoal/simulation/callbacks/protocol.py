"""What a callback is: a value that makes a listener for each run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from shoal.algorithms import Run
from shoal.plan import Plan

Row = Mapping[str, Any]
"""A row of the history."""

Answer = bool | str | None
"""True, or a sentence that says why, stops the run; None lets it go on."""


@dataclass(frozen=True)
class Beginning:
    """What a callback is told before the first round that runs.

    `every` is how often the run is evaluated, `tested` whether there is a test. `rows` has the history of a run
    that goes on from a checkpoint, so that what a listener knew can be found again.
    """

    plan: Plan
    run: Run[Any]
    every: int
    tested: bool
    rows: tuple[Row, ...]

    @property
    def looked_at(self) -> list[Row]:
        """The rows of the rounds after which the run was evaluated."""
        return [row for row in self.rows if row["round"] % self.every == 0 or row["round"] == self.plan.rounds]


class Listener(Protocol):
    """A callback in one run.

    `every` says after which rounds it is called: their multiples, and the last. None is after every call, as the
    rows come; how many rounds a call holds depends on their time, so such a listener should not stop a run.
    """

    @property
    def every(self) -> int | None:
        """The rounds between two calls."""
        ...

    def after(self, rows: Sequence[Row], run: Run[Any]) -> Answer:
        """Hears the rows since the last time, and the run as it is after them.

        A run that goes on from a checkpoint repeats the rows of the last time.
        """
        ...

    def close(self, rows: Sequence[Row]) -> None:
        """Hears the rows that a run left behind when it failed or was interrupted; then nothing comes any more."""
        ...


class Callback(Protocol):
    """Something that follows runs: a value, which keeps nothing between them."""

    def begin(self, beginning: Beginning) -> Listener:
        """A listener for one run; an error stops the run before its first round."""
        ...


Function = Callable[[Sequence[Row], Run[Any]], Answer]
"""A callback of one's own: called when the run is evaluated, with the rows since the last time, and the run."""
