"""The rounds of a run as they come, for people, on stderr."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from shoal.cli.show import row
from shoal.cli.tables import plain
from shoal.errors import StoreError
from shoal.server.federation import Federation
from shoal.server.serving import Serving
from shoal.server.views import RoundView, RunView

OVER = ("completed", "cancelled", "failed", "paused")
"""Statuses in which nothing happens until a person says so."""


class Watch:
    """Looks at a run on this process's server now and then, and tells what changed."""

    def __init__(self, serving: Serving, federation: Federation, run: str, *, quiet: bool) -> None:
        self._serving, self._coordinator, self._run = serving, federation.coordinator, run
        console = Console(stderr=True, quiet=quiet, highlight=False)
        text = TextColumn("{task.description}", markup=False)
        columns = (TextColumn("round"), MofNCompleteColumn(), BarColumn(), text)
        self._bar = Progress(*columns, console=console, transient=True, disable=quiet)
        self._task = self._bar.add_task("", total=None)
        self._told, self._status = self.run().round, ""

    @contextmanager
    def shown(self) -> Generator[None]:
        """Shows a bar as long as it lasts."""
        with self._bar:
            yield

    def look(self) -> bool:
        """Tells what changed since the last look; whether the run is over.

        A store that does not answer for a while is told, and no more: the server goes on without being looked at.
        """
        try:
            run = self._serving.call(self._brief())
            if run.round != self._told or run.status != self._status:
                run = self.run()
                self._tell(run)
        except (StoreError, TimeoutError) as error:
            self._bar.update(self._task, description=plain(f"the store does not answer: {error}"))
            return False
        counted, given = run.tasks.get("counted", 0), sum(run.tasks.values())
        state = f"{counted} of {given} contributions" if given else run.waits_for or run.reason or run.status
        self._bar.update(self._task, completed=run.round, total=run.rounds, description=plain(state))
        return run.status in OVER

    def run(self) -> RunView:
        """The run with its history."""
        return self._serving.call(self._whole())

    def _tell(self, run: RunView) -> None:
        closed = [one for one in run.history if one.status == "closed"]
        for one in closed[self._told :]:
            self._say(_line(one))
        if run.status != self._status and run.status in OVER:
            self._say(f"{run.name} is {run.status}{f': {run.reason}' if run.reason else ''}")
        self._told, self._status = run.round, run.status

    def _say(self, text: str) -> None:
        self._bar.console.print(plain(text), markup=False)

    async def _brief(self) -> RunView:
        return next(run for run in self._coordinator.runs() if run.id == self._run)

    async def _whole(self) -> RunView:
        return self._coordinator.run(self._run)


def _line(one: RoundView) -> str:
    """A closed round in a line."""
    told = row(one)
    number, clients, rejected, seconds = (told.pop(name) for name in ("round", "clients", "rejected", "seconds"))
    words = [f"round {number}: {clients} clients", *(f"{name} {value:.4g}" for name, value in told.items())]
    return ", ".join([*words, *([f"{rejected} rejected"] if rejected else []), f"{seconds:.2f} s"])
