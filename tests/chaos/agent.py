"""An agent in a process of its own, for tests that kill it: `python -m tests.chaos.agent HOME URL AUTHORITY NAME`.

It enrols if it has to, then works until it is told to stop; what happens is a line each on its standard output.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from shoal.client.agent import Agent
from shoal.client.backoff import Backoff
from shoal.client.enrolment import enrol
from shoal.client.events import Event
from shoal.client.identity import Home
from shoal.client.ledger import Ledger
from shoal.client.line import Line
from shoal.client.policy import Policy
from shoal.plan import Plan
from tests.chaos.serve import CLOCK, shift_clock
from tests.chaos.study import columns


class Impatient(Backoff):
    """Tests do not wait as long as a server asks for."""

    def wait_s(self, attempt: int, *, asked_s: float | None = None) -> float:
        return super().wait_s(attempt)


class Site:
    """A site's data, whatever the plan."""

    def __init__(self, name: str) -> None:
        self._name = name

    def load(self, plan: Plan) -> object:
        return columns(self._name)


def joined(folder: Path, url: str, authority: str, name: str, **options: object) -> Agent:
    """An agent in a home that has enrolled."""
    home, backoff = Home(folder), Impatient(0.05, 0.3)
    if home.identity is None:
        line = Line(url, authority=authority, backoff=backoff)
        with Ledger(folder / "ledger.db") as ledger:
            enrol(home, line, token=f"token of {name}", name=name, ledger=ledger, authority=authority)
        line.close()
    return Agent(home, Site(name), policy=Policy(allow="any"), backoff=backoff, grace_s=0.5, **options)


def main(folder: str, url: str, authority: str, name: str) -> None:
    def tell(event: Event) -> None:
        print(type(event).__name__, getattr(event, "task", "-"), event, flush=True)

    shift_clock(float(os.environ.get(CLOCK, "0")))
    with joined(Path(folder), url, Path(authority).read_text(), name, tell=tell) as agent:
        agent.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
