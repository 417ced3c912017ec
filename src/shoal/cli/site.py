"""What an agent does, for people and for programs, as it happens."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime

from rich.console import Console
from rich.status import Status
from rich.text import Text

from shoal.aggregation import Over
from shoal.cli.tables import plain, print_json
from shoal.client.contents import contents
from shoal.client.events import Away, Connected, Event, Settled, Stopped, Took, Trained
from shoal.client.identity import Home
from shoal.errors import MissingExtraError, SettingError
from shoal.plan import Plan
from shoal.privacy import served, spent
from shoal.wire.messages import RunInfo

DELTA = 1e-6


class Telling:
    """Tells an agent's events: to stderr a line each and what goes on now, or to stdout as JSON."""

    def __init__(self, home: Home, *, as_json: bool) -> None:
        self._home, self._as_json = home, as_json
        self._console = Console(stderr=True, highlight=False)
        self._status = Status("connecting", console=self._console)
        self._sent = self._counted = 0
        self.settled = 0
        """How many tasks have an end."""

    def __call__(self, event: Event) -> None:
        """Tells of an event."""
        match event:
            case Trained():
                self._sent += event.upload_bytes
            case Settled():
                self.settled += 1
                self._counted += event.verdict == "counted"
            case _:
                pass
        if self._as_json:
            print_json({"event": type(event).__name__.lower(), **asdict(event)})
            return
        self._console.print(f"{datetime.now():%H:%M:%S}  {plain(str(event))}", markup=False)
        self._status.update(Text(self._doing(event)))

    def plan(self, plan: Plan, info: RunInfo) -> None:
        """Shows what a run would do with a site's data."""
        lines = [
            f"the run {info.name} asks to compute with this site's data:", "",
            *str(plan).splitlines(), f"{'sent':<12}{contents(plan)}",
            f"{'closes with':<12}{info.minimum_cohort} clients or more, as the server says",
            f"{'gives away':<12}{_given_away(plan)}",
            f"{'digest':<12}sha256:{info.plan_digest}", "",
        ]  # fmt: skip
        for line in lines:
            self._console.print(plain(line), markup=False, soft_wrap=True)

    @contextmanager
    def shown(self) -> Generator[None]:
        """Shows what goes on, as long as it lasts."""
        if self._as_json or not self._console.is_terminal:
            yield
            return
        with self._status:
            yield

    @contextmanager
    def hidden(self) -> Generator[None]:
        """Leaves the terminal to a question."""
        self._status.stop()
        try:
            yield
        finally:
            if self._console.is_terminal and not self._as_json:
                self._status.start()

    def _doing(self, event: Event) -> str:
        match event:
            case Took():
                now = "training"
            case Trained():
                now = "sending"
            case Away():
                now = "waiting for the server"
            case Connected() | Settled():
                now = "waiting for work"
            case Stopped():
                now = "ending"
            case _:
                now = "waiting"
        return f"{now}; {self._counted} results counted, {self._sent:,} bytes sent; the ledger: {self._home.folder}"


def _given_away(plan: Plan) -> str:
    """What a plan gives away of a site in all its rounds."""
    try:
        found = spent(served(plan), delta=DELTA)
    except (SettingError, MissingExtraError) as error:
        return f"no epsilon is known: {error}"
    adds = (
        "other sites add their shares of" if isinstance(plan.algorithm.aggregation.finish, Over) else "the server adds"
    )
    return f"epsilon {found.epsilon:.4g} at delta {DELTA:g} in all rounds, if {adds} the noise"
