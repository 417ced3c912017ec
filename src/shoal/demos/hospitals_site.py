"""One hospital of the demo as a process: `python -m shoal.demos.hospitals_site FOLDER NAME URL AUTHORITY`.

It does what `shoal join` does: enrols with a token, then works for its policy on its own file until it is stopped.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from shoal.client.agent import Agent
from shoal.client.data import source
from shoal.client.identity import Home
from shoal.client.joining import joined
from shoal.client.policy import PolicyFile
from shoal.demos.hospitals_deployed import read_table
from shoal.demos.processes import order, told


def main(folder: Path, name: str, server: str, authority: str) -> None:
    """Takes part until its input ends. The token is the first line of that."""
    ended, stops = threading.Event(), list[Callable[[], None]]()

    def end() -> None:
        ended.set()
        for stop in stops:
            stop()

    token, home = order(end), Home(folder / "home")
    joined(home, server, token=token, name=name, authority=Path(authority).read_text("ascii"))
    data = source(partial(read_table, folder / "patients.csv"))
    with Agent(home, data, policy=PolicyFile(folder / "policy.toml"), tell=tell) as agent:
        stops.append(agent.stop)
        if not ended.is_set():
            agent.run()


def tell(event: object) -> None:
    """Writes what happens into the hospital's log."""
    print(event, file=sys.stderr, flush=True)


if __name__ == "__main__":
    told(lambda: main(Path(sys.argv[1]), *sys.argv[2:5]))
